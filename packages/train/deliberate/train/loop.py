"""Training: from a recipe to a coprocessor's folder, in one process or several.

recipe --load, refuse what cannot be--> Run --steps--> folder
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from deliberate.core.base import load_base
from deliberate.core.errors import DeliberateError
from deliberate.core.execution import check_execution
from deliberate.train.data import check_room, check_shares, load_passages, load_rows
from deliberate.train.folder import Occupied, check_folder, occupy
from deliberate.train.init import begin
from deliberate.train.plan import check_fits
from deliberate.train.precision import memory_of, settle_dtype
from deliberate.train.processes import Elsewhere, Processes, joined, sharers
from deliberate.train.recipe import Recipe
from deliberate.train.run import Progress, Run
from deliberate.train.sharding import check_sharding
from deliberate.train.signals import stop_signals
from deliberate.train.tracker import Trackers, check_trackers


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_progress: Callable[[Progress], None] = lambda progress: None,
    trackers: Sequence[str] = (),
) -> Path:
    """Train a coprocessor, and write its folder.

    Args:
        recipe: What to train.
        folder: The run's folder; holds the recipe, the metrics, the checkpoints and at the end
            the coprocessor itself.
        resume: Go on from the newest checkpoint in the folder, or begin if there is none.
        device: Where to train. Under `torchrun` each process takes its
            share of every batch, on a CUDA device of its own.
        on_progress: Told of every step, in the first process.
        trackers: Where its numbers are shown besides metrics.jsonl: `tensorboard`, `trackio`. No
            part of the recipe: a run may be resumed with others.

    Raises:
        ValueError: there is no such tracker.
        CheckpointError: the folder holds a run already, or one of another recipe, base or texts.
        FolderInUseError: another process trains in it.
        Elsewhere: the first of several processes failed, in all others.
        Interrupted: a signal asked to stop; a checkpoint was written.
        DeliberateError: the base or the texts cannot be had or do not fit one another, or the
            loss is no number or jumps, or a tracker is not installed.
    """
    folder = Path(folder)
    with joined(device) as processes:
        try:
            processes.by_first(lambda: check_trackers(trackers))
            tracked = Trackers(trackers)
            with closing(Occupied(folder)) as occupied, closing(tracked):
                processes.by_first(occupied.take_if_there)
                _train(
                    recipe,
                    folder,
                    processes,
                    tracked,
                    occupied,
                    resume=resume,
                    on_progress=on_progress,
                )
        except DeliberateError as error:
            if processes.first:
                raise
            raise Elsewhere(str(error)) from error
    return folder


def _train(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    trackers: Trackers,
    occupied: Occupied,
    *,
    resume: bool,
    on_progress: Callable[[Progress], None],
) -> None:
    """Train in this process, beside others if there are any.

    Raises:
        DeliberateError: not all processes find the same checkpoint; and as `train` says.
    """
    device = processes.device
    check_sharding(recipe, processes.count)
    check_shares(recipe, processes.count)
    check_execution(recipe.train.execution, device)
    recipe = settle_dtype(recipe, folder, processes)
    check_fits(recipe, memory_of(device) // sharers(device), devices=processes.count)
    processes.by_first(lambda: check_folder(recipe, folder, resume=resume))
    dtype = getattr(torch, recipe.base.dtype)
    place = "cpu" if recipe.train.shard == "full" else device  # whole it may not fit the device
    base = processes.in_turn(
        lambda: load_base(recipe.base.id, revision=recipe.base.revision, dtype=dtype, device=place)
    )
    check_room(recipe, base)
    rows = processes.in_turn(lambda: load_rows(recipe, base, processes))
    held_out = processes.in_turn(lambda: load_passages(recipe, base))
    coprocessor, init = processes.in_turn(lambda: begin(recipe.coprocessor, recipe.train, base))
    coprocessor.execution = recipe.train.execution
    run = Run(
        recipe,
        folder,
        base=base,
        coprocessor=coprocessor,
        rows=rows,
        held_out=held_out,
        processes=processes,
        trackers=trackers,
        init=init,
    )
    if resume:
        processes.by_all(run.restore)
        step = processes.by_first(lambda: run.state.step)
        if processes.any(step != run.state.step):
            raise DeliberateError(
                f"not all processes find the same checkpoint in {str(folder)!r}: put --output-dir "
                "on a file system that they share"
            )
    processes.by_all(lambda: rows.begin(run.streams))
    # And only now: a run that is refused leaves its folder as it was.
    processes.by_first(lambda: occupy(recipe, folder, occupied, resume=resume))
    processes.by_first(lambda: trackers.open(folder, step=run.state.step))
    with closing(rows), stop_signals() as stop:
        run.go(stop, on_progress if processes.first else lambda progress: None)
