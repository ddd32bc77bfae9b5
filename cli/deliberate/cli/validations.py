"""The table of a run's validations, which grows by a row with each.

step     loss        1        2        4
 250   2.4361    -1.27    -0.17    -0.45
"""

TITLE = "held out: change of perplexity against the base, in percent, by token after the anchor"


class Validations:
    """A table that is printed as it grows."""

    def __init__(self) -> None:
        """Begin with its head not printed yet."""
        self._headed = False

    def grown(self, step: int, loss: float, change_percent: dict[str, float]) -> str:
        """What to print of one more validation: its row, and above the first one the head.

        Args:
            step: Steps done.
            loss: In training, in nats.
            change_percent: By token after the anchor, the same ones each time.
        """
        head = "" if self._headed else f"{TITLE}\n{_row('step', 'loss', list(change_percent))}\n"
        self._headed = True
        cells = [_percent(value) for value in change_percent.values()]
        return head + _row(str(step), f"{loss:.4f}", cells)


def _row(step: str, loss: str, cells: list[str]) -> str:
    return f"{step:>7} {loss:>8}" + "".join(f" {cell:>8}" for cell in cells)


def _percent(value: float) -> str:
    """Two decimals, where there is room for them."""
    return f"{value:+.2f}" if abs(value) < 1000 else f"{value:+,.0f}"
