import json
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from deliberate.core import (
    CacheFile,
    Sampling,
    generate,
    load_base,
    load_coprocessor,
    prefill,
    tokenize,
)


@pytest.fixture
def base(llama_folder):
    return load_base(str(llama_folder))


def decoded(base, text, coprocessor=None, **settings):
    sampling = Sampling(**{"max_tokens": 12, **settings})
    [done] = generate(
        base, prefill(base, [tokenize(base, text)]), sampling, coprocessor=coprocessor
    )
    return done.text


@pytest.fixture
def result(run):
    """Run `deliberate generate` with `--json` and give its object."""

    def result(*arguments):
        outcome = run("generate", *arguments, "--max-tokens", 12, "--json")
        assert outcome.code == 0, outcome
        return json.loads(outcome.out)

    return result


def test_without_latents_a_prompt_is_decoded_by_the_base_alone(result, base, llama_folder):
    got = result("--prompt", "hello", "--no-latents", "--base", llama_folder)
    assert got["text"] == decoded(base, "hello")
    assert (got["latents"], got["coprocessor"]) == (0, None)


def test_latents_are_asked_for_after_a_prompt(result, base, llama_folder, coprocessor_folder):
    trained = load_coprocessor(coprocessor_folder, base=base)
    got = result("--prompt", "hello", "--base", llama_folder, "--coprocessor", coprocessor_folder)
    assert got["text"] == decoded(base, "hello", trained.coprocessor) != decoded(base, "hello")
    assert (got["latents"], got["coprocessor"]) == (3, str(coprocessor_folder))


def test_the_base_of_a_prompt_is_the_one_that_the_coprocessor_names(
    result, llama_folder, coprocessor_folder
):
    got = result("--prompt", "hello", "--coprocessor", coprocessor_folder)
    assert got["base"] == str(llama_folder)


def test_a_cache_file_is_decoded_like_its_text(result, base, cache, coprocessor_folder):
    trained = load_coprocessor(coprocessor_folder, base=base)
    assert result(cache, "--no-latents")["text"] == decoded(base, "hello there")
    got = result(cache, "--coprocessor", coprocessor_folder)
    assert got["text"] == decoded(base, "hello there", trained.coprocessor)


def test_an_augmented_file_keeps_its_latents_and_asks_nobody(
    result, base, augmented, coprocessor_folder
):
    trained = load_coprocessor(coprocessor_folder, base=base)
    coprocessor_folder.rename("gone")
    got = result(augmented)
    assert got["text"] == decoded(base, "hello there", trained.coprocessor)
    assert (got["latents"], got["coprocessor"]) == (3, str(coprocessor_folder))
    assert result(augmented, "--no-latents")["text"] == decoded(base, "hello there")


def test_a_further_prompt_goes_on_from_the_text(result, base, cache, augmented):
    plain = result(cache, "--prompt", " and more", "--no-latents")
    assert plain["text"] == decoded(base, "hello there and more")
    assert plain["text_tokens"] == len("hello there and more")
    stripped = result(augmented, "--prompt", " and more", "--no-latents")
    assert stripped["text"] == plain["text"]


def test_latents_follow_a_further_prompt_of_a_plain_cache(result, base, cache, coprocessor_folder):
    trained = load_coprocessor(coprocessor_folder, base=base)
    got = result(cache, "--prompt", " and more", "--coprocessor", coprocessor_folder)
    assert got["text"] == decoded(base, "hello there and more", trained.coprocessor)


def test_a_further_prompt_follows_the_latents_of_an_augmented_cache(
    result, base, augmented, coprocessor_folder
):
    trained = load_coprocessor(coprocessor_folder, base=base)
    got = result(augmented, "--prompt", " and more")
    assert got["latents"] == 3
    with CacheFile(augmented) as file:
        cache = file.cache()
    from deliberate.core import extend

    ids = tokenize(base, " and more")
    [expected] = generate(base, [extend(base, cache, ids)], Sampling(max_tokens=12))
    assert got["text"] == expected.text
    assert got["text"] != decoded(base, "hello there and more", trained.coprocessor)


def test_a_further_prompt_gets_no_second_start_token(result, run, base, llama_folder):
    begin = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    base.tokenizer.backend_tokenizer.post_processor = begin
    base.tokenizer.save_pretrained(llama_folder)
    run("prefill", "--text", "hello", "--base", llama_folder)
    assert result("cache.st", "--no-latents")["text_tokens"] == 6
    assert result("cache.st", "--prompt", " you", "--no-latents")["text_tokens"] == 10


