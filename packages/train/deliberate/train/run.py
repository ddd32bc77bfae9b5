"""One run: its steps, checkpoints, validations and end.

    rows --step--> objective --backward--> gradients, averaged over processes --> optimizer

The optimizer, its rates and the precision are not in the paper.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from deliberate.core.base import Base
from deliberate.core.checkpoint import save_coprocessor, weights_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.measure import AHEAD_REPORTED, Condition, Losses, Passage, measure
from deliberate.train.checkpoint import State, found, path_of, restore, save_checkpoint
from deliberate.train.data import batches, fingerprint_of_rows
from deliberate.train.folder import CHECKPOINTS, forget_after, log
from deliberate.train.objective import Objective, precision
from deliberate.train.optimizer import make_optimizer, set_rate
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe
from deliberate.train.sharding import clip, gathered, shard


class Interrupted(DeliberateError):
    """A run that was asked to stop, and can be resumed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step's news."""

    step: int
    """Steps done."""

    steps: int
    """Steps in all."""

    loss: float
    """Mean loss of the step's ahead tokens, in nats."""

    tokens_per_second: float
    """Tokens that went through the coprocessor or the base, text included."""

    seconds_left: float
    """At the mean pace so far."""

    change_percent: dict[str, float] | None = None
    """After a validation: change of perplexity against the base by token ahead."""


