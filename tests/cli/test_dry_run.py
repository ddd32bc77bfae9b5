"""`deliberate train --dry-run`: what a run would take, without a network and without a run."""

import json

import pytest

from deliberate.cli.dry_run import bytes_of
from deliberate.cli.main import main


def test_the_paper_s_setting_needs_no_network(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    recipe = Path(__file__).parent.parent.parent / "recipes/gemma2-2b.yaml"
    command = ["train", str(recipe), "--dry-run", "--rate", "4e14", "--memory", "80GB"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["base"] == 2_614_341_888
    assert found["tokens"] * found["steps"] == 209_715_200_000
    assert found["hours"] == pytest.approx(sum(found["flops"].values()) * 1e5 / 4e14 / 3600)
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "2,614,341,888" in shown.out
    assert "as given" in shown.err
    assert not list(tmp_path.iterdir())


def test_what_cannot_fit_is_refused_after_the_table(capsys):
    assert main(["train", "--dry-run", "--memory", "1KB"]) == 1
    shown = capsys.readouterr()
    assert "activations" in shown.out
    assert "most of it for activations: set train.recompute" in shown.err


def test_a_base_too_large_for_this_machine_is_refused_before_it_is_loaded(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr("deliberate.train.loop.memory_of", lambda device: 1_000_000)
    monkeypatch.setattr("deliberate.train.loop.load_base", pytest.fail)
    assert main(["train", "--output-dir", str(tmp_path / "run")]) == 1
    assert "base and coprocessor need 0.0 GB" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_dtype_is_the_one_that_a_run_would_settle_on(capsys, monkeypatch):
    from deliberate.train import precision

    memory = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr(precision, "faster_dtype", lambda device, dtype=dtype: dtype)
        assert main(["train", "--dry-run", "--json"]) == 0
        memory[dtype] = json.loads(capsys.readouterr().out)["memory"]["base"]
    assert memory["float32"] == 2 * memory["bfloat16"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--memory", "lots"], 2, "a size such as 80GB, got 'lots'"),
        (["--memory", "9" * 400], 2, "a size such as 80GB, got '999"),
        (["--rate", "0"], 2, "--rate must be a number above 0, such as 3e14, got 0.0"),
        (["--rate", "nan"], 2, "--rate must be a number above 0, such as 3e14, got nan"),
        (["--gpus", "0"], 2, "--gpus"),
        (["--set", "train.shard=full"], 1, "for a dry run --gpus N"),
        (["--set", "train.shard=half"], 2, "train.shard must be none or full, got 'half'"),
        (["--gpus", "3"], 1, "set train.batch to a multiple of 3"),
        (["--set", "base.id=some/body"], 1, "architecture of base 'some/body' is not here"),
    ],
)
def test_what_cannot_be_is_refused(capsys, arguments, code, told):
    assert main(["train", "--dry-run", *arguments]) == code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("gpus", "2"), ("rate", "1e14"), ("memory", "80GB")])
def test_what_is_for_a_dry_run_is_not_passed_over_in_a_real_one(capsys, tmp_path, name, value):
    folder = tmp_path / "run"
    assert main(["train", f"--{name}", value, "--output-dir", str(folder)]) == 2
    assert f"--{name} is for --dry-run: leave it out, or" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80e9), ("1.5 tb", 1.5e12), ("512m", 512e6), ("7", 7)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert bytes_of(text) == size
