"""A short text and the recipe of a short run on a tiny base."""

import random

import pytest

from deliberate.train import load_recipe


@pytest.fixture(autouse=True)
def no_home(tmp_path, monkeypatch):
    """Nothing is kept from one test to another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def corpus(tmp_path):
    words = ["abc", "cab", "bca", "xyz.", "zyx", "0123", "3210", "the", "end.\n"]
    text = " ".join(random.Random(0).choices(words, k=4000))
    path = tmp_path / "corpus.txt"
    path.write_text(text)
    return path


@pytest.fixture
def recipe(llama_folder, corpus):
    def make(*changes):
        return load_recipe(
            None,
            changes=[
                f"base.id={llama_folder}",
                "base.dtype=float32",
                f"data.train={corpus}",
                "data.length=32",
                "coprocessor.latents=2",
                "objective.ahead=3",
                "objective.anchors=6",
                "train.steps=8",
                "train.batch=4",
                "train.warmup=2",
                "train.learning_rate=0.003",
                "train.checkpoint_every=3",
                "train.validate_every=4",
                "eval.texts=4",
                "eval.anchors=4",
                "eval.ahead=4",
                *changes,
            ],
        )

    return make
