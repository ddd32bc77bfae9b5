"""A file of a corpus that cannot be read is refused by name, or left out and counted."""

import json
from pathlib import Path

import pytest

WORDS = "one two three four five six seven eight nine ten eleven twelve "


@pytest.fixture
def corpus(offline) -> Path:
    """Texts, of which the one in the middle is no UTF-8."""
    folder = Path("corpus").absolute()
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(WORDS[number:][:40])
    (folder / "2.txt").write_bytes(b"caf\xe9 " * 9)
    return folder


def test_prefill_refuses_by_name_or_leaves_out_and_counts(
    run, refused, corpus, llama_folder, caplog
):
    command = ["prefill", "--data", corpus, "--base", llama_folder, "-o", "caches"]
    told = refused(*command)
    assert str(corpus / "2.txt") in told
    assert "skip_bad" in told
    assert not Path("caches").exists()
    outcome = run(*command, "--skip-bad", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["written"] == 4
    assert f"1 of the 5 files of {str(corpus)!r} cannot be read" in caplog.text
    assert str(corpus / "2.txt") in caplog.text


def test_prefill_leaves_bad_rows_out_and_counts_them(run, llama_folder):
    rows = ['{"text": "one"}', "{", '{"text": 7}', '{"text": ""}', '{"text": "two"}']
    Path("rows.jsonl").write_text("\n".join(rows))
    command = ["prefill", "--jsonl", "rows.jsonl", "--base", llama_folder, "--skip-bad"]
    outcome = run(*command)
    assert outcome.code == 0, outcome.err
    assert "3 rows of 'rows.jsonl' cannot be read and are left out" in outcome.err
    names = [path.name for path in sorted(Path("rows-caches").iterdir())]
    assert names == ["000001.st", "000005.st"]


def test_a_corpus_of_nothing_else_is_refused(refused, corpus, llama_folder):
    for path in corpus.iterdir():
        path.write_bytes(b"\xff")
    told = refused("prefill", "--data", corpus, "--base", llama_folder, "--skip-bad")
    assert "no file that can be read" in told


@pytest.mark.parametrize("live", ["false", "true"])
def test_training_refuses_by_name_or_leaves_out(run, corpus, llama_folder, caplog, live):
    for path in corpus.iterdir():
        if path.name != "2.txt":
            path.write_text(WORDS * 8)
    settings = {
        "base.id": llama_folder,
        "base.dtype": "float32",
        "data.validation": corpus / "0.txt",
        "data.length": 48,
        "data.streaming": live,
        "coprocessor.latents": 2,
        "objective.ahead": 3,
        "train.steps": 1,
        "train.batch": 2,
        "eval.ahead": 4,
    }
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    told = run("train", *changes, "--set", f"data.train={corpus}", "--output-dir", "out")
    assert told.code == 1
    assert str(corpus / "2.txt") in told.err
    skipping = f"data.train=[{{path: {corpus}, skip_bad: true}}]"
    outcome = run("train", *changes, "--set", skipping, "--output-dir", "other")
    assert outcome.code == 0, outcome.err
    assert "1 of the 5 files" in caplog.text


def test_evaluation_refuses_by_name_or_leaves_out(run, refused, corpus, coprocessor_folder, caplog):
    command = ["eval", coprocessor_folder, "--data", corpus, "--against", "zero", "--texts", 4]
    command += ["--length", 24, "--ahead", 2, "-o", "result.json"]
    assert str(corpus / "2.txt") in run(*command).err
    assert "--skip-bad" in refused("eval", coprocessor_folder, "--skip-bad", code=2)
    outcome = run(*command, "--skip-bad")
    assert outcome.code == 0, outcome.err
    assert "1 of the 5 files" in caplog.text
