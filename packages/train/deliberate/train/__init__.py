"""Learning a coprocessor: recipes, the one-pass training loop and its checkpoints."""

from deliberate.train.loop import train
from deliberate.train.processes import Elsewhere, is_first
from deliberate.train.recipe import Recipe, dump, load_recipe
from deliberate.train.run import Interrupted, Progress

__all__ = [
    "Elsewhere",
    "Interrupted",
    "Progress",
    "Recipe",
    "dump",
    "is_first",
    "load_recipe",
    "train",
]
