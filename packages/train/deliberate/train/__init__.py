"""Learning a coprocessor: recipes, the one-pass training loop and its checkpoints."""

from deliberate.train.loop import Interrupted, Progress, train
from deliberate.train.recipe import Recipe, dump, load_recipe

__all__ = ["Interrupted", "Progress", "Recipe", "dump", "load_recipe", "train"]
