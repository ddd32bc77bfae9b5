"""A run computes in the numbers in which its device multiplies faster, and stays with them."""

import pytest
import torch
import yaml

from deliberate.core.errors import CheckpointError
from deliberate.train import precision, train


@pytest.fixture
def rate(monkeypatch):
    """Let one dtype be the faster one."""

    def set_faster(name):
        def seconds(dtype, device):
            return 1.0 if dtype == getattr(torch, name) else 2.0

        monkeypatch.setattr(precision, "_seconds", seconds)

    return set_faster


def settled(folder):
    return yaml.safe_load((folder / "recipe.yaml").read_text())["base"]["dtype"]


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_auto_is_the_dtype_that_multiplies_faster(recipe, tmp_path, rate, faster):
    rate(faster)
    train(recipe("base.dtype=auto", "train.steps=1"), tmp_path / "run")
    assert settled(tmp_path / "run") == faster


def test_a_dtype_that_is_named_is_not_measured(recipe, tmp_path, rate):
    rate("bfloat16")
    train(recipe("base.dtype=float32", "train.steps=1"), tmp_path / "run")
    assert settled(tmp_path / "run") == "float32"


def test_a_resumed_run_stays_in_the_dtype_it_began_in(recipe, tmp_path, rate):
    rate("bfloat16")

    def crash(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe("base.dtype=auto"), tmp_path / "run", on_progress=crash)
    rate("float32")
    train(recipe("base.dtype=auto"), tmp_path / "run", resume=True)
    assert settled(tmp_path / "run") == "bfloat16"


def test_a_run_whose_recipe_was_changed_to_auto_is_refused(recipe, tmp_path, rate):
    rate("float32")
    train(recipe("base.dtype=auto", "train.steps=1"), tmp_path / "run")
    kept = tmp_path / "run" / "recipe.yaml"
    kept.write_text(kept.read_text().replace("  dtype: float32", "  dtype: auto"))
    with pytest.raises(CheckpointError, match="write back the one it began in"):
        train(recipe("base.dtype=auto", "train.steps=1"), tmp_path / "run", resume=True)


def test_one_of_two_dtypes_is_found_on_this_machine():
    assert precision.faster_dtype(torch.device("cpu")) in {"float32", "bfloat16"}
