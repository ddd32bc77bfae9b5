"""What `deliberate eval -o FOLDER` keeps: one document of all that was measured of some runs.

    tasks' results --add--> Results --write--> results.json, report.html, report.md, plots
                       read <--same base, same runs? is a task done?-- a later run

`docs/report.md` is its schema, and says what a later version may change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deliberate.core import plain_json
from deliberate.core.atomic import write_bytes
from deliberate.core.base import Base
from deliberate.core.errors import DeliberateError
from deliberate.eval.finite import finite
from deliberate.eval.made import made_by
from deliberate.eval.report_folder import render
from deliberate.eval.subject import Subject

FORMAT = "deliberate-results"
MOST_BYTES = 256 << 20
"""Of `results.json`, which holds every text's numbers."""

VERSION = 1
FILE = "results.json"

TASKS = ("perplexity", "problems", "cost", "bench")
"""What can be measured, in the order of the report."""


@dataclass(kw_only=True)
class Results:
    """All that was measured of some runs of one base."""

    made: Mapping[str, Any]
    """Versions, machine, command and commit, as `deliberate.eval.made` says them."""

    base: Mapping[str, Any]
    """`id`, `fingerprint` and `parameters`."""

    runs: Sequence[Mapping[str, Any]]
    """Of each `name`, `id`, `fingerprint`, `kind`, `latents`, `setting` and `parameters`."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name of `TASKS`: `settings`, `finished`, `seconds` and `result`."""

    @classmethod
    def new(
        cls, base: Base, subjects: Sequence[Subject], command: str, *, names: Sequence[str] = ()
    ) -> "Results":
        """A document of nothing yet.

        Args:
            base: The frozen model.
            subjects: The coprocessors.
            command: What was typed.
            names: What the runs are called; none is their ids.
        """
        called = names or [subject.trained.id for subject in subjects]
        return cls(
            made=made_by(command, base.device),
            base={
                "id": base.id,
                "fingerprint": base.fingerprint,
                "parameters": base.num_parameters,
            },
            runs=[_run(subject, name) for subject, name in zip(subjects, called, strict=True)],
        )

    @classmethod
    def read(cls, folder: Path, *, like: "Results | None" = None) -> "Results":
        """Read a folder's document.

        Args:
            folder: That holds `results.json`.
            like: What it is to be gone on with: a new document of the same base and runs. What is
                read then says that it is made by this one, and each task done before by what.

        Raises:
            DeliberateError: there is none, it cannot be read, is of another version, or is of
                another base or other runs; names what differs.
        """
        found = cls._parsed(folder)
        if like is None:
            return found
        _check_same(found, like, folder)
        for task in found.tasks.values():
            if found.made != like.made:
                task.setdefault("made", found.made)
        found.made, found.runs = like.made, like.runs
        return found

    @classmethod
    def _parsed(cls, folder: Path) -> "Results":
        path = folder / FILE
        try:
            content = plain_json.read(path, most=MOST_BYTES, finite=False)
            known = content["format"], content["version"]
            if known == (FORMAT, VERSION):
                keys = ("made", "base", "runs", "tasks")
                found = cls(**{key: content[key] for key in keys})
                _check_shape(found)
                return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else f"{error!r}"
            raise DeliberateError(
                f"cannot read {str(path)!r}: {reason}; name a folder that `deliberate eval -o` "
                "wrote, or another one to begin with"
            ) from error
        raise DeliberateError(
            f"{str(path)!r} is {known[0]!r} of version {known[1]!r} and this is for {FORMAT!r} of "
            f"version {VERSION}: choose another folder with -o, or a deliberate that reads it"
        )

    def done(self, task: str, settings: Mapping[str, Any]) -> bool:
        """Whether a task is measured already, with the same settings.

        Args:
            task: A name of `TASKS`.
            settings: All that its result depends on, besides the base and the runs.
        """
        begun = self.begun(task, settings)
        return begun is not None and not self.lacks_runs(task)

    def begun(self, task: str, settings: Mapping[str, Any]) -> Any:
        """What a task came to with the same settings, maybe of the first runs alone, or None.

        Args:
            task: A name of `TASKS`.
            settings: As in `done`.
        """
        there = task in self.tasks and self.tasks[task]["settings"] == _plain(settings)
        return self.tasks[task]["result"] if there else None

    def lacks_runs(self, task: str) -> bool:
        """Whether a task that was begun is of the first runs alone."""
        result = self.tasks[task]["result"]
        return isinstance(result, list) and len(result) < len(self.runs)

    def add(
        self, task: str, settings: Mapping[str, Any], *, seconds: float, result: object
    ) -> None:
        """Keep what was measured, in place of what the same task gave before.

        Args:
            task: A name of `TASKS`.
            settings: As in `done`.
            seconds: How long it took.
            result: Plain values.

        Raises:
            ValueError: there is no such task.
        """
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
        self.tasks[task] = {
            "settings": _plain(settings),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": seconds,
            "result": _plain(result),
        }

    def to_dict(self) -> dict[str, Any]:
        """The document, as `results.json` holds it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "made": self.made,
            "base": self.base,
            "runs": self.runs,
            "tasks": {name: self.tasks[name] for name in TASKS if name in self.tasks},
        }

    def write(self, folder: Path) -> None:
        """Write the document, and then the report of it.

        Args:
            folder: Made if it is not there.

        Raises:
            DeliberateError: what draws the report is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        document = finite(self.to_dict())
        content = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_bytes(folder / FILE, content.encode())
        render(folder, document)


