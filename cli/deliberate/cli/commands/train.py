"""`deliberate train`: learn a coprocessor."""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.dry_run import show_plan
from deliberate.cli.failures import configuring
from deliberate.cli.models import chosen_device, patient_bars
from deliberate.cli.terminal import emit, note
from deliberate.cli.validations import Validations

if TYPE_CHECKING:
    from deliberate.train import Progress, Recipe

LINES = 10
"""Lines of progress in all where there is no terminal for a bar."""


class TrackerName(StrEnum):
    """Where a run's numbers can be shown."""

    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file, or the name of a recipe that ships: demo, gemma2-2b, ...",
            show_default="a short run on nano and the stdlib",
        ),
    ] = None,
    *,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Change one value of the recipe; may be given again.",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", help="The run's folder.", show_default="runs/BASE-KIND-LATENTS"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")
    ] = False,
    tracker: Annotated[
        list[TrackerName] | None,
        typer.Option(
            help="Show the run's numbers there too, on this machine; may be given again.",
            show_default="metrics.jsonl alone",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what the run would take.")
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="For --dry-run: devices that share each batch.", show_default="1"),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="For --dry-run: FLOPs a second that each device reaches.", show_default="measured"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="For --dry-run: of each device, such as 80GB.", show_default="this one's"
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Train a coprocessor for a frozen base.

    The run's folder gets recipe.yaml (every value as resolved), metrics.jsonl, checkpoints/, the
    best coprocessor so far in best/, and at the end the last one itself. Ctrl-C writes a
    checkpoint; --resume then gives to the last bit what an uninterrupted run would have given.
    With --resume and --output-dir alone the recipe is the run's own. Under `torchrun` the
    processes share each batch, and the first one speaks.
    """  # noqa: DOC501
    from deliberate.core.errors import DeliberateError
    from deliberate.train import Elsewhere, is_first, load_recipe
    from deliberate.train import train as run

    try:
        if not dry_run:
            _check_real(gpus=gpus, rate=rate, memory=memory)
        where = chosen_device(device)
        if resume and output_dir and recipe is None:
            recipe = _own_recipe(output_dir)
        with configuring():
            chosen = load_recipe(recipe, changes=changes or [])
    except (typer.BadParameter, DeliberateError) as error:
        if is_first():
            raise
        raise typer.Exit(1) from error
    if dry_run:
        show_plan(chosen, gpus=gpus or 1, rate=rate, memory=memory, device=where, as_json=as_json)
        return
    folder = output_dir or _default_folder(chosen)
    trackers = list(dict.fromkeys(name.value for name in tracker or []))
    try:
        with patient_bars(), _shown(chosen, folder) as on_progress:
            run(
                chosen,
                folder,
                resume=resume,
                device=where,
                on_progress=on_progress,
                trackers=trackers,
            )
    except Elsewhere as error:  # the first process says it
        raise typer.Exit(1) from error
    if is_first():
        _tell(folder, trackers, as_json=as_json)


def _check_real(**options: object) -> None:
    """See that no option is given that only a dry run has a use for.

    Raises:
        typer.BadParameter: one is.
    """
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"--{name} is for --dry-run: leave it out, or add --dry-run")


def _tell(folder: Path, trackers: list[str], *, as_json: bool) -> None:
    """Say what a run came to, and where everything is."""
    from deliberate.core.checkpoint import read_config
    from deliberate.train import BEST, how_to_show

    config, best = read_config(folder), folder / BEST
    kept = read_config(best)["recipe"]["reached"] if best.exists() else None
    if as_json:
        result = {"folder": str(folder), "coprocessor": config["coprocessor"]}
        emit({
            **result,
            **config["recipe"]["reached"],
            "best": kept and {"folder": str(best), **kept},
        })
        return
    note(f"in {folder}: the coprocessor, recipe.yaml, metrics.jsonl and checkpoints/")
    if kept:
        ahead = min(config["recipe"][name]["ahead"] for name in ("objective", "eval"))
        note(
            f"in {best}: the best one, of step {kept['step']}: {kept['loss_change']:+.4f} nats "
            f"against the base, on average over tokens 1 to {ahead}"
            f"{' (the base is better without it)' if kept['loss_change'] > 0 else ''}"
        )
    for name in trackers:
        note(f"{name}: {how_to_show(name, folder)}")
    note(f"measure it with intervals and controls: deliberate eval {folder}")
    typer.echo(folder)


def _own_recipe(folder: Path) -> Path:
    """The recipe in a run's folder.

    Raises:
        CheckpointError: there is none.
    """
    from deliberate.core.errors import CheckpointError

    path = folder / "recipe.yaml"
    if not path.exists():
        raise CheckpointError(
            f"nothing to resume at {str(folder)!r}: check --output-dir, or begin without --resume"
        )
    return path


def _default_folder(recipe: "Recipe") -> Path:
    name = Path(recipe.base.id).name
    return Path("runs") / f"{name}-{recipe.coprocessor.kind}-{recipe.coprocessor.latents}"


def _announcement(recipe: "Recipe", folder: Path) -> str:
    from deliberate.core.kinds import KINDS
    from deliberate.core.sources import label

    writes = KINDS[recipe.coprocessor.kind].writes_latents
    latents = f" of {recipe.coprocessor.latents} latents" if writes else ""
    return (
        f"training a {recipe.coprocessor.kind!r} coprocessor{latents} for base {recipe.base.id!r} "
        f"on {label(recipe.data.train)!r}: {recipe.train.steps} steps, into {folder}"
    )


@contextmanager
def _shown(recipe: "Recipe", folder: Path) -> Generator[Callable[["Progress"], None]]:
    """Show each step: a bar on a terminal, otherwise a line now and then; and each validation."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    from deliberate.train import is_first

    console = Console(stderr=True)
    every = max(1, recipe.train.steps // LINES)
    recent: deque[float] = deque(maxlen=every)  # one step's loss says more of its texts
    bar = Bar(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not (console.is_terminal and is_first()),
    )
    table = Validations()
    task = bar.add_task("reading texts", total=recipe.train.steps)

    def show(news: "Progress") -> None:
        if not recent:
            console.print(
                _announcement(recipe, folder), markup=False, highlight=False, soft_wrap=True
            )
        left = f"{int(news.seconds_left // 60)}:{int(news.seconds_left % 60):02d} left"
        recent.append(news.loss)
        mean = sum(recent) / len(recent)
        line = f"loss {mean:.4f}  {news.tokens_per_second:,.0f} tokens/s  {left}"
        bar.update(task, completed=news.step, description=line)
        if bar.disable and (news.step % every == 0 or news.step == 1):
            note(f"step {news.step}/{news.steps}  {line}")
        if news.change_percent is not None:
            rows = table.grown(news.step, mean, news.change_percent)
            console.print(rows, highlight=False, soft_wrap=True)

    with bar:
        yield show
