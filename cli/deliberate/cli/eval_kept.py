"""Where `deliberate eval` keeps what it measured: with its run, in one JSON file, or as a report.

-o NAME.json --> one file;  -o FOLDER --> a report, task by task;  neither --> RUN/eval.json
"""

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deliberate.cli.eval_names import EMBEDDED_RUNS, REPORT_FILE
from deliberate.cli.terminal import note

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.eval import Subject
    from deliberate.eval.results import Results

FILES = {"perplexity": "eval.json", "problems": "problems.json", "cost": "cost.json"}
"""By task, in the folder of the run that was measured."""

REPORT, PAGE, MARKDOWN = "report", "report.html", "report.md"
PLOTS = ("change*.png", "gate*.png", "latency.png", "problems-*.png", "quality-*.png")
"""What a report's plots are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where results go."""

    folder: Path | None = None
    """Of a report."""

    file: Path | None = None
    """Of one JSON object."""

    resume: bool = False
    """Whether to go on with the report that is in the folder."""


def place(
    output: Path | None, runs: Sequence[str], tasks: Sequence[str], *, force: bool, resume: bool
) -> Place:
    """Where results go, once it is known that they may.

    Args:
        output: As `-o` names it.
        runs: What is measured.
        tasks: What of it.
        force: Whether results that are there may be replaced.
        resume: Whether they may be gone on with.

    Raises:
        FileExistsError: something is there.
        IsADirectoryError: a folder is where a file is to be.
        OSError: it cannot be written.
        typer.BadParameter: there is nothing to go on with.
    """
    if force and resume:
        raise typer.BadParameter("--force begins anew and --resume goes on: leave out one")
    own = _own_folder(runs)
    if output is None and own is not None and len(tasks) > 1:
        output = own / REPORT
    if output is not None and output.suffix != ".json":
        return _report(output, force=force, resume=resume)
    if resume:
        raise typer.BadParameter("--resume goes on with a report or with benchmarks: add -o FOLDER")
    if output is None:
        file = own / FILES[tasks[0]] if own is not None and len(tasks) == 1 else None
        if file is not None:
            _check_writable(file.parent)
        return Place(file=file)
    if output.is_dir():
        raise IsADirectoryError(
            f"{str(output)!r} is a folder, and a name that ends in .json means a file: name another"
        )
    if output.exists() and not force:
        raise FileExistsError(f"{str(output)!r} exists: add --force, or name another file with -o")
    _check_writable(output.parent)
    return Place(file=output)


def alone(folder: Path | None) -> AbstractContextManager[object]:
    """Keep other processes out of a report's folder, if there is one.

    Args:
        folder: Made if it is missing.
    """
    from deliberate.core.folder_lock import FolderLock

    return nullcontext() if folder is None else FolderLock(folder)


def write_file(path: Path, result: dict[str, Any]) -> None:
    """Write one JSON object, the whole file or nothing."""
    from deliberate.core.atomic import write_bytes

    write_bytes(path, (json.dumps(result, indent=2) + "\n").encode())
    note(f"wrote {path}")


def tried(write: Callable[[], None]) -> OSError | None:
    """Write, or learn what hinders it: what took hours to measure is shown all the same."""
    try:
        write()
    except OSError as error:
        return error
    return None


