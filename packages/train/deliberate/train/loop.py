"""The training loop: one pass over many anchors, gradients into the coprocessor alone.

    rows --base, no gradient--> Reading --coprocessor--> latents --base--> loss by token ahead

Source: arXiv:2412.17747, sections 2.2 and 2.3. The optimizer, its rates and the precision are
not in the paper.
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
from torch.nn.utils import clip_grad_norm_

from deliberate.core.base import Base, load_base
from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.execution import check_execution
from deliberate.core.kinds import build
from deliberate.core.measure import AHEAD_REPORTED, Condition, Passage, measure
from deliberate.train.checkpoint import State, found, path_of, restore, save_checkpoint
from deliberate.train.data import (
    batches,
    check_room,
    fingerprint_of_rows,
    load_passages,
    load_rows,
)
from deliberate.train.folder import CHECKPOINTS, forget_after, holds_run, log, occupy
from deliberate.train.optimizer import make_optimizer, set_rate
from deliberate.train.precision import settle_dtype
from deliberate.train.recipe import Recipe
from deliberate.train.signals import stop_signals


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


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a coprocessor, and write its folder.

    Args:
        recipe: What to train.
        folder: The run's folder; holds the recipe, the metrics, the checkpoints and at the end
            the coprocessor itself.
        resume: Go on from the newest checkpoint in the folder, or begin if there is none.
        device: Where to train.
        on_progress: Told of every step.

    Raises:
        CheckpointError: the folder holds a run already, or one of another recipe, base or texts.
        Interrupted: a signal asked to stop; a checkpoint was written.
        DeliberateError: the base or the texts cannot be had or do not fit one another, or the
            loss is no number.
    """
    folder = Path(folder)
    recipe = settle_dtype(recipe, folder, device=device)
    check_execution(recipe.train.execution, torch.device(device))
    begun = holds_run(recipe, folder, resume=resume)
    dtype = getattr(torch, recipe.base.dtype)
    base = load_base(recipe.base.id, revision=recipe.base.revision, dtype=dtype, device=device)
    check_room(recipe, base)
    rows, held_out = load_rows(recipe, base), load_passages(recipe, base)
    torch.manual_seed(recipe.train.seed)
    coprocessor = build(recipe.coprocessor, base).float()
    coprocessor.execution = recipe.train.execution
    run = _Run(recipe, folder, base, coprocessor, rows, held_out)
    if resume:
        run.restore()
    if not begun:  # and only now: a run that is refused leaves its folder free
        occupy(recipe, folder)
    with stop_signals() as stop:
        run.go(stop, on_progress)
    return folder


class _Run:
    """One run, from its first step or a later one to its last."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        base: Base,
        coprocessor: Coprocessor,
        rows: Dataset,
        held_out: list[Passage],
    ) -> None:
        self.recipe, self.folder, self.base, self.coprocessor = recipe, folder, base, coprocessor
        self.rows, self.held_out = rows, held_out
        self.optimizer = make_optimizer(coprocessor, recipe)
        self.state = State(
            step=0, seconds=0.0, base=base.fingerprint, rows=fingerprint_of_rows(rows)
        )
        self.reached: dict[str, float] = {}

    def restore(self) -> None:
        """Go back to the newest checkpoint, and forget what was logged after it."""
        whole = found(self.folder / CHECKPOINTS)
        if whole:
            self.state = restore(whole[-1], self.coprocessor, self.optimizer, expected=self.state)
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
            if stop.is_set() and not last:
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
        recipe = self.recipe
        set_rate(self.optimizer, recipe, step)
        total, tokens = 0.0, 0
        for token_ids, anchors in batches(self.rows, recipe, self.base, step=step):
            if stop.is_set():
                self.optimizer.zero_grad()
                return None
            loss = self._loss(token_ids, anchors) / recipe.train.accumulate
            self._check_finite("loss", step + 1, loss.item())
            loss.backward()
            total += loss.item()
            group = 2 * recipe.coprocessor.latents + recipe.objective.ahead - 1
            tokens += token_ids.numel() + anchors.numel() * group
        norm = clip_grad_norm_(self.coprocessor.parameters(), recipe.train.clip)
        self._check_finite("norm of the gradient", step + 1, norm.item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, tokens

    def _loss(self, token_ids: Tensor, anchors: Tensor) -> Tensor:
        """Mean loss of a batch's ahead tokens."""
        with self._precision():
            reading = self.base.read(token_ids)
            objective = self.recipe.objective
            return self.coprocessor.losses(
                self.base, reading, anchors, ahead=objective.ahead, delay=objective.delay
            ).mean()

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

    def _precision(self) -> Any:
        if self.recipe.base.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.base.device.type, torch.bfloat16)

    def _validate(self) -> dict[str, float]:
        """Change of perplexity against the base, in percent, by token ahead."""
        evaluation = self.recipe.eval
        with self._precision():
            losses = measure(
                self.base,
                {"latents": Condition(writer=self.coprocessor)},
                self.held_out,
                anchors=evaluation.anchors,
                ahead=evaluation.ahead,
                delay=self.recipe.objective.delay,
            )
        change = losses.change_percent("latents")
        self._check_finite("change of perplexity", self.state.step, *change)
        reported = [token for token in AHEAD_REPORTED if token <= evaluation.ahead]
        self.reached = {str(token): round(change[token - 1], 4) for token in reported}
        return self.reached

    def _log(self, loss: float, seconds: float, change: dict[str, float] | None) -> None:
        line: dict[str, Any] = {"step": self.state.step, "loss": loss, "seconds": round(seconds, 4)}
        if change is not None:
            line["change_percent"] = change
        log(self.folder, line)

    def _checkpoint(self) -> None:
        """Write a checkpoint, unless this step has its own already."""
        folder, keep = self.folder / CHECKPOINTS, self.recipe.train.keep
        if path_of(folder, self.state.step) in found(folder):
            return
        save_checkpoint(folder, self.coprocessor, self.optimizer, self.state, keep=keep)

    def _finish(self) -> None:
        about = {
            **self.recipe.to_dict(),
            "reached": {"change_percent": self.reached, "seconds": round(self.state.seconds)},
        }
        save_coprocessor(
            self.coprocessor,
            self.folder,
            base=self.base,
            recipe=about,
            dtype=getattr(torch, self.recipe.train.save_dtype),
        )
