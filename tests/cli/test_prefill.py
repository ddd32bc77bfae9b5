import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deliberate.core import CacheFile, cache_file, load_base, tokenize
from deliberate.core import prefill as read


def stored(path: Path):
    with CacheFile(path) as file:
        file.verify()
        return file.cache()


def test_a_text_becomes_the_cache_that_the_base_makes_of_it(run, llama_folder):
    outcome = run("prefill", "--text", "hello there", "--base", llama_folder)
    assert (outcome.code, outcome.out) == (0, "cache.st\n")
    base = load_base(str(llama_folder))
    [expected] = read(base, [tokenize(base, "hello there")])
    cache = stored(Path("cache.st"))
    assert all(map(torch.equal, cache.keys, expected.keys))
    assert all(map(torch.equal, cache.values, expected.values))
    assert cache.token_ids.equal(expected.token_ids)
    assert cache.origin == base.origin


def test_a_file_becomes_a_cache_beside_it(run, llama_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("some notes")
    assert run("prefill", "--file", "notes.txt", "--base", llama_folder).out == "notes.st\n"
    assert len(stored(tmp_path / "notes.st").token_ids) == len("some notes")
    assert (tmp_path / "notes.txt").read_text() == "some notes"


def test_an_output_in_a_new_folder_is_made(run, llama_folder, tmp_path):
    assert run("prefill", "--text", "a", "--base", llama_folder, "-o", "new/folder/a.st").code == 0
    assert (tmp_path / "new/folder/a.st").is_file()


def test_rows_become_a_file_each_named_by_their_line(caches, rows):
    texts = {
        n: json.loads(line)["text"]
        for n, line in enumerate(rows.read_text().splitlines(), 1)
        if line
    }
    assert sorted(file.name for file in caches.iterdir()) == [f"{number:06}.st" for number in texts]
    for number, text in texts.items():
        assert len(stored(caches / f"{number:06}.st").token_ids) == len(text)


@pytest.mark.parametrize("batch", [1, 2, 99])
def test_rows_are_the_same_in_any_batches(run, rows, caches, llama_folder, batch):
    run("prefill", "--jsonl", rows, "--base", llama_folder, "--batch", batch, "-o", "other")
    for file in caches.iterdir():
        one, other = stored(file), stored(Path("other") / file.name)
        torch.testing.assert_close(one.keys, other.keys)
        torch.testing.assert_close(one.last_hidden, other.last_hidden)


def test_the_field_of_the_text_can_be_named(run, llama_folder):
    Path("rows.jsonl").write_text('{"body": "one"}\n')
    assert (
        run("prefill", "--jsonl", "rows.jsonl", "--field", "body", "--base", llama_folder).code == 0
    )
    assert len(stored(Path("rows-caches/000001.st")).token_ids) == 3


def test_an_interrupted_folder_is_gone_on_with(run, rows, llama_folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "save", interrupt_after(2, cache_file.save))
        stopped = run("prefill", "--jsonl", rows, "--base", llama_folder, "--batch", 1)
        assert (stopped.code, stopped.out) == (130, "")
    before = {file.name: file.stat().st_mtime_ns for file in Path("rows-caches").iterdir()}
    assert len(before) == 2
    result = json.loads(run("prefill", "--jsonl", rows, "--base", llama_folder, "--json").out)
    assert (result["written"], result["skipped"]) == (3, 2)
    after = {file.name: file.stat().st_mtime_ns for file in Path("rows-caches").iterdir()}
    assert len(after) == 5
    assert before.items() <= after.items()


def interrupt_after(count: int, save):
    done = []

    def interrupting(*arguments):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(save(*arguments))

    return interrupting


@pytest.mark.parametrize("change", ["text", "base", "dtype", "damage"])
def test_a_file_that_is_not_right_is_refused_without_force(
    run, refused, rows, caches, llama_folder, save_base, change
):
    wrong = caches / "000003.st"
    arguments = ["prefill", "--jsonl", rows, "--base", llama_folder]
    match change:
        case "text":
            rows.write_text(rows.read_text().replace("three", "thief"))
        case "base":
            arguments[-1] = save_base("qwen3")
            wrong = caches / "000001.st"
        case "dtype":
            arguments += ["--dtype", "bfloat16"]
            wrong = caches / "000001.st"
        case "damage":
            wrong.write_bytes(b"nothing")
    before = {file: file.read_bytes() for file in caches.iterdir()}
    assert str(wrong) in refused(*arguments)
    assert {file: file.read_bytes() for file in caches.iterdir()} == before
    outcome = run(*arguments, "--force", "--json")
    assert json.loads(outcome.out)["written"] == 5
    assert stored(wrong).token_ids.numel() in {3, 5}


def test_a_cache_of_no_row_in_the_folder_is_refused(refused, run, rows, caches, llama_folder):
    rows.write_text('{"text": "one"}\n')
    assert "000002.st" in refused("prefill", "--jsonl", rows, "--base", llama_folder)
    assert len(list(caches.iterdir())) == 5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "row 2"),
        ("[]", "row 2"),
        ('{"txt": "a"}', "txt"),
        ('{"text": 7}', "row 2"),
        ('{"text": ""}', "row 2"),
        ('{"text": "%s"}' % ("a" * 65), "row 2"),
        ('{"text": "\xff"}', "row 2"),
    ],
    ids=["broken", "list", "no field", "number", "empty", "too long", "not utf-8"],
)
def test_a_bad_row_is_named_and_nothing_is_written(refused, llama_folder, line, told):
    Path("rows.jsonl").write_bytes(b'{"text": "one"}\n' + line.encode("latin-1") + b"\n")
    assert told in refused("prefill", "--jsonl", "rows.jsonl", "--base", llama_folder)
    assert not Path("rows-caches").exists()


