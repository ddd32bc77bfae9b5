"""A training step on random weights, and what `--dry-run` says of it."""

import argparse
import dataclasses
from collections.abc import Callable

import torch
from random_base import random_base

from deliberate.core import Base, build
from deliberate.core.groups import sample_anchors
from deliberate.train import Recipe, load_recipe
from deliberate.train.objective import Objective


def recipe_of(options: argparse.Namespace, *changes: str) -> tuple[Recipe, Base]:
    """The recipe of a step of the sizes that were asked for, and its base."""
    base = random_base(
        hidden=options.hidden,
        layers=options.layers,
        vocabulary=options.vocabulary,
        positions=options.tokens + options.latents + options.ahead,
        dtype=getattr(torch, options.dtype),
    )
    recipe = load_recipe(
        None,
        changes=[
            f"data.length={options.tokens}",
            f"coprocessor.latents={options.latents}",
            f"objective.ahead={options.ahead}",
            f"objective.anchors={options.anchors}",
            f"train.batch={options.batch}",
            *changes,
        ],
    )
    section = dataclasses.replace(
        recipe.base,
        id="random/llama",
        dtype=options.dtype,
        architecture=base.model.config.to_dict(),
    )
    return dataclasses.replace(recipe, base=section), base


def step_of(recipe: Recipe, base: Base) -> tuple[Objective, Callable[[], None]]:
    """The objective, and one forward and backward of it on random tokens."""
    coprocessor = build(recipe.coprocessor, base).float()
    coprocessor.execution = recipe.train.execution
    objective = Objective(coprocessor, base, recipe)
    batch, length = recipe.train.batch, recipe.data.length
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(base.vocab, (batch, length), generator=generator)
    last = length - 1 - recipe.objective.ahead
    anchors = sample_anchors(
        batch, anchors=recipe.objective.anchors, last=last, generator=generator
    )
    return objective, lambda: objective(token_ids, anchors).backward()


def parsed(description: str | None, **defaults: int) -> argparse.Namespace:
    """The sizes that were asked for."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    sizes = {"hidden": 512, "layers": 4, "vocabulary": 4096, "tokens": 512, "batch": 2}
    sizes |= {"anchors": 32, "latents": 16, "ahead": 16, "repeats": 5, **defaults}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    return parser.parse_args()
