"""Checkpoints of a run: everything that the next step depends on, in one folder a step.

    RUN/checkpoints/step-000250/{weights,optimizer}.safetensors, state.json

A folder is written under another name and renamed, so one that is there is whole. The order of
rows and the anchors are functions of the step; the random state is kept all the same.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import AdamW

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


def save_checkpoint(
    folder: Path, coprocessor: Coprocessor, optimizer: AdamW, state: State, *, keep: int
) -> Path:
    """Write a checkpoint and remove all but the newest `keep`.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{state.step:06d}"
    partial = folder / f".{final.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        save_file(coprocessor.state_dict(), partial / _WEIGHTS)
        tensors = {"random_state": torch.get_rng_state(), **optimizer_tensors(optimizer)}
        save_file(tensors, partial / _OPTIMIZER)
        (partial / _STATE).write_text(json.dumps({"step": state.step, "seconds": state.seconds}))
        for name in (_WEIGHTS, _OPTIMIZER, _STATE):
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"cannot write checkpoint {str(final)!r}: {error}") from error
    for old in found(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def found(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*"))


def restore(folder: Path, coprocessor: Coprocessor, optimizer: AdamW) -> State:
    """Load the checkpoint in `folder` into a coprocessor and its optimizer.

    Raises:
        CheckpointError: it cannot be read, or is of another coprocessor.
    """
    try:
        coprocessor.load_state_dict(load_file(folder / _WEIGHTS))
        tensors = load_file(folder / _OPTIMIZER)
        torch.set_rng_state(tensors.pop("random_state"))
        restore_optimizer(optimizer, tensors)
        return State(**json.loads((folder / _STATE).read_text()))
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot resume from {str(folder)!r}: {error}; remove it to resume from the one before"
        ) from error
