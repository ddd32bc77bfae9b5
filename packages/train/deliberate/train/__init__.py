"""Learning a coprocessor: recipes, the one-pass training loop and its checkpoints."""

from deliberate.train.best import BEST
from deliberate.train.loop import train
from deliberate.train.processes import Elsewhere, is_first
from deliberate.train.recipe import Recipe, dump, load_recipe
from deliberate.train.run import Interrupted, Progress
from deliberate.train.tracker import how_to_show

__all__ = [
    "BEST",
    "Elsewhere",
    "Interrupted",
    "Progress",
    "Recipe",
    "dump",
    "how_to_show",
    "is_first",
    "load_recipe",
    "train",
]
