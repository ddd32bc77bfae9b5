"""The coprocessor's own process: loads its own base, and thinks over one file after another.

    path of a cache file --pipe--> augment --> path of an augmented file --pipe--> how it went

It shares nothing with the server but the pipe and the store's folder.
"""

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from deliberate.core.augment import augment
from deliberate.core.base import Base, load_base
from deliberate.core.cache_file import CacheFile, save
from deliberate.core.checkpoint import Trained, load_coprocessor
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.serve.served import placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What the process loads, and how it runs."""

    base: str
    """`nano`, a folder or a Hub id."""

    revision: str
    """The base's commit, where it is from the Hub; else empty."""

    base_fingerprint: str
    """What the server's base has: another is refused."""

    coprocessor: str
    """`nano`, a folder or a Hub id."""

    coprocessor_fingerprint: str
    """What the server knows of it: another is refused."""

    dtype: torch.dtype
    """In which the base's weights are held: the stored caches'."""

    device: str = "cpu"
    """Where both are held; need not be the server's."""

    threads: int | None = None
    """CPU threads of its mathematics; by default torch's own choice."""

    nice: int = 10
    """By how much its priority is below the server's."""


def main(connection: Connection, models: Models) -> None:
    """Load the models, say so, and work until the server is gone."""
    # Ctrl-C reaches every process of a terminal; the server alone says when this one ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(models.nice)
    if models.threads is not None:
        torch.set_num_threads(models.threads)
    disable_progress_bar()
    answer(connection, models)


def answer(connection: Connection, models: Models) -> None:
    """Load the models, then answer each pair of paths with an empty text, or with what failed."""
    try:
        base, trained = _load(models)
    except (DeliberateError, OSError, RuntimeError, AssertionError) as error:
        # The last two are what torch raises for a device that is not there.
        connection.send(str(error))
        return
    connection.send("")
    while True:
        try:
            source, target = connection.recv()
        except (EOFError, ConnectionError):
            return
        connection.send(_think(base, trained, Path(source), Path(target)))


def _load(models: Models) -> tuple[Base, Trained]:
    base = load_base(
        models.base, revision=models.revision or None, dtype=models.dtype, device=models.device
    )
    trained = load_coprocessor(models.coprocessor, base=base, verify=True)
    for what, found, wanted in (
        ("base", base.fingerprint, models.base_fingerprint),
        ("coprocessor", trained.fingerprint, models.coprocessor_fingerprint),
    ):
        if found != wanted:
            raise CheckpointError(
                f"the {what} at {getattr(models, what)!r} is {found} by now and the server serves "
                f"{wanted}: start the server again"
            )
    return base, trained


def _think(base: Base, trained: Trained, source: Path, target: Path) -> str:
    """Augment one file; what failed, or nothing."""
    try:
        with CacheFile(source, content=source.read_bytes()) as file:
            file.verify()
            plain = placed(file.cache().text_part(), base.device)
        [found] = augment(
            base, trained.coprocessor, [plain], name=trained.id, fingerprint=trained.fingerprint
        )
        save(found, target)
    except (DeliberateError, OSError, RuntimeError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def _end_with_parent() -> None:
    """End when the server does, also in the middle of work that would never end."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
