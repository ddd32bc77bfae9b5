"""Texts as nobody expects them: each is a right result, or one sentence."""

import json
from pathlib import Path

import pytest
from settings import SMALL_RUN, set_all

from deliberate.core import CacheFile, load_base, tokenize

ODD = {
    "one token": "a",
    "emoji": "\U0001f600\U0001f44d\U0001f3fd\u200d\U0001f680" * 9,
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0644\u064a\u0643\u0645\u202c " * 9,
    "null bytes": "a\0b\0\0c " * 9,
    "line ends": "a\r\nb\rc\n\u2028\u0085 \t" * 9,
    "no round trip": "  \ufffd \u0301e\u0301 \xa0fi\ufb01 " * 9,
}
LONG = "word " * 100_000
TOO_LONG = {
    "many words": lambda: LONG,
    "50 MB on one line": lambda: "words of a line without end " * 1_900_000,
    "50 MB in one word": lambda: "x" * 50_000_000,
}


@pytest.fixture(params=["nano", "tiny"])
def base(request):
    """The embedded base, and one whose tokenizer knows few characters and loses the others."""
    return "nano" if request.param == "nano" else str(request.getfixturevalue("llama_folder"))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_goes_the_whole_way(run, name):
    Path("odd.txt").write_bytes(ODD[name].encode())
    made = run("prefill", "--file", "odd.txt")
    assert made.code == 0, made.err
    with CacheFile(Path("odd.st")) as file:
        file.verify()
        expected = tokenize(load_base(), ODD[name])
        assert file.tensor("token_ids").equal(expected)
        assert len(expected) > 0
    assert run("augment", "odd.st").code == 0
    answered = run("generate", "odd.augmented.st", "--max-tokens", 2, "--json")
    assert answered.code == 0, answered.err
    assert json.loads(answered.out)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_is_the_same_by_any_way(run, base, name):
    text = ODD[name] if base == "nano" else ODD[name][:40]  # the tiny one reads 64 tokens
    Path("odd.txt").write_bytes(text.encode())
    Path("odd.jsonl").write_text(json.dumps({"text": text}))
    assert run("prefill", "--text", text, "--base", base, "-o", "typed.st").code == 0
    assert run("prefill", "--file", "odd.txt", "--base", base, "-o", "read.st").code == 0
    assert run("prefill", "--jsonl", "odd.jsonl", "--base", base, "-o", "rows").code == 0
    paths = [Path("typed.st"), Path("read.st"), Path("rows/000001.st")]
    found = []
    for path in paths:
        with CacheFile(path) as file:
            found.append(file.tensor("token_ids").tolist())
    assert found[0] == found[1] == found[2] == tokenize(load_base(base), text).tolist()
    ask = ["--no-latents", "--max-tokens", 2, "--json"]
    answered = json.loads(run("generate", "--prompt", text, "--base", base, *ask).out)
    assert answered["text_tokens"] == len(found[0])
    assert answered["text"] == json.loads(run("generate", "typed.st", *ask).out)["text"]


@pytest.mark.parametrize("text", ["", " \n\t", "\ufeff"], ids=["empty", "blank", "mark"])
def test_a_text_of_nothing_is_one_sentence_or_a_result(run, text):
    Path("none.txt").write_text(text, encoding="utf-8")
    ways = [
        ("prefill", "--file", "none.txt"),
        ("prefill", "--text", text),
        ("generate", "--prompt", text, "--max-tokens", 1),
    ]
    for way in ways:
        outcome = run(*way)
        assert outcome.code == (not text)
        assert outcome.err.count("\n") == 1, outcome.err
        assert ("the text is empty" in outcome.err) == (not text)


@pytest.mark.parametrize("text", ["", " \n\t"], ids=["empty", "blank"])
def test_nothing_to_train_on_or_to_measure_is_one_sentence(refused, text):
    Path("none.txt").write_text(text)
    told = refused("train", "--set", "data.train=none.txt", "--output-dir", "run")
    assert "'none.txt' holds no text" in told
    assert "'none.txt' holds no text" in refused("eval", "nano", "--data", "none.txt")
    assert not Path("run").exists()


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_text_longer_than_the_model_is_one_sentence(refused, name):
    text = TOO_LONG[name]()
    Path("long.txt").write_text(text)
    Path("long.jsonl").write_text(json.dumps({"text": text}))
    for way in (
        ["prefill", "--file", "long.txt"],
        ["prefill", "--text", text],
        ["prefill", "--jsonl", "long.jsonl"],
        ["generate", "--prompt", text],
    ):
        told = refused(*way)
        assert "reads at most 1024: shorten it or split it" in told
        assert len(told) < 300
    assert not [*Path().glob("*.st"), *Path().glob("long-caches/*")]


def test_odd_texts_can_be_measured_and_trained_on(run, base, coprocessor_folder):
    rows = [json.dumps({"text": text * 8}) for text in [*ODD.values(), LONG[:5000]]] * 4
    Path("odd.jsonl").write_text("\n".join(rows))
    sizes = ["--length", 32, "--ahead", 2, "--anchors", 2, "--texts", 8, "--against", "shuffled"]
    subject = "nano" if base == "nano" else coprocessor_folder
    measured = run("eval", subject, "--data", "odd.jsonl", *sizes, "-o", "odd.json")
    assert measured.code == 0, measured.err
    settings = SMALL_RUN | {"base.id": base, "data.train": "odd.jsonl", "data.length": 32}
    trained = run("train", *set_all(settings), "--output-dir", "run")
    assert trained.code == 0, trained.err


def test_a_second_process_on_a_run_or_a_report_is_refused_by_the_first_one_s_number(run, refused):
    from deliberate.core.folder_lock import FolderLock

    for command in (["train", "--output-dir", "busy"], ["eval", "nano", "-o", "busy"]):
        with FolderLock(Path("busy")):
            assert "in use by process" in refused(*command)
        assert not Path("busy").exists()