def test_a_file_without_rows_is_refused(refused, llama_folder):
    Path("rows.jsonl").write_text("\n")
    assert "no rows" in refused("prefill", "--jsonl", "rows.jsonl", "--base", llama_folder)


@pytest.mark.parametrize(
    "sources", [[], ["--text", "a", "--file", "b"], ["--file", "b", "--jsonl", "c"]]
)
def test_anything_but_one_source_is_a_wrong_use(refused, sources):
    assert "exactly one" in refused("prefill", *sources, code=2)


def test_an_output_that_exists_is_replaced_with_force_only(run, refused, cache, llama_folder):
    before = cache.read_bytes()
    again = ["prefill", "--text", "other", "--base", llama_folder, "-o", cache]
    assert "--force" in refused(*again)
    assert cache.read_bytes() == before
    assert run(*again, "--force").code == 0
    assert len(stored(cache).token_ids) == 5


def test_the_text_itself_is_never_replaced(refused, llama_folder):
    Path("notes.st").write_text("some notes")
    told = refused("prefill", "--file", "notes.st", "--base", llama_folder, "--force")
    assert "what is read" in told
    assert Path("notes.st").read_text() == "some notes"


def test_numbers_are_held_as_asked(run, llama_folder):
    run("prefill", "--text", "a", "--base", llama_folder, "--dtype", "bfloat16")
    assert stored(Path("cache.st")).keys[0].dtype == torch.bfloat16


def test_json_is_one_object(run, llama_folder):
    result = json.loads(run("prefill", "--text", "hello", "--base", llama_folder, "--json").out)
    base = load_base(str(llama_folder))
    assert result == {
        "output": "cache.st",
        "written": 1,
        "skipped": 0,
        "others": 0,
        "tokens": 5,
        "base": str(llama_folder),
        "base_fingerprint": base.fingerprint,
    }


def test_numbers_that_are_not_finite_are_never_written(refused, llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight"][0, 0] = torch.nan
    save_file(weights, llama_folder / "model.safetensors", metadata={"format": "pt"})
    told = refused("prefill", "--text", "a", "--base", llama_folder)
    assert "holds NaN" in told
    assert not list(Path().glob("*cache*"))
