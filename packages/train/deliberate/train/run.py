"""One run: its steps, checkpoints, validations and end.

    rows --step--> objective --backward--> gradients, averaged over processes --> optimizer

The optimizer, its rates and the precision are not in the paper.
"""

import math
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.measure import AHEAD_REPORTED, Condition, Losses, measure
from deliberate.core.passages import Passage
from deliberate.train.batch import Batch
from deliberate.train.best import Best, loss_change
from deliberate.train.checkpoint import State, found
from deliberate.train.data import batches
from deliberate.train.folder import CHECKPOINTS, forget_after, log
from deliberate.train.objective import Objective, precision
from deliberate.train.optimizer import make_optimizer, set_rate
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe
from deliberate.train.rows import Rows
from deliberate.train.saving import Saver
from deliberate.train.sharding import clip, shard
from deliberate.train.spike import Spikes
from deliberate.train.tracker import Trackers

_REACHED = ("loss_change", "change_percent")
"""What a validation adds to the metrics."""


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


class _Done(NamedTuple):
    """What a step came to."""

    loss: float
    tokens: int
    norm: float
    """Of the gradient, before it is clipped."""


class Run:
    """One run, from its first step or a later one to its last."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        base: Base,
        coprocessor: Coprocessor,
        rows: Rows,
        held_out: list[Passage],
        processes: Processes,
        trackers: Trackers,
        init: str = "",
    ) -> None:
        """Make its optimizer, at step 0."""
        self.recipe, self.folder, self.base, self.coprocessor = recipe, folder, base, coprocessor
        self.rows, self.held_out, self.processes = rows, held_out, processes
        self.trackers = trackers
        self.objective: Any = Objective(coprocessor, base, recipe)
        self.sharded = None
        if recipe.train.shard == "full":
            self.sharded = shard(base, coprocessor, recipe, processes)
        elif processes.count > 1:
            self.objective = DistributedDataParallel(self.objective, forward_sync_buffers=False)
        self.optimizer = make_optimizer(coprocessor, recipe)
        self.saver = Saver(recipe, base, coprocessor, self.optimizer, processes)
        self.state = State(
            step=0,
            seconds=0.0,
            base=base.fingerprint,
            rows=rows.fingerprint,
            processes=processes.count,
            init=init,
        )
        self.streams: list[Any] = []
        """Where this process's streams are."""
        self.reached: dict[str, Any] = {}
        # What the first process alone decides by.
        self.best = Best(folder)
        self.spikes = Spikes(recipe.train.spike)

    def restore(self) -> None:
        """Go back to the newest checkpoint, and forget what was logged after it."""
        whole = found(self.folder / CHECKPOINTS)
        if whole:
            self.state = self.saver.restore(whole[-1], self.state)
        if self.state.streams:
            self.streams = self.state.streams[self.processes.rank]
        if not self.processes.first:
            return
        kept = forget_after(self.folder, self.state.step)
        self.spikes.add(line["loss"] for line in kept)
        self.best.restore(kept)
        validated = next((line for line in reversed(kept) if "change_percent" in line), {})
        self.reached = {key: validated[key] for key in _REACHED if key in validated}

    def go(self, stop: threading.Event, on_progress: Callable[[Progress], None]) -> None:
        """Run to the end, and write the coprocessor.

        Raises:
            Interrupted: `stop` was set; a checkpoint was written.
            DeliberateError: the loss, the gradient or the validation is no number, or the loss
                jumps.
        """
        settings = self.recipe.train
        began = time.perf_counter() - self.state.seconds
        while self.state.step < settings.steps:
            before = time.perf_counter()
            done = self._step(self.state.step, stop)
            if done is None:
                self._interrupt()
            now = time.perf_counter()
            step = self.state.step + 1
            self.state = replace(self.state, step=step, seconds=now - began)
            self.streams = self.rows.state()
            last = step == settings.steps
            validated = last or step % settings.validate_every == 0
            if validated:
                self._validate()
            self._log(done, now - before, validated=validated)
            on_progress(
                Progress(
                    step=step,
                    steps=settings.steps,
                    loss=done.loss,
                    tokens_per_second=done.tokens / (now - before),
                    seconds_left=self.state.seconds / step * (settings.steps - step),
                    change_percent=self.reached["change_percent"] if validated else None,
                )
            )
            if last or step % settings.checkpoint_every == 0:
                self._checkpoint()
            if self.processes.any(stop.is_set()) and not last:
                self._interrupt()
        write = self._writer()
        self.processes.by_first(lambda: write(self.folder))

    def _interrupt(self) -> NoReturn:
        """Write a checkpoint and stop.

        Raises:
            Interrupted: always.
        """
        self._checkpoint()
        raise Interrupted(
            f"stopped after step {self.state.step} of {self.recipe.train.steps}, nothing is lost: "
            f"go on with `deliberate train --resume --output-dir {shlex.quote(str(self.folder))}`"
        )

    def _step(self, step: int, stop: threading.Event) -> _Done | None:
        """One optimizer step.

        None if `stop` was set on the way: the part that was done is dropped, and done again when
        the run is resumed.
        """
        recipe, parts = self.recipe, self.recipe.train.accumulate
        set_rate(self.optimizer, recipe, step)
        total, tokens = 0.0, 0
        shares = batches(self.rows, recipe, self.base, step=step, share=self.processes)
        for part, batch in enumerate(shares, 1):
            if self.processes.any(stop.is_set()):
                self.optimizer.zero_grad()
                return None
            total += self._backward(batch, step=step, averaged=part == parts)
            group = 2 * recipe.coprocessor.latents + recipe.objective.ahead - 1
            group *= self.coprocessor.writes_latents
            through = batch.token_ids.numel() + batch.anchors.numel() * group
            tokens += self.processes.count * through
        if self.processes.by_first(lambda: self.spikes.is_high(total)):
            self._checkpoint()  # what came before was good
        self.processes.by_first(lambda: self.spikes.check(step + 1, total, self._last_checkpoint))
        norm = clip(self.coprocessor.parameters(), recipe.train.clip).item()
        self._check_finite("norm of the gradient", step + 1, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return _Done(total, tokens, norm)

    def _backward(self, batch: Batch, *, step: int, averaged: bool) -> float:
        """Add one batch's gradients; its share of the step's loss, as a mean over processes.

        Args:
            batch: This process's share of it.
            step: Optimizer steps done.
            averaged: Whether processes exchange gradients now, or go on adding up their own.
        """
        apart = isinstance(self.objective, DistributedDataParallel) and not averaged
        with self.objective.no_sync() if apart else nullcontext():
            loss = self._loss(batch) / self.recipe.train.accumulate
            value = self.processes.mean(loss.item())
            self._check_finite("loss", step + 1, value)
            loss.backward()
        return value

    def _loss(self, batch: Batch) -> Tensor:
        inputs = (batch.token_ids, batch.anchors, batch.weights, batch.spelled)
        if self.sharded is None:
            return self.objective(*inputs)
        return self.sharded(lambda: self.objective(*inputs))

    def _check_finite(self, what: str, step: int, *values: float) -> None:
        """Stop a run that went astray, before anything of its bad step is written.

        Raises:
            DeliberateError: a value is no finite number; names the step and the last checkpoint.
        """
        odd = next((value for value in values if not math.isfinite(value)), None)
        if odd is None:
            return
        raise DeliberateError(
            f"the {what} of step {step} is {odd} and {self._last_checkpoint()}: train anew with a "
            "lower train.learning_rate, in another --output-dir"
        )

    def _last_checkpoint(self) -> str:
        whole = found(self.folder / CHECKPOINTS)
        return f"the last checkpoint is {str(whole[-1])!r}" if whole else "there is no checkpoint"

    def _validate(self) -> None:
        """Measure on held-out text, and keep the coprocessor if it never was better."""
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
        reported = [token for token in AHEAD_REPORTED if token <= len(change)]
        overall = round(loss_change(losses, self.recipe), 6)
        self.reached = {
            "loss_change": overall,
            "change_percent": {str(token): round(change[token - 1], 4) for token in reported},
        }
        # All learn what the first one decides, whatever their own last digits are.
        if self.processes.by_first(lambda: self.best.is_beaten_by(overall)):
            write = self._writer()
            self.processes.by_first(lambda: self.best.keep(overall, write))

    def _log(self, done: _Done, seconds: float, *, validated: bool) -> None:
        """Add the step to the metrics, and tell the trackers."""
        numbers = {
            "loss": done.loss,
            "rate": self.optimizer.param_groups[0]["lr"],
            "norm": done.norm,
            **(self.reached if validated else {}),
        }
        step = self.state.step

        def write() -> None:
            log(self.folder, {"step": step, **numbers, "seconds": round(seconds, 4)})
            self.trackers.log(step, {**numbers, "tokens_per_second": done.tokens / seconds})

        self.processes.by_first(write)

    def _checkpoint(self) -> None:
        self.saver.checkpoint(self.folder / CHECKPOINTS, self.state, self.streams)

    def _writer(self) -> Callable[[Path], None]:
        """What writes the coprocessor, with what it has reached."""
        seconds = round(self.state.seconds)
        return self.saver.writer({"step": self.state.step, **self.reached, "seconds": seconds})
