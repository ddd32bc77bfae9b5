"""When a loss jumps: the rule that stops a run before a bad step is taken.

    losses logged --median of the last 50--> this step's loss, at most `train.spike` above it?

Not in the paper. The window is made of the metrics, so a resumed run decides as an uninterrupted
one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from statistics import median

from deliberate.core.errors import DeliberateError

WINDOW = 50
"""Losses that a step is compared with."""

LEAST = 10
"""Losses without which nothing is called a spike."""


class Spikes:
    """The latest losses, and how far above them one may be."""

    def __init__(self, height: float | None) -> None:
        """Begin without losses.

        Args:
            height: Nats above the median of the latest losses; none calls nothing a spike.
        """
        self._height = height
        self._latest: deque[float] = deque(maxlen=WINDOW)

    def add(self, losses: Iterable[float]) -> None:
        """Count these losses, oldest first, among the latest ones."""
        self._latest.extend(losses)

    def is_high(self, loss: float) -> bool:
        """Whether a loss is a spike."""
        if self._height is None or len(self._latest) < LEAST:
            return False
        return loss > median(self._latest) + self._height

    def check(self, step: int, loss: float, last_checkpoint: Callable[[], str]) -> None:
        """See that a step's loss is no spike, and count it among the latest ones.

        Args:
            step: The step that would be taken.
            loss: Its loss, in nats.
            last_checkpoint: Says in words which one there is.

        Raises:
            DeliberateError: it is one; names the step, both losses and the last checkpoint.
        """
        if self.is_high(loss):
            raise DeliberateError(
                f"the loss of step {step} is {loss:.4f}, more than train.spike "
                f"({self._height:g}) above {median(self._latest):.4f}, the median of the latest "
                f"{len(self._latest)}, and {last_checkpoint()}: train anew with a lower "
                "train.learning_rate, in another --output-dir, or resume with a larger "
                "train.spike, or null for no such rule"
            )
        self.add([loss])
