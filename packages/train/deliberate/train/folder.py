"""A run's folder: whose it is, and its metrics.

RUN/{recipe.yaml, metrics.jsonl, checkpoints/, best/}, and at the end the coprocessor itself
"""

import json
from pathlib import Path
from typing import Any

from deliberate.core import atomic, folder_lock
from deliberate.core.errors import CheckpointError, RecipeError
from deliberate.train.checkpoint import found
from deliberate.train.recipe import Recipe, dump, load_recipe

RECIPE, METRICS, CHECKPOINTS = "recipe.yaml", "metrics.jsonl", "checkpoints"

OWN = {RECIPE, METRICS, CHECKPOINTS, "best", "tensorboard", "trackio.json", folder_lock.NAME}
"""What a run may have left in its folder before its first step was done."""

FREE = {"train.spike"}
"""What a resumed run may have otherwise: it decides whether steps are taken, and not which."""


def check_folder(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """See that a folder is free or holds this recipe's run, to be resumed; writes nothing.

    A folder with neither metrics nor checkpoints is free, if it holds no files of others.

    Raises:
        CheckpointError: it is a file, or holds a run and `resume` is off, or a run of another
            recipe, or files that are no run's.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{str(folder)!r} is a file: name a folder as --output-dir")
    if not _is_begun(folder):
        _check_free(folder)
        return
    if not resume:
        raise CheckpointError(
            f"{str(folder)!r} holds a run already: go on with --resume, or name another "
            "--output-dir"
        )
    there = _recipe_of(folder)
    if there.base.dtype == "auto":
        raise CheckpointError(
            f"{str(folder)!r} holds a recipe.yaml with base.dtype auto, and a run is in one of "
            "float32 and bfloat16: write back the one it began in"
        )
    odd = _differences(recipe, there)
    if odd:
        raise CheckpointError(
            f"{str(folder)!r} holds a run of another recipe, which differs in {', '.join(odd)}: "
            "resume it as it is, or name another --output-dir"
        )


def _check_free(folder: Path) -> None:
    """See that a folder without a run holds nothing that would be mixed with one.

    Raises:
        CheckpointError: it does; names a file.
    """
    if not folder.exists():
        return
    names = (path.name for path in folder.iterdir())
    others = sorted(name for name in names if name not in OWN and not atomic.is_partial(name))
    if others:
        raise CheckpointError(
            f"{str(folder)!r} holds {others[0]!r} and no run: name an empty or a new folder as "
            "--output-dir"
        )


class Occupied:
    """A run's folder, which no other process may train in meanwhile."""

    def __init__(self, folder: Path) -> None:
        """Take nothing yet."""
        self._folder = folder
        self._lock: folder_lock.FolderLock | None = None

    def take(self) -> None:
        """Lock the folder, and make it if it is missing.

        Raises:
            FolderInUseError: another process trains in it; says which.
            OSError: it cannot be written.
        """
        if self._lock is None:
            self._lock = folder_lock.FolderLock(self._folder)

    def take_if_there(self) -> None:
        """Lock the folder; for a run that may be refused make none, but see that it can be made.

        Raises:
            FolderInUseError: another process trains in it; says which.
            OSError: it cannot be written.
        """
        if self._folder.is_dir():
            self.take()
        elif not self._folder.exists():
            atomic.check_writable(self._folder)

    def close(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.release()


def begun_dtype(folder: Path) -> str | None:
    """In which numbers the run in a folder began, or None if there is none or it does not say.

    Raises:
        CheckpointError: its recipe cannot be read.
    """
    dtype = _recipe_of(folder).base.dtype if _is_begun(folder) else "auto"
    return None if dtype == "auto" else dtype  # as it was settled, but for somebody's edit


def occupy(recipe: Recipe, folder: Path, occupied: Occupied, *, resume: bool) -> None:
    """Make the run's folder, with its recipe.

    Raises:
        OSError: it cannot be written.
        CheckpointError: another process has begun a run in it since it was looked at.
        FolderInUseError: and is still at it.
    """
    occupied.take()
    check_folder(recipe, folder, resume=resume)
    atomic.write_bytes(folder / RECIPE, dump(recipe).encode())


def log(folder: Path, line: dict[str, Any]) -> None:
    """Add a line to the metrics.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    path = folder / METRICS
    try:
        with path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot write {str(path)!r}: {reason}; make room and resume") from error


def forget_after(folder: Path, step: int) -> list[dict[str, Any]]:
    """Cut the metrics after a step, and return the lines that stay."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    atomic.write_bytes(path, "".join(kept).encode())
    return [json.loads(line) for line in kept]


def _is_begun(folder: Path) -> bool:
    return (folder / METRICS).exists() or bool(found(folder / CHECKPOINTS))


def _recipe_of(folder: Path) -> Recipe:
    path = folder / RECIPE
    try:
        return load_recipe(path)
    except (RecipeError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder)!r} holds a run whose {RECIPE} cannot be read ({error}): bring it back, "
            "or name another --output-dir"
        ) from error


def _differences(recipe: Recipe, before: Recipe) -> list[str]:
    return [
        f"{section}.{key}"
        for section, values in recipe.to_dict().items()
        for key, value in values.items()
        if f"{section}.{key}" not in FREE and before.to_dict()[section][key] != value
    ]


def _step_of(line: str) -> int:
    """The step of a line of metrics; a line cut short by a crash comes after everything."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 1 << 62
    return step if isinstance(step, int) else 1 << 62
