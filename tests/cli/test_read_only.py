"""A place that cannot be written is refused before anything is loaded, and only read from."""

import json
import shutil
from pathlib import Path

import pytest

from deliberate.core import model_folder

FEW = ("--ahead", 2, "--anchors", 2, "--texts", 2, "--length", 24, "--against", "none")


@pytest.fixture
def settled(disk, run, caches, augmented, coprocessor_folder, rows):
    """A read-only folder of inputs, each of which a command would write beside."""
    small = disk(1 << 20)
    for path in (rows, augmented, caches, coprocessor_folder):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, small.path / path.name)
    (small.path / "text.txt").write_text("some words " * 5)
    small.read_only()
    return small


@pytest.fixture
def told(refused, monkeypatch):
    """Run a command that must be refused before a base is loaded, and return its line."""

    def told(*arguments):
        with monkeypatch.context() as patched:
            patched.setattr(model_folder, "check", lambda *_, **__: pytest.fail("a base is loaded"))
            return refused(*arguments)

    return told


OUTPUTS = {
    "prefill, a text": ["prefill", "--text", "hello", "--base", "BASE", "-o", "DISK/made.st"],
    "prefill, a file": ["prefill", "--file", "DISK/text.txt", "--base", "BASE"],
    "prefill, rows": ["prefill", "--jsonl", "rows.jsonl", "--base", "BASE", "-o", "DISK/made"],
    "prefill, rows beside": ["prefill", "--jsonl", "DISK/rows.jsonl", "--base", "BASE"],
    "augment, a file": ["augment", "cache.st", "-o", "DISK/made.st"],
    "augment, a folder": ["augment", "rows-caches", "-o", "DISK/made"],
    "augment, beside": ["augment", "DISK/rows-caches"],
    "train": ["train", "--output-dir", "DISK/made/run"],
    "train, in a folder": ["train", "--output-dir", "DISK"],
    "eval, a report": ["eval", "nano", "-o", "DISK/made"],
    "eval, a file": ["eval", "nano", "-o", "DISK/made.json"],
    "eval, with the run": ["eval", "DISK/coprocessor"],
    "eval, a report with the run": ["eval", "DISK/coprocessor", "--suite", "quick"],
    "eval, benchmarks": ["eval", "nano", "--bench", "piqa", "--bench-data", "DISK/data", "-o",
                         "DISK/made"],
    "eval, benchmarks with the run": ["eval", "DISK/coprocessor", "--bench", "piqa",
                                      "--bench-data", "DISK/data"],
    "export-embeds": ["export-embeds", "cache.augmented.st", "-o", "DISK/made.safetensors"],
    "export-embeds, beside": ["export-embeds", "DISK/cache.augmented.st", "-o", "DISK/made.pt"],
    "pull": ["pull", "someone/thinker", "-o", "DISK/made"],
    "serve": ["serve", "--store", "DISK/made"],
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_it_is_refused_in_one_sentence_before_a_model_is_loaded(
    told, settled, llama_folder, rows, name
):
    if "--bench" in OUTPUTS[name]:
        pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")
    before = settled.files()
    words = {"BASE": str(llama_folder)}
    command = [words.get(word, word).replace("DISK", str(settled.path)) for word in OUTPUTS[name]]
    said = told(*command)
    assert "read-only file system" in said.lower()
    assert repr(str(settled.path))[:-1] in said
    assert settled.files() == before


def test_what_is_there_is_read(run, settled, llama_folder):
    there = settled.path
    assert run("inspect", there / "cache.augmented.st", "--verify").code == 0
    answered = run("generate", there / "cache.augmented.st", "--max-tokens", 2, "--json")
    assert json.loads(answered.out)["generated_tokens"] == 2
    made = run("prefill", "--file", there / "text.txt", "--base", llama_folder, "-o", "text.st")
    assert made.code == 0, made.err
    thought = ["--coprocessor", there / "coprocessor", "-o", "thought"]
    assert run("augment", there / "rows-caches", *thought).code == 0
    data = ["--data", there / "text.txt", *FEW]
    measured = run("eval", there / "coprocessor", *data, "-o", "result.json")
    assert measured.code == 0, measured.err
    assert Path("result.json").exists()


# The Hub's own client uploads large files in a way that its HTTP library wants to change.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_run_in_a_read_only_folder_is_pushed(run, settled, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    pushed = run("push", settled.path / "coprocessor", "someone/x", "--without-evaluation")
    assert pushed.code == 0, pushed.err
    assert "model.safetensors" in hub.repositories["someone/x"].at("main").files


def test_without_a_home_that_can_be_written_nothing_but_time_is_lost(
    run, settled, llama_folder, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(settled.path / "home"))
    made = run("prefill", "--text", "hello", "--base", llama_folder, "-o", "text.st")
    assert made.code == 0, made.err
