"""A clock that is set back: durations, rates and locks do not go by it."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from settings import SMALL_RUN, set_all

from deliberate.cli.claims import NAME, Claims

MINUTE = 60 * 10**9
LONG_AGO, FAR_AHEAD = 0, 4 * 10**9
"""Seconds of the clock of the wall."""

WORKER = """
import sys, time
from pathlib import Path
from deliberate.cli.claims import Claims
claims = Claims(Path(sys.argv[1]), b"work")
print(claims.take(0), flush=True)
time.sleep(600)
"""


@pytest.fixture
def backwards(monkeypatch):
    """The clock of the wall, a minute earlier each time that it is asked."""
    began, asked = time.time_ns(), itertools.count()

    def time_ns():
        return began - next(asked) * MINUTE

    monkeypatch.setattr(time, "time_ns", time_ns)
    monkeypatch.setattr(time, "time", lambda: time_ns() / 1e9)


def test_training_tells_a_rate_and_a_time_left(run, llama_folder, backwards):
    words = random.Random(0).choices(["abc", "cab", "xyz.", "0123", "the", "end.\n"], k=3000)
    Path("mine.txt").write_text(" ".join(words))
    settings = SMALL_RUN | {
        "base.id": llama_folder,
        "data.train": "mine.txt",
        "data.length": 48,
        "train.steps": 6,
        "train.validate_every": 2,
    }
    outcome = run("train", *set_all(settings), "--output-dir", "out")
    assert outcome.code == 0, outcome.err
    shown = re.findall(r"step \d/6 .* (\S+) tokens/s  (\S+) left", outcome.err)
    assert len(shown) == 6
    for rate, left in shown:
        assert int(rate.replace(",", "")) > 0
        assert re.fullmatch(r"0:[0-5]\d", left)
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["seconds"] < 60 for line in lines)
    reached = json.loads(Path("out/config.json").read_text())["recipe"]["reached"]
    assert 0 <= reached["seconds"] < 60


def test_decoding_tells_a_rate(run, cache, backwards):
    told = json.loads(run("generate", cache, "--no-latents", "--max-tokens", 3, "--json").out)
    assert 0 < told["seconds"] < 60
    assert told["tokens_per_second"] > 0


def test_a_report_tells_how_long_it_took(run, coprocessor_folder, backwards):
    Path("held.jsonl").write_text(json.dumps({"text": "words and more words " * 4}))
    few = ("--ahead", 4, "--anchors", 2, "--texts", 2, "--against", "none")
    outcome = run("eval", coprocessor_folder, "--data", "held.jsonl", *few, "-o", "report")
    assert outcome.code == 0, outcome.err
    tasks = json.loads(Path("report/results.json").read_text())["tasks"]
    assert 0 < tasks["perplexity"]["seconds"] < 60


def test_texts_that_are_changed_after_the_clock_was_set_back_are_measured_anew(
    run, coprocessor_folder
):
    texts = Path("texts")
    texts.mkdir()
    for name in "ab":
        (texts / f"{name}.txt").write_text(f"words and {name} words " * 3)
    os.utime(texts / "b.txt", (FAR_AHEAD, FAR_AHEAD))
    few = ("--ahead", 4, "--anchors", 2, "--texts", 2, "--against", "none")
    command = ("eval", coprocessor_folder, "--data", texts, *few, "-o", "report")
    assert run(*command).code == 0
    assert "measured before, kept" in run(*command, "--resume").err
    (texts / "a.txt").write_text("other and c words " * 3)  # as long, and no later than the other
    assert "measured before, kept" not in run(*command, "--resume").err


def test_a_worker_s_claim_holds_while_it_lives_whatever_its_file_s_time(tmp_path):
    folder = tmp_path / "caches"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout.readline() == "mine\n"
    with Claims(folder, b"work") as claims:
        for when in (LONG_AGO, FAR_AHEAD):
            os.utime(folder / NAME, (when, when))
            assert claims.take(0) == "held"
        assert claims.take(1) == "mine"
        worker.kill()
        worker.communicate()
        assert claims.take(0) == "mine"
