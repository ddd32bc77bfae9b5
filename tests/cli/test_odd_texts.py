"""Texts as nobody expects them: each is a right result, or one sentence."""

import json
from pathlib import Path

import pytest

from deliberate.core import CacheFile, load_base, tokenize

ODD = {
    "one token": "a",
    "emoji": "\U0001f600\U0001f44d\U0001f3fd\u200d\U0001f680" * 9,
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0644\u064a\u0643\u0645\u202c " * 9,
    "null bytes": "a\0b\0\0c " * 9,
    "line ends": "a\r\nb\rc\n\u2028\u0085 \t" * 9,
    "no round trip": "  \ufffd \u0301e\u0301 \xa0fi\ufb01 " * 9,
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_goes_the_whole_way(run, name):
    Path("odd.txt").write_bytes(ODD[name].encode())
    made = run("prefill", "--file", "odd.txt")
    assert made.code == 0, made.err
    with CacheFile(Path("odd.st")) as file:
        file.verify()
        expected = tokenize(load_base(), ODD[name].encode().decode())
        assert file.num_tokens == len(expected) > 0
    assert run("augment", "odd.st").code == 0
    answered = run("generate", "odd.augmented.st", "--max-tokens", 2, "--json")
    assert answered.code == 0, answered.err
    assert json.loads(answered.out)


@pytest.mark.parametrize("text", ["", " \n\t", "\ufeff"], ids=["empty", "blank", "mark"])
def test_a_text_of_nothing_is_one_sentence_or_a_result(run, text):
    Path("none.txt").write_text(text, encoding="utf-8")
    outcome = run("prefill", "--file", "none.txt")
    assert outcome.code in {0, 1}
    assert outcome.err.count("\n") == 1, outcome.err


def test_a_text_longer_than_the_model_is_one_sentence(refused):
    Path("long.txt").write_text("word " * 100_000)
    assert "at most" in refused("prefill", "--file", "long.txt")
    assert not Path("long.st").exists()


def test_odd_texts_can_be_measured_and_trained_on(run):
    rows = [json.dumps({"text": text * 8}) for text in ODD.values()] * 4
    Path("odd.jsonl").write_text("\n".join(rows))
    sizes = ["--length", 32, "--ahead", 2, "--anchors", 2, "--texts", 8]
    measured = run("eval", "nano", "--data", "odd.jsonl", *sizes, "-o", "odd.json")
    assert measured.code == 0, measured.err
    settings = {
        "base.dtype": "float32",
        "data.train": "odd.jsonl",
        "data.length": 32,
        "coprocessor.latents": 2,
        "objective.ahead": 2,
        "objective.anchors": 2,
        "train.steps": 1,
        "train.batch": 2,
        "eval.texts": 2,
        "eval.anchors": 2,
        "eval.ahead": 2,
    }
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    trained = run("train", *changes, "--output-dir", "run")
    assert trained.code == 0, trained.err


def test_a_second_process_on_a_run_or_a_report_is_refused_by_the_first_one_s_number(run, refused):
    from deliberate.core.folder_lock import FolderLock

    for command in (["train", "--output-dir", "busy"], ["eval", "nano", "-o", "busy"]):
        with FolderLock(Path("busy")):
            assert "in use by process" in refused(*command)
        assert not Path("busy").exists()
