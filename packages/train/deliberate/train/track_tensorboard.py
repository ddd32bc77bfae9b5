"""TensorBoard: a run's numbers as event files in RUN/tensorboard."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Begin a file of its own; what earlier files say of later steps is void.

        Args:
            folder: Of the event files.
            step: Steps done.
        """
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Add a point to each number's curve, on disk at once: a run may be killed."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
