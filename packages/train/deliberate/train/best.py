"""The best coprocessor so far, kept beside the run as a coprocessor of its own.

    validation --change of loss, mean over the ahead tokens--> lower than all before? --> RUN/best

What is compared is the change in loss against the base in nats, averaged over tokens 1 to
`objective.ahead`, or as many of them as validation measures. Not in the paper.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deliberate.core.atomic import bring_back, replacing_folder
from deliberate.core.measure import Losses
from deliberate.train.recipe import Recipe

BEST = "best"
"""Name of the folder inside the run's."""


def loss_change(losses: Losses, recipe: Recipe) -> float:
    """Change in loss against the base, in nats, averaged over tokens 1 to `objective.ahead`.

    Or over as many of them as were measured; those that `objective.skip` leaves out count too.
    """
    ahead = min(recipe.objective.ahead, recipe.eval.ahead)
    difference = (losses.sums["latents"] - losses.sums["base"])[:, :ahead]
    return (difference.sum() / losses.counts[:, :ahead].sum()).item()


class Best:
    """A run's best coprocessor so far."""

    def __init__(self, folder: Path) -> None:
        """Know of none yet.

        Args:
            folder: The run's.
        """
        self._folder = folder / BEST
        self._change = math.inf

    def restore(self, lines: Iterable[dict[str, Any]]) -> None:
        """Remember the best one from a run's metrics, if it is there."""
        bring_back(self._folder)
        if self._folder.is_dir():
            changes = (line["loss_change"] for line in lines if "loss_change" in line)
            self._change = min(changes, default=math.inf)

    def is_beaten_by(self, change: float) -> bool:
        """Whether a coprocessor with this change in loss is better than all before."""
        return change < self._change

    def keep(self, change: float, save: Callable[[Path], None]) -> None:
        """Write a better one in place of the one before.

        Args:
            change: Its change in loss.
            save: Writes a coprocessor's folder.

        Raises:
            OSError: the disk is full or the folder cannot be written; the one before is whole.
        """
        try:
            with replacing_folder(self._folder) as partial:
                save(partial)
        except OSError as error:
            raise OSError(
                f"cannot write the best coprocessor to {str(self._folder)!r}: {error}; any that "
                "was there is whole: make room and resume"
            ) from error
        self._change = change