def test_latents_can_be_asked_for_again_and_again(
    result, base, augmented, cache, coprocessor_folder
):
    trained = load_coprocessor(coprocessor_folder, base=base)
    expected = decoded(base, "hello there", trained.coprocessor, every=4)
    assert result(cache, "--coprocessor", coprocessor_folder, "--every", 4)["text"] == expected
    assert result(augmented, "--every", 4)["text"] == expected, "by the one that the cache names"


def test_another_coprocessor_than_the_cache_s_is_said_not_to_be_asked(run, augmented):
    outcome = run("generate", augmented, "--coprocessor", "another", "--max-tokens", 2)
    assert outcome.code == 0
    assert "'another' is not asked" in outcome.err


def test_text_streams_to_stdout_and_is_the_same_at_the_end(run, cache):
    asked = ["generate", cache, "--no-latents", "--max-tokens", 12]
    streamed, whole = run(*asked), run(*asked, "--no-stream")
    assert streamed.out == whole.out
    assert json.loads(run(*asked, "--json").out)["text"] + "\n" == whole.out
    assert "12 tokens" in streamed.err


def test_text_comes_piece_by_piece(run, cache, monkeypatch):
    from deliberate.cli.commands import generate as command

    pieces = []
    echo = command.typer.echo
    monkeypatch.setattr(
        command.typer, "echo", lambda text, **options: (pieces.append(text), echo(text, **options))
    )
    run("generate", cache, "--no-latents", "--max-tokens", 12)
    assert len(pieces) > 10


def test_a_stop_text_ends_the_decoding(result, cache):
    whole = result(cache, "--no-latents")
    stop = whole["text"][4:6]
    got = result(cache, "--no-latents", "--stop", "absent", "--stop", stop)
    assert got["text"] == whole["text"][: whole["text"].index(stop)]
    assert (whole["finish"], got["finish"]) == ("length", "stop")


def test_a_seed_fixes_what_is_sampled(result, cache):
    texts = [
        result(cache, "--no-latents", "--temperature", 2, "--top-p", 0.9, "--seed", seed)["text"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_json_counts_and_times(result, cache, llama_folder):
    got = result(cache, "--no-latents")
    assert got["generated_tokens"] == 12
    assert got["tokens_per_second"] == pytest.approx(12 / got["seconds"])
    assert set(got) == {
        "text",
        "finish",
        "text_tokens",
        "latents",
        "generated_tokens",
        "seconds",
        "tokens_per_second",
        "base",
        "coprocessor",
    }


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-tokens", 0, "max_tokens"),
        ("--temperature", -1, "temperature"),
        ("--top-p", 0, "top_p"),
        ("--top-p", 1.1, "top_p"),
        ("--every", 0, "every"),
        ("--stop", "", "stop"),
        ("--dtype", "bfloat16", "--dtype"),
    ],
)
def test_a_value_out_of_range_is_a_wrong_use(refused, cache, option, value, told):
    assert told in refused("generate", cache, option, value, code=2)


def test_neither_a_cache_nor_a_prompt_is_a_wrong_use(refused):
    assert "--prompt" in refused("generate", code=2)


def test_asking_again_for_no_latents_is_a_wrong_use(refused, cache):
    assert "--no-latents" in refused("generate", cache, "--no-latents", "--every", 2, code=2)


def test_an_empty_prompt_is_refused(refused, cache, llama_folder):
    assert "empty" in refused("generate", "--prompt", "", "--base", llama_folder)
    assert "empty" in refused("generate", cache, "--prompt", "")


@pytest.mark.parametrize("latents", ["--latents", "--no-latents"])
def test_a_text_that_fills_the_positions_is_refused(
    refused, llama_folder, coprocessor_folder, latents
):
    models = ["--base", llama_folder, "--coprocessor", coprocessor_folder]
    assert "65 tokens" in refused("generate", "--prompt", "a" * 65, *models, latents)
    assert "no room" in refused("generate", "--prompt", "a" * 64, *models, latents)


def test_a_further_prompt_past_the_positions_is_refused(refused, cache):
    assert "no room for 60" in refused("generate", cache, "--prompt", "a" * 60, "--no-latents")


def test_a_cache_of_another_base_is_refused(refused, cache, save_base):
    told = refused("generate", cache, "--no-latents", "--base", save_base("qwen3"))
    assert "was made by base" in told


def test_a_damaged_cache_is_refused(refused, cache):
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    Path(cache).write_bytes(content)
    assert "checksum" in refused("generate", cache, "--no-latents")