def _run(subject: Subject, name: str) -> dict[str, Any]:
    trained = subject.trained
    config = trained.coprocessor.config
    return {
        "name": name,
        "id": trained.id,
        "fingerprint": trained.fingerprint,
        "kind": config.kind,
        "latents": config.latents if trained.coprocessor.writes_latents else 0,
        "setting": trained.coprocessor.describe(),
        "parameters": trained.coprocessor.num_parameters,
    }


def _check_same(found: Results, like: Results, folder: Path) -> None:
    """See that two documents are of the same base and the same runs in their order.

    Raises:
        DeliberateError: they are not.
    """
    way_out = "choose another folder with -o"
    if len(found.runs) != len(like.runs):
        raise DeliberateError(
            f"{str(folder)!r} holds results of {len(found.runs)} runs and now there are "
            f"{len(like.runs)}: name the same runs, or {way_out}"
        )
    pairs = [("base", found.base, like.base)]
    pairs += [("run", *both) for both in zip(found.runs, like.runs, strict=True)]
    for what, before, now in pairs:
        if before["fingerprint"] != now["fingerprint"]:
            raise DeliberateError(
                f"{str(folder)!r} holds results of {what} {before['id']!r} with fingerprint "
                f"{before['fingerprint']} and now it is {now['id']!r} with {now['fingerprint']}: "
                f"{way_out}"
            )


def _check_shape(found: Results) -> None:
    """See that a document has what every one has.

    Raises:
        KeyError: something is missing.
        TypeError: something is of another type.
    """
    if not all(isinstance(each, Mapping) for each in (found.made, found.base, *found.runs)):
        raise TypeError("what made it, its base and its runs must be objects")
    for each in (found.base, *found.runs):
        _ = each["id"], each["fingerprint"]
    for run in found.runs:
        _ = run["name"], run["kind"], run["latents"]
    for task in found.tasks.values():
        _ = task["settings"], task["result"]
        if not isinstance(task["result"], Mapping | list):
            raise TypeError("a task's result must be an object or a list")


def _plain(value: object) -> Any:
    """A value as JSON gives it back, so that tuples and lists compare as the same."""
    return json.loads(json.dumps(finite(value), allow_nan=False))