class Run:
    """One run, from its first step or a later one to its last."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        base: Base,
        coprocessor: Coprocessor,
        rows: Dataset,
        held_out: list[Passage],
        processes: Processes,
    ) -> None:
        """Make its optimizer, at step 0."""
        self.recipe, self.folder, self.base, self.coprocessor = recipe, folder, base, coprocessor
        self.rows, self.held_out, self.processes = rows, held_out, processes
        self.objective: Any = Objective(coprocessor, base, recipe)
        self.sharded = None
        if recipe.train.shard == "full":
            self.sharded = shard(base, coprocessor, recipe, processes)
        elif processes.count > 1:
            self.objective = DistributedDataParallel(self.objective, forward_sync_buffers=False)
        self.optimizer = make_optimizer(coprocessor, recipe)
        self.state = State(
            step=0,
            seconds=0.0,
            base=base.fingerprint,
            rows=fingerprint_of_rows(rows),
            processes=processes.count,
        )
        self.reached: dict[str, float] = {}

    def restore(self) -> None:
        """Go back to the newest checkpoint, and forget what was logged after it."""
        whole = found(self.folder / CHECKPOINTS)
        if whole:
            self.state = restore(
                whole[-1],
                self.coprocessor,
                self.optimizer,
                expected=self.state,
                among=self._holders,
            )
        if not self.processes.first:
            return
        kept = forget_after(self.folder, self.state.step)
        validated = [line.get("change_percent") for line in kept]
        self.reached = next((change for change in reversed(validated) if change), {})

    def go(self, stop: threading.Event, on_progress: Callable[[Progress], None]) -> None:
        """Run to the end, and write the coprocessor.

        Raises:
            Interrupted: `stop` was set; a checkpoint was written.
            DeliberateError: the loss, the gradient or the validation is no number.
        """
        settings = self.recipe.train
        began = time.perf_counter() - self.state.seconds
        while self.state.step < settings.steps:
            before = time.perf_counter()
            done = self._step(self.state.step, stop)
            if done is None:
                self._interrupt()
            loss, tokens = done
            now = time.perf_counter()
            step = self.state.step + 1
            self.state = replace(self.state, step=step, seconds=now - began)
            last = step == settings.steps
            change = self._validate() if last or step % settings.validate_every == 0 else None
            self._log(loss, now - before, change)
            on_progress(
                Progress(
                    step=step,
                    steps=settings.steps,
                    loss=loss,
                    tokens_per_second=tokens / (now - before),
                    seconds_left=self.state.seconds / step * (settings.steps - step),
                    change_percent=change,
                )
            )
            if last or step % settings.checkpoint_every == 0:
                self._checkpoint()
            if self.processes.any(stop.is_set()) and not last:
                self._interrupt()
        self._finish()

    def _interrupt(self) -> NoReturn:
        """Write a checkpoint and stop.

        Raises:
            Interrupted: always.
        """
        self._checkpoint()
        raise Interrupted(
            f"stopped after step {self.state.step} of {self.recipe.train.steps}, nothing is lost: "
            f"go on with `deliberate train --resume --output-dir {self.folder}`"
        )

    def _step(self, step: int, stop: threading.Event) -> tuple[float, int] | None:
        """One optimizer step: its loss and the tokens that went through.

        None if `stop` was set on the way: the part that was done is dropped, and done again when
        the run is resumed.
        """
        recipe, parts = self.recipe, self.recipe.train.accumulate
        set_rate(self.optimizer, recipe, step)
        total, tokens = 0.0, 0
        shares = batches(self.rows, recipe, self.base, step=step, share=self.processes)
        for part, (token_ids, anchors) in enumerate(shares, 1):
            if self.processes.any(stop.is_set()):
                self.optimizer.zero_grad()
                return None
            total += self._backward(token_ids, anchors, step=step, averaged=part == parts)
            group = 2 * recipe.coprocessor.latents + recipe.objective.ahead - 1
            group *= self.coprocessor.writes_latents
            tokens += self.processes.count * (token_ids.numel() + anchors.numel() * group)
        norm = clip(self.coprocessor.parameters(), recipe.train.clip)
        self._check_finite("norm of the gradient", step + 1, norm.item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, tokens

    def _backward(self, token_ids: Tensor, anchors: Tensor, *, step: int, averaged: bool) -> float:
        """Add one batch's gradients; its share of the step's loss, as a mean over processes.

        Args:
            token_ids: This process's rows, (batch, token).
            anchors: Theirs, (batch, anchors).
            step: Optimizer steps done.
            averaged: Whether processes exchange gradients now, or go on adding up their own.
        """
        apart = isinstance(self.objective, DistributedDataParallel) and not averaged
        with self.objective.no_sync() if apart else nullcontext():
            loss = self._loss(token_ids, anchors) / self.recipe.train.accumulate
            value = self.processes.mean(loss.item())
            self._check_finite("loss", step + 1, value)
            loss.backward()
        return value

    def _loss(self, token_ids: Tensor, anchors: Tensor) -> Tensor:
        if self.sharded is None:
            return self.objective(token_ids, anchors)
        return self.sharded(lambda: self.objective(token_ids, anchors))

    def _check_finite(self, what: str, step: int, *values: float) -> None:
        """Stop a run that went astray, before anything of its bad step is written.

        Raises:
            DeliberateError: a value is no finite number; names the step and the last checkpoint.
        """
        odd = next((value for value in values if not math.isfinite(value)), None)
        if odd is None:
            return
        whole = found(self.folder / CHECKPOINTS)
        last = f"the last checkpoint is {str(whole[-1])!r}" if whole else "there is no checkpoint"
        raise DeliberateError(
            f"the {what} of step {step} is {odd} and {last}: train anew with a lower "
            "train.learning_rate, in another --output-dir"
        )

    def _validate(self) -> dict[str, float]:
        """Change of perplexity against the base, in percent, by token ahead."""
        evaluation = self.recipe.eval

        def measured() -> Losses:
            with precision(self.base, self.recipe):
                return measure(
                    self.base,
                    {"latents": Condition(writer=self.coprocessor)},
                    self.held_out,
                    anchors=evaluation.anchors,
                    ahead=evaluation.ahead,
                    delay=self.recipe.objective.delay,
                )

        losses = measured() if self.sharded is None else self.sharded.measuring(measured)
        change = losses.change_percent("latents")
        self._check_finite("change of perplexity", self.state.step, *change)
        reported = [token for token in AHEAD_REPORTED if token <= evaluation.ahead]
        self.reached = {str(token): round(change[token - 1], 4) for token in reported}
        return self.reached

    def _log(self, loss: float, seconds: float, change: dict[str, float] | None) -> None:
        line: dict[str, Any] = {"step": self.state.step, "loss": loss, "seconds": round(seconds, 4)}
        if change is not None:
            line["change_percent"] = change
        self.processes.by_first(lambda: log(self.folder, line))

    @property
    def _holders(self) -> Processes:
        """Those who hold shares of the weights; this process alone where it holds them whole."""
        return Processes(device=self.base.device) if self.sharded is None else self.processes

    def _checkpoint(self) -> None:
        """Write a checkpoint, unless this step has its own already."""
        folder, keep = self.folder / CHECKPOINTS, self.recipe.train.keep

        def save() -> None:
            arguments = (folder, self.coprocessor, self.optimizer, self.state)
            save_checkpoint(*arguments, keep=keep, among=self._holders)

        def there() -> bool:  # the first one looks: another may look when it was just written
            return path_of(folder, self.state.step) in found(folder)

        if self.processes.by_first(there):
            return
        if self.sharded is None:
            self.processes.by_first(save)
        else:
            save()

    def _finish(self) -> None:
        about = {
            **self.recipe.to_dict(),
            "reached": {"change_percent": self.reached, "seconds": round(self.state.seconds)},
        }

        weights = gathered(weights_of(self.coprocessor), keep=self.processes.first)

        def save() -> None:
            save_coprocessor(
                self.coprocessor,
                self.folder,
                base=self.base,
                recipe=about,
                dtype=getattr(torch, self.recipe.train.save_dtype),
                weights=weights,
            )

        self.processes.by_first(save)
