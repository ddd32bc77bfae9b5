"""The training loop: one pass over many anchors, gradients into the coprocessor alone.

    rows --base, no gradient--> Reading --coprocessor--> latents --base--> loss by token ahead

Source: arXiv:2412.17747, sections 2.2 and 2.3. The optimizer, its rates and the precision are
not in the paper.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.atomic import write_bytes
from deliberate.core.base import Base, load_base
from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.kinds import build
from deliberate.core.measure import AHEAD_REPORTED, Condition, Passage, measure
from deliberate.train.checkpoint import State, found, restore, save_checkpoint
from deliberate.train.data import batches, load_passages, load_rows
from deliberate.train.optimizer import make_optimizer, set_rate
from deliberate.train.recipe import Recipe, dump, load_recipe

RECIPE, METRICS, CHECKPOINTS = "recipe.yaml", "metrics.jsonl", "checkpoints"


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
    folder: Path,
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
        CheckpointError: the folder holds a run already, or one of another recipe.
        Interrupted: a signal asked to stop; a checkpoint was written.
        DeliberateError: the base or the texts cannot be had.
    """
    _claim(recipe, folder, resume=resume)
    dtype = getattr(torch, recipe.base.dtype)
    base = load_base(recipe.base.id, revision=recipe.base.revision, dtype=dtype, device=device)
    rows, held_out = load_rows(recipe, base), load_passages(recipe, base)
    torch.manual_seed(recipe.train.seed)
    coprocessor = build(recipe.coprocessor, base).float()
    run = _Run(recipe, folder, base, coprocessor, rows, held_out)
    if resume:
        run.restore()
    with _stop_signals() as stop:
        run.go(stop, on_progress)
    return folder


def _claim(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """Make the run's folder, or see that it is this recipe's.

    Raises:
        CheckpointError: it holds a run and `resume` is off, or a run of another recipe.
    """
    path = folder / RECIPE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, dump(recipe).encode())
        return
    if not resume:
        raise CheckpointError(
            f"{str(folder)!r} holds a run already: go on with --resume, or name another "
            "--output-dir"
        )
    before = load_recipe(path)
    if before != recipe:
        odd = [
            f"{section}.{key}"
            for section, values in recipe.to_dict().items()
            for key, value in values.items()
            if before.to_dict()[section][key] != value
        ]
        raise CheckpointError(
            f"{str(folder)!r} holds a run of another recipe, which differs in {', '.join(odd)}: "
            "resume it as it is, or name another --output-dir"
        )


@contextmanager
def _stop_signals() -> Generator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step under way is finished."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


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
        self.state = State(step=0, seconds=0.0)
        self.reached: dict[str, Any] = {}

    def restore(self) -> None:
        """Go back to the newest checkpoint, and forget what was logged after it."""
        whole = found(self.folder / CHECKPOINTS)
        if whole:
            self.state = restore(whole[-1], self.coprocessor, self.optimizer)
        log = self.folder / METRICS
        if log.exists():
            lines = log.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= self.state.step]
            write_bytes(log, "".join(kept).encode())
            validated = [json.loads(line).get("change_percent") for line in kept]
            self.reached = next((change for change in reversed(validated) if change), {})

    def go(self, stop: threading.Event, on_progress: Callable[[Progress], None]) -> None:
        """Run to the end, and write the coprocessor.

        Raises:
            Interrupted: `stop` was set; a checkpoint was written.
        """
        settings = self.recipe.train
        began = time.perf_counter() - self.state.seconds
        while self.state.step < settings.steps:
            before = time.perf_counter()
            loss, tokens = self._step(self.state.step)
            now = time.perf_counter()
            step = self.state.step + 1
            self.state = State(step=step, seconds=now - began)
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
            if last or step % settings.checkpoint_every == 0 or stop.is_set():
                self._checkpoint()
            if stop.is_set() and not last:
                raise Interrupted(
                    f"stopped after step {step} of {settings.steps}, nothing is lost: go on with "
                    f"`deliberate train --resume --output-dir {self.folder}`"
                )
        self._finish()

    def _step(self, step: int) -> tuple[float, int]:
        """One optimizer step: its loss and the tokens that went through."""
        recipe = self.recipe
        set_rate(self.optimizer, recipe, step)
        total, tokens = 0.0, 0
        for token_ids, anchors in batches(self.rows, recipe, self.base, step=step):
            with self._precision():
                reading = self.base.read(token_ids)
                losses = ahead_losses(
                    self.base,
                    reading,
                    anchors,
                    self.coprocessor(reading, anchors),
                    ahead=recipe.objective.ahead,
                    positions=recipe.coprocessor.positions,
                )
            loss = losses.mean() / recipe.train.accumulate
            loss.backward()
            total += loss.item()
            group = 2 * recipe.coprocessor.latents + recipe.objective.ahead - 1
            tokens += token_ids.numel() + anchors.numel() * group
        torch.nn.utils.clip_grad_norm_(self.coprocessor.parameters(), recipe.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, tokens

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
            )
        change = losses.change_percent("latents")
        reported = [token for token in AHEAD_REPORTED if token <= evaluation.ahead]
        self.reached = {str(token): round(change[token - 1], 4) for token in reported}
        return self.reached

    def _log(self, loss: float, seconds: float, change: dict[str, float] | None) -> None:
        line = {"step": self.state.step, "loss": loss, "seconds": round(seconds, 4)}
        if change is not None:
            line["change_percent"] = change
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _checkpoint(self) -> None:
        keep = self.recipe.train.keep
        folder = self.folder / CHECKPOINTS
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


def _step_of(line: str) -> int:
    """The step of a line of metrics; a line cut short by a crash comes after everything."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return 1 << 62