class Kept:
    """A report's folder, which is written anew after each task.

    Where it cannot be written, it is tried again after the next task, and at the end.
    """

    def __init__(
        self,
        folder: Path,
        base: "Base",
        subjects: "Sequence[Subject]",
        *,
        command: str,
        names: Sequence[str],
        resume: bool,
    ) -> None:
        """Begin a report, or go on with one.

        Args:
            folder: Of the report.
            base: The frozen model.
            subjects: The coprocessors.
            command: What was typed.
            names: What the runs are called.
            resume: Whether what the folder holds is gone on with.
        """
        from deliberate.eval.results import Results

        new = Results.new(base, subjects, command, names=names)
        self._folder, self._results = folder, Results.read(folder, like=new) if resume else new
        self._written = self._unkept = False

    def result(self, task: str, settings: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """What a task came to, measured only if it was not.

        Args:
            task: Its name.
            settings: What has to be the same.
            measure: Gives plain values.
        """
        if self._results.done(task, settings):
            note(f"{task}: measured before, kept")
        else:
            note(f"{task}: measuring")
            self._measure(task, settings, measure)
        return self._results.tasks[task]["result"]

    def by_run(
        self, task: str, settings: dict[str, Any], measures: Sequence[Callable[[], list[Any]]]
    ) -> Any:
        """The same of a task that measures run after run, each of them kept once it is measured.

        Args:
            task: Its name.
            settings: What has to be the same.
            measures: Of each run in turn, a list of one.
        """
        found = list(self._results.begun(task, settings) or [])
        if found:
            note(f"{task}{_of_runs(self._results, task)}: measured before, kept")
        for measure in measures[len(found) :]:
            which = f" run {len(found) + 1} of {len(measures)}" if len(measures) > 1 else ""
            note(f"{task}: measuring{which}")
            found = self._measure(task, settings, measure, before=found)
        return self._results.tasks[task]["result"]

    def _measure(
        self,
        task: str,
        settings: dict[str, Any],
        measure: Callable[[], Any],
        *,
        before: Sequence[Any] = (),
    ) -> Any:
        """Measure and keep, with what was measured of the runs before."""
        if task in self._results.tasks and not before:
            note(f"{task}: in place of what was measured before, with other settings")
        began = time.monotonic()
        found = measure()
        spent = time.monotonic() - began
        earlier = self._results.tasks[task]["seconds"] if before else 0.0
        found = [*before, *found] if before else found
        self.add(task, settings, found, seconds=earlier + spent)
        where = "not kept yet" if self._unkept else f"kept in {self._folder}"
        note(f"{task}: done in {spent:,.0f} s, {where}")
        return found

    def add(self, task: str, settings: dict[str, Any], found: object, *, seconds: float) -> None:
        """Take in what was measured, and write the report if it can be written.

        Args:
            task: Its name.
            settings: What has to be the same.
            found: Plain values.
            seconds: How long it took.
        """
        self._results.add(task, settings, seconds=seconds, result=found)
        self._unkept = tried(self._write) is not None

    @contextmanager
    def way_on(self, wanted: Mapping[str, Mapping[str, Any]]) -> Generator[None]:
        """Tell how to go on, if what is done meanwhile is interrupted.

        Args:
            wanted: Settings by task, of all that the command measures.

        Raises:
            KeyboardInterrupt: as it came.
        """
        try:
            yield
        except KeyboardInterrupt:
            note(self._way_on(wanted))
            raise

    def _way_on(self, wanted: Mapping[str, Mapping[str, Any]]) -> str:
        """What of this command's tasks the folder holds, and how to go on with it."""
        done = ", ".join(self._in_folder(wanted))
        if done:
            return f"interrupted; kept are {done}: go on with the same command and --resume"
        if self._unkept:
            return "interrupted, and what was measured before could not be kept"
        if (self._folder / REPORT_FILE).exists():
            return (
                "interrupted, and nothing new is kept yet: go on with the same command and --resume"
            )
        return "interrupted, and nothing is kept yet: give the same command again"

    def _in_folder(self, wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Tasks that `--resume` would not measure again, as the document in the folder has them.

        What is in memory may not have been written, and what the folder holds of other settings is
        measured anew.
        """
        from deliberate.core.errors import DeliberateError
        from deliberate.eval.results import Results

        try:
            there = Results.read(self._folder, like=self._results)
        except DeliberateError:  # there is none, or one of other runs that was to be replaced
            return []
        return [
            f"{task}{_of_runs(there, task)}"
            for task, settings in wanted.items()
            if there.begun(task, settings) is not None
        ]

    def finish(self) -> None:
        """See that the page is there, also where nothing was left to be measured.

        Raises:
            OSError: it cannot be written.
        """
        if self._unkept or not self._written:
            self._write()
        note(f"wrote {self._folder / PAGE}")

    def _write(self) -> None:
        """Write the report, before an interrupt takes effect too; a second one leaves it.

        Raises:
            KeyboardInterrupt: as it came.
        """
        try:
            self._results.write(self._folder)
        except KeyboardInterrupt:
            note("interrupted; the report is written first (Ctrl-C again leaves it)")
            self._results.write(self._folder)
            raise
        self._written = True


def _of_runs(results: "Results", task: str) -> str:
    """Of how many runs a task was measured, if not of all."""
    if not results.lacks_runs(task):
        return ""
    return f" of {len(results.tasks[task]['result'])} of {len(results.runs)} runs"


def _own_folder(runs: Sequence[str]) -> Path | None:
    """The folder of the one run that is measured; several runs' results are in none of theirs."""
    run, *more = runs
    return None if more or run in EMBEDDED_RUNS or not Path(run).is_dir() else Path(run)


def _check_writable(folder: Path) -> None:
    from deliberate.core.atomic import check_writable  # late, for it takes seconds

    check_writable(folder)


def _report(folder: Path, *, force: bool, resume: bool) -> Place:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(
            f"{str(folder)!r} is a file: name a folder for a report, or a file that ends in .json"
        )
    there = (folder / REPORT_FILE).exists()
    foreign = [name for names in (PAGE, MARKDOWN, *PLOTS) for name in folder.glob(names)]
    if foreign and not there and not force:
        raise FileExistsError(
            f"{str(foreign[0])!r} is of no report, which has a {REPORT_FILE} beside it: "
            "name another folder with -o, or write over it with --force"
        )
    if there and not (force or resume):
        raise FileExistsError(
            f"{str(folder)!r} holds a report: go on with --resume, add --force, or name another "
            "folder with -o"
        )

    _check_writable(folder)
    from deliberate.eval.report_folder import require_report  # late, for it takes seconds

    require_report()
    return Place(folder=folder, resume=resume and there)
