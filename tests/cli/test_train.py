import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def corpus(offline):
    words = ["abc", "cab", "xyz.", "0123", "the", "end.\n"]
    path = Path("mine.txt").absolute()
    path.write_text(" ".join(random.Random(0).choices(words, k=3000)))
    return path


@pytest.fixture
def tiny(llama_folder, corpus):
    settings = {
        "base.id": llama_folder,
        "base.dtype": "float32",
        "data.train": corpus,
        "data.length": 48,
        "coprocessor.latents": 2,
        "objective.ahead": 3,
        "objective.anchors": 4,
        "train.steps": 4,
        "train.batch": 2,
        "eval.texts": 3,
        "eval.anchors": 2,
        "eval.ahead": 4,
    }
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def test_a_run_leaves_a_coprocessor_its_recipe_and_its_metrics(run, tiny):
    outcome = run("train", *tiny, "--output-dir", "out")
    assert outcome.code == 0, outcome.err
    assert outcome.out == "out\n"
    assert "step 4/4" in outcome.err
    assert outcome.err.count("held out") == 1
    assert {"config.json", "model.safetensors", "recipe.yaml", "metrics.jsonl"} <= {
        path.name for path in Path("out").iterdir()
    }
    assert len(Path("out/metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("terminal", [False, True])
def test_each_validation_is_a_row_of_a_growing_table(run, tiny, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "60")
    steps = ["--set", "train.validate_every=2", "--set", "train.steps=5"]
    outcome = run("train", *tiny, *steps, "--output-dir", "out")
    assert outcome.code == 0, outcome.err
    shown = [line.split() for line in COLOURS.sub("", outcome.err).replace("\r", "\n").splitlines()]
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    for line in lines[1], lines[3], lines[4]:
        changes = [f"{value:+.2f}" for value in line["change_percent"].values()]
        rows = [row for row in shown if row[:1] == [str(line["step"])] and row[2:] == changes]
        assert len(rows) == 1, shown
    assert shown.count(["step", "loss", "1", "2", "4"]) == 1
    assert ("\u2501" in outcome.err) == terminal  # the bar
    assert ("step 5/5" in outcome.err) != terminal
    assert outcome.out == "out\n"


def test_the_end_says_where_everything_is(run, tiny):
    settings = ["--set", "train.validate_every=2", "--tracker", "tensorboard"]
    told = run("train", *tiny, *settings, "--output-dir", "out").err
    best = json.loads(Path("out/best/config.json").read_text())["recipe"]["reached"]
    assert "in out: the coprocessor, recipe.yaml, metrics.jsonl and checkpoints/\n" in told
    best_line = next(line for line in told.splitlines() if line.startswith("in out/best: "))
    assert f"of step {best['step']}: {best['loss_change']:+.4f} nats" in best_line
    assert "on average over tokens 1 to 3" in best_line
    assert "tensorboard: tensorboard --logdir out/tensorboard\n" in told
    assert list(Path("out/tensorboard").glob("events.*"))


def test_the_best_is_measured_used_and_pushed_as_any_coprocessor(run, tiny, cache):
    assert run("train", *tiny, "--output-dir", "out").code == 0
    measured = run("eval", "out/best", "--texts", "2", "--anchors", "2", "--ahead", "4")
    assert measured.code == 0, measured.err
    thought = run("augment", cache, "--coprocessor", "out/best")
    assert thought.code == 0, thought.err
    card = run("push", "out/best", "someone/best", "--dry-run")
    assert card.code == 0, card.err
    assert "after step `4` of `4`" in card.out


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(
    refused, tiny, monkeypatch
):
    monkeypatch.setattr("deliberate.train.tracker.find_spec", lambda name: None)
    nowhere = ["--set", "base.id=nowhere", "--output-dir", "out"]
    told = refused("train", *tiny, *nowhere, "--tracker", "trackio")
    assert "`pip install 'trackio>=" in told
    assert not Path("out").exists()
    assert "'abacus'" in refused("train", *tiny, *nowhere, "--tracker", "abacus", code=2)


def test_json_is_one_object(run, tiny):
    outcome = run("train", *tiny, "--output-dir", "out", "--json")
    result = json.loads(outcome.out)
    assert result["folder"] == "out"
    assert result["change_percent"].keys() == {"1", "2", "4"}
    assert result["best"]["folder"] == "out/best"
    assert result["best"]["step"] == 4


def test_the_run_s_folder_has_a_name_of_its_own_if_none_is_given(run, tiny):
    assert run("train", *tiny).out == "runs/tiny-llama-full-2\n"


def test_a_folder_named_like_markup_is_a_folder(run, tiny):
    for folder in ("a[/b]c", "[red]d"):
        outcome = run("train", *tiny, "--set", "train.steps=1", "--output-dir", folder)
        assert outcome.code == 0, outcome.err
        assert f"1 steps, into {folder}\n" in outcome.err


def test_resume_alone_takes_the_run_s_own_recipe(run, tiny):
    assert run("train", *tiny, "--output-dir", "out").code == 0
    before = Path("out/metrics.jsonl").read_text()
    assert run("train", "--resume", "--output-dir", "out").code == 0
    assert Path("out/metrics.jsonl").read_text() == before


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tiny):
    program = "import sys; from deliberate.cli.main import main; sys.exit(main())"
    typed = ["train", *tiny, "--set", "train.steps=100000", "--output-dir", "out"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *typed], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not Path("out/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "deliberate train --resume --output-dir out" in errors
    assert "Traceback" not in errors
    assert list(Path("out/checkpoints").glob("step-*"))


def test_an_existing_run_is_refused(run, refused, tiny):
    assert run("train", *tiny, "--output-dir", "out").code == 0
    before = Path("out/model.safetensors").read_bytes()
    assert "--resume" in refused("train", *tiny, "--output-dir", "out")
    assert Path("out/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.stepz=1", "known are steps, batch"),
        ("coprocessor.latents=0", "from 1 to 64, got 0"),
        ("coprocessor.latents=-1", "from 1 to 64, got -1"),
        ("coprocessor.kind=clever", "full, lora"),
        ("train.steps=many", "'many'"),
        ("trian.steps=1", "'trian'"),
        ("data.field=@text", "change 'data.field=@text' is not YAML"),
        ("data.train=[x", "change 'data.train=[x' is not YAML"),
        ("train.beta2=1", "below 1, got 1.0"),
        ("train.spike=0", "train.spike must be above 0, or null, got 0.0"),
        ("train.clip=.nan", "train.clip must be above 0, got nan"),
    ],
)
def test_a_wrong_value_is_a_wrong_use_and_leaves_nothing(refused, tiny, change, told):
    assert told in refused("train", *tiny, "--set", change, "--output-dir", "out", code=2)
    assert not Path("out").exists()


def test_a_recipe_or_text_that_is_not_there_is_refused(refused, tiny):
    assert "'nowhere.yaml'" in refused("train", "nowhere.yaml")
    line = refused("train", *tiny, "--set", "data.train=nowhere.txt", "--output-dir", "out")
    assert "'nowhere.txt'" in line
    assert not Path("out").exists()


def test_what_the_base_has_no_room_for_is_refused(refused, tiny):
    line = refused("train", *tiny, "--set", "data.length=999", "--output-dir", "out")
    assert "data.length is 999" in line
    assert "64 or less" in line
    assert not Path("out").exists()


def test_a_folder_without_a_run_is_not_resumed(refused):
    assert "nothing to resume at 'typo'" in refused("train", "--resume", "--output-dir", "typo")
    assert not Path("typo").exists()


def test_a_loss_that_is_no_number_is_one_line(run, tiny):
    wide = ["--set", "coprocessor.latent_scale=1e300"]  # infinite in single precision
    outcome = run("train", *tiny, *wide, "--output-dir", "out")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("deliberate: the loss of step 1 is nan")
    assert "Traceback" not in outcome.err
