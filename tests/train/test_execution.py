"""What a recipe says of speed and memory reaches the run, and changes no loss."""

import json

import pytest

from deliberate.core.errors import DeliberateError
from deliberate.train import train


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_recomputes_has_the_same_losses(recipe, tmp_path, dtype):
    train(recipe(f"base.dtype={dtype}"), tmp_path / "kept")
    train(recipe(f"base.dtype={dtype}", "train.recompute=true"), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "kept")


def test_a_form_of_attention_that_cannot_run_here_leaves_the_folder_free(recipe, tmp_path):
    with pytest.raises(DeliberateError, match=r"set train\.attention to parts"):
        train(recipe("train.attention=flex"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
