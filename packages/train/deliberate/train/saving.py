"""What a run writes of its weights: checkpoints, and coprocessors that are used.

    weights, whole or in shares --> RUN/checkpoints/step-000250, RUN/best, RUN

Whole weights are written by the first process; of shares each process writes its own into a
checkpoint, and the first one gathers them for a coprocessor.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from deliberate.core.base import Base
from deliberate.core.checkpoint import save_coprocessor, weights_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.train.checkpoint import State, found, path_of, restore, save_checkpoint
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe
from deliberate.train.sharding import gathered


class Saver:
    """Writes a coprocessor that learns, and reads it back."""

    def __init__(
        self,
        recipe: Recipe,
        base: Base,
        coprocessor: Coprocessor,
        optimizer: AdamW,
        processes: Processes,
    ) -> None:
        """Hold what is written."""
        self._recipe, self._base = recipe, base
        self._coprocessor, self._optimizer, self._processes = coprocessor, optimizer, processes
        self._in_shares = recipe.train.shard == "full"
        # Those who hold shares of the weights; this process alone where it holds them whole.
        self._holders = processes if self._in_shares else Processes(device=processes.device)

    def checkpoint(self, folder: Path, state: State, streams: list[Any]) -> None:
        """Write a checkpoint, unless the step has one already; all processes take part.

        Args:
            folder: Of all checkpoints.
            state: Where the run is, but for its streams.
            streams: Where this process's are.
        """
        each = [json.loads(text) for text in self._processes.gathered(json.dumps(streams))]
        state = replace(state, streams=each)

        def save() -> None:
            arguments = (folder, self._coprocessor, self._optimizer, state)
            save_checkpoint(*arguments, keep=self._recipe.train.keep, among=self._holders)

        def there() -> bool:  # the first one looks: another may look when it was just written
            return path_of(folder, state.step) in found(folder)

        if self._processes.by_first(there):
            return
        if self._in_shares:
            save()
        else:
            self._processes.by_first(save)

    def restore(self, folder: Path, expected: State) -> State:
        """Load a checkpoint into the coprocessor and its optimizer.

        Raises:
            CheckpointError: it cannot be read, or is of another coprocessor, base, start or rows.
        """
        return restore(
            folder, self._coprocessor, self._optimizer, expected=expected, among=self._holders
        )

    def writer(self, reached: dict[str, Any]) -> Callable[[Path], None]:
        """What writes the coprocessor as it is now: all take part, and the first one calls it.

        Args:
            reached: What it has come to, to be written beside it.
        """
        weights = None
        if self._in_shares:
            weights = gathered(weights_of(self._coprocessor), keep=self._processes.first)

        def write(folder: Path) -> None:
            save_coprocessor(
                self._coprocessor.finished(),
                folder,
                base=self._base,
                recipe={**self._recipe.to_dict(), "reached": reached},
                dtype=getattr(torch, self._recipe.train.save_dtype),
                weights=weights,
            )

        return write
