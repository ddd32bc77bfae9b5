"""Checkpoints of a run: everything that the next step depends on, in one folder a step.

    RUN/checkpoints/step-000250/{weights,optimizer}.safetensors, state.json

A folder is written under another name and renamed, so one that is there is whole. The order of
rows and the anchors are functions of the step; the random state is kept all the same.
"""

import dataclasses
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import AdamW

from deliberate.core.checkpoint import load_weights, weights_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError
from deliberate.train.optimizer import optimizer_tensors, restore_optimizer

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


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
    folder: Path, coprocessor: Coprocessor, optimizer: AdamW, state: State, *, keep: int
) -> Path:
    """Write a checkpoint and remove all but the newest `keep`.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    final = path_of(folder, state.step)
    partial = folder / f".{final.name}.part"
    for stale in folder.glob(".step-*.part"):  # of a run that was killed
        shutil.rmtree(stale)
    partial.mkdir(parents=True)
    try:
        save_file(weights_of(coprocessor), partial / _WEIGHTS)
        tensors = {"random_state": torch.get_rng_state(), **optimizer_tensors(optimizer)}
        save_file(tensors, partial / _OPTIMIZER)
        (partial / _STATE).write_text(json.dumps(dataclasses.asdict(state)))
        for name in (_WEIGHTS, _OPTIMIZER, _STATE):
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write checkpoint {str(final)!r}: {error}; nothing half-written was left: make "
            "room and resume"
        ) from error
    finally:  # gone already if all went well
        shutil.rmtree(partial, ignore_errors=True)
    for old in found(folder)[:-keep]:
        shutil.rmtree(old)
    return final


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


def restore(folder: Path, coprocessor: Coprocessor, optimizer: AdamW, *, expected: State) -> State:
    """Load the checkpoint in `folder` into a coprocessor and its optimizer.

    Args:
        folder: One of `found`.
        coprocessor: Gets the checkpoint's weights.
        optimizer: Gets the checkpoint's moments.
        expected: Names the base and the rows that the run has now.

    Raises:
        CheckpointError: it cannot be read, or is of another coprocessor, base, start or rows.
    """
    try:
        state = State(**json.loads((folder / _STATE).read_text()))
        _same(folder, state, expected)
        load_weights(coprocessor, load_file(folder / _WEIGHTS))
        tensors = load_file(folder / _OPTIMIZER)
        torch.set_rng_state(tensors.pop("random_state"))
        restore_optimizer(optimizer, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot resume from {str(folder)!r}: {error}; remove it to resume from the one before"
        ) from error
    return state


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
