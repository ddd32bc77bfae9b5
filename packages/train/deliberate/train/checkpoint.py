"""Checkpoints of a run: everything that the next step depends on, in one folder a step.

    RUN/checkpoints/step-000250/{weights,optimizer}.safetensors, state.json
    in shares                  /{weights,optimizer}-00001-of-00002.safetensors, ...

Each process that holds a share writes it to files of its own. A folder is written under another
name and renamed once all have, so one that is there is whole. The order of rows and the anchors
are functions of the step; the random state is kept all the same.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW

from deliberate.core import plain_json
from deliberate.core.atomic import system_errors
from deliberate.core.checkpoint import weights_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError
from deliberate.train.optimizer import optimizer_tensors, restore_optimizer
from deliberate.train.processes import Processes
from deliberate.train.sharding import share_of

_STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run is."""

    step: int
    """Optimizer steps done."""

    seconds: float
    """Time spent on them."""

    base: str
    """Fingerprint of the base."""

    rows: str
    """Fingerprint of the training rows; see `rows.Rows.fingerprint`."""

    init: str = ""
    """Fingerprint of the coprocessor it began from, if any."""

    processes: int = 1
    """How many processes share each batch: their number decides how sums are rounded."""

    streams: list[Any] = field(default_factory=list)
    """Where each process's streams are; see `rows.Rows.state`."""


def save_checkpoint(
    folder: Path,
    coprocessor: Coprocessor,
    optimizer: AdamW,
    state: State,
    *,
    keep: int,
    among: Processes,
) -> Path:
    """Write a checkpoint and remove all but the newest `keep`.

    Args:
        folder: Of the checkpoints, the same one for all who write.
        coprocessor: Whole, or this process's share.
        optimizer: Likewise.
        state: Where the run is.
        keep: Checkpoints that stay.
        among: Those who hold shares and all write; one process alone where weights are whole.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing half-written remains.
        DeliberateError: so it was in another process.
    """
    final = path_of(folder, state.step)
    partial = folder / f".{final.name}.part"
    weights, moments = _files(partial, among)

    def write_share() -> None:
        _write(weights, weights_of(coprocessor))
        random = {"random_state": torch.get_rng_state()}
        _write(moments, {**random, **optimizer_tensors(optimizer)})

    try:
        among.by_first(lambda: _named(final, lambda: _make_room(folder, partial)))
        among.by_all(lambda: _named(final, write_share))
        among.by_first(lambda: _named(final, lambda: _finish(partial, final, state)))
    finally:  # gone already if all went well
        if among.first:
            shutil.rmtree(partial, ignore_errors=True)
    among.by_first(lambda: _forget(found(folder)[:-keep]))
    return final


def _named(final: Path, work: Callable[[], None]) -> None:
    """Do a part of writing a checkpoint, and name the checkpoint if it fails.

    Raises:
        OSError: it did.
    """
    try:
        work()
    except OSError as error:
        raise OSError(
            f"cannot write checkpoint {str(final)!r}: {error}; nothing half-written was left: make "
            "room and resume"
        ) from error


def _make_room(folder: Path, partial: Path) -> None:
    for stale in folder.glob(".step-*.part"):  # of a run that was killed
        shutil.rmtree(stale)
    partial.mkdir(parents=True)


def _files(folder: Path, among: Processes) -> tuple[Path, Path]:
    """Where a process keeps its weights and what the optimizer holds."""
    share = f"-{among.rank + 1:05d}-of-{among.count:05d}" if among.count > 1 else ""
    return folder / f"weights{share}.safetensors", folder / f"optimizer{share}.safetensors"


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, or this process's shares of them, to the disk itself.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    with system_errors():
        save_file({name: share_of(tensor) for name, tensor in tensors.items()}, path)
    _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _finish(partial: Path, final: Path, state: State) -> None:
    (partial / _STATE).write_text(json.dumps(dataclasses.asdict(state)))
    _sync(partial / _STATE)
    _forget([final] if final.exists() else [])
    partial.rename(final)


def _forget(old: list[Path]) -> None:
    """Remove checkpoints, each at once: a part of one must never be taken for one."""
    for folder in old:
        gone = folder.with_name(f".{folder.name}-old.part")
        folder.rename(gone)
        shutil.rmtree(gone)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return folder / f"step-{step:06d}"


def found(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    steps = {
        int(match[1]): path
        for path in folder.glob("step-*")
        if (match := re.fullmatch(r"step-(\d+)", path.name))
    }
    return [steps[step] for step in sorted(steps)]


def restore(
    folder: Path,
    coprocessor: Coprocessor,
    optimizer: AdamW,
    *,
    expected: State,
    among: Processes,
) -> State:
    """Load the checkpoint in `folder` into a coprocessor and its optimizer.

    Args:
        folder: One of `found`.
        coprocessor: Gets the checkpoint's weights.
        optimizer: Gets the checkpoint's moments.
        expected: Names the base and the rows that the run has now.
        among: As for `save_checkpoint`.

    Raises:
        CheckpointError: it cannot be read, or is of another coprocessor, base, start or rows.
    """
    try:
        state = State(**plain_json.read(folder / _STATE))
        _same(folder, state, expected)
        weights, moments = _files(folder, among)
        _fill(weights_of(coprocessor), load_file(weights))
        tensors = load_file(moments)
        torch.set_rng_state(tensors.pop("random_state"))
        restore_optimizer(optimizer, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot resume from {str(folder)!r}: {error}; remove it to resume from the one before"
        ) from error
    return state


def _fill(weights: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    """Give weights, or this process's shares of them, the values that were kept.

    Raises:
        ValueError: these are not theirs, by their names and shapes.
    """
    shares = {name: share_of(weight) for name, weight in weights.items()}
    if {k: v.shape for k, v in kept.items()} != {k: v.shape for k, v in shares.items()}:
        raise ValueError("the weights are not those of such a coprocessor")
    for name, share in shares.items():
        share.copy_(kept[name])


def _same(folder: Path, state: State, expected: State) -> None:
    """See that a checkpoint is of this base, these rows and this start, by as many processes.

    Raises:
        CheckpointError: it is not; names which.
    """
    if state.processes != expected.processes:
        raise CheckpointError(
            f"{str(folder)!r} was written by {state.processes} processes and now there are "
            f"{expected.processes}, which would add up in another order: resume with "
            f"`torchrun --nproc-per-node {state.processes}`, or begin anew in another --output-dir"
        )
    for what, before, now in (
        ("base (base.id)", state.base, expected.base),
        ("training rows (data.train)", state.rows, expected.rows),
        ("start (train.init)", state.init, expected.init),
    ):
        if before != now:
            raise CheckpointError(
                f"cannot resume from {str(folder)!r}: its {what} had fingerprint {before!r} and "
                f"now {now!r}: bring back what it was, or name another --output-dir"
            )
