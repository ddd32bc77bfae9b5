"""Every shipped recipe resolves, and runs for a step on a tiny base of its family."""

from pathlib import Path

import pytest

from deliberate.core.base import load_base
from deliberate.core.checkpoint import EMBEDDED_FOLDERS, load_coprocessor, save_coprocessor
from deliberate.train import load_recipe, train

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
FAMILY = {"gemma2-2b": "gemma2", "qwen3-0.6b": "qwen3", "gpt2": "gpt2"}


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"nano", "demo", "gemma2-2b"}


def test_what_ships_is_loaded_by_its_name_and_is_of_the_recipe():
    base, recipe = load_base("nano"), load_recipe("nano").to_dict()
    for name in EMBEDDED_FOLDERS:
        trained = load_coprocessor(name, base=base)
        config = trained.coprocessor.config
        assert (config.kind, config.latents) == (
            "soft" if name == "nano-soft" else "full", 16 if name == "nano-16" else 4
        )  # fmt: skip
        own = trained.recipe
        assert own["train"]["steps"] == recipe["train"]["steps"] == own["reached"]["step"]
        assert own["data"] == recipe["data"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_for_a_step(path, tmp_path, save_base, make):
    folder = save_base(FAMILY.get(path.stem, "llama"))
    texts = tmp_path / "texts.txt"
    texts.write_text("some words. and others.\n" * 400)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "How many", "answer": "12"}\n' * 20)
    pairs = path.stem.startswith("adapt-")
    small = {
        "base.id": folder,
        "base.dtype": "float32",
        "data.train": rows if pairs else texts,
        "data.length": 60,
        "coprocessor.latents": 2,
        "objective.ahead": 4,
        "objective.anchors": 4,
        "train.steps": 1,
        "train.batch": 2,
        "train.accumulate": 1,
        "eval.texts": 2,
        "eval.anchors": 2,
        "eval.ahead": 4,
    }
    if pairs:  # begins from a trained one
        base = load_base(str(folder))
        save_coprocessor(make(base, "warm", latents=2), tmp_path / "trained", base=base)
        small["train.init"] = tmp_path / "trained"
    recipe = load_recipe(path, changes=[f"{name}={value}" for name, value in small.items()])
    train(recipe, tmp_path / "run")
    trained = load_coprocessor(tmp_path / "run", base=load_base(str(folder)))
    assert trained.coprocessor.config == recipe.coprocessor
