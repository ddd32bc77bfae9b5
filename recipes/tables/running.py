"""Training and measuring what the tables need, a run at a time, by the project's own commands.

run --deliberate train --resume--> build/results/NAME-KEY --deliberate eval-->
docs/results/NAME.json
"""

import fcntl
import json
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from experiments import COST, PAIRS, Experiments, Table
from measured import Measured, read, result_of

from deliberate.core.atomic import write_bytes
from deliberate.core.base import NANO, load_base
from deliberate.core.checkpoint import read_config
from deliberate.core.problems import problems
from deliberate.eval.made import made_by
from deliberate.train.plan import plan
from deliberate.train.recipe import load_recipe

RECIPES = Path(__file__).parent.parent
ROW_TOKENS = 8 * 1024
"""Tokens in a step of `nano_base.py`."""

BASE_SEED = 17
"""Of `nano_base.py`."""


class Failed(Exception):
    """A command that did not end well; it has said why."""


class Maker:
    """Makes measures, and the runs that they are of, where they are not kept yet."""

    def __init__(self, experiments: Experiments, *, kept: Path, work: Path) -> None:
        """Take up what there is.

        Args:
            experiments: What is declared.
            kept: Folder of the JSON files.
            work: Folder of the runs.
        """
        self._experiments, self._kept, self._work = experiments, kept, work
        base = load_base(experiments.common.base.id)
        self.base = base.fingerprint
        work.mkdir(parents=True, exist_ok=True)

    def wanted(self, table: Table) -> list[tuple[str, str]]:
        """What a table needs: runs and measures of them."""
        costs = {COST} & set(self._experiments.measures)
        found = []
        for run in table.runs:
            found += [(run, table.measure)]
            found += [(run, cost) for cost in costs if run in self._experiments.runs]
        return found

    def measure(self, run: str, measure: str) -> None:
        """Make a measure of a run, unless it is kept.

        Raises:
            Failed: a command did not end well.
        """
        key = self._experiments.measured_key(measure, self.base)
        if self._read(run).has(measure, key):
            return
        for other in self._experiments.after(self._experiments.measures[measure]):
            self._train(other)
        self._train(run)
        with self._alone(run):
            kept = self._read(run)
            if kept.has(measure, key):  # by somebody who was here first
                return
            output = self._folder(run).with_suffix(f".{measure}.json")
            command = self._eval(run, measure)
            self._do([*command, "-o", str(output), "--force"])
            kept.measures[measure] = {
                "key": key,
                "command": shlex.join(_shown(command)),
                "made": _made(command),
                "result": result_of(output.read_text()),
            }
            kept.write(self._kept)

    def place(self, name: str) -> str:
        """Where a run is, or a file of pairs, which is made where it is not there."""
        return str(self._pairs(name) if name in PAIRS else self._folder(name))

    def _train(self, run: str) -> None:
        """Train a run, from where it stands.

        One whose weights are no longer here is measured again too: all numbers of a run are of the
        same weights.

        Raises:
            Failed: it did not end well.
        """
        base = run in self._experiments.bases
        if not base:
            for other in self._experiments.after(json.dumps(dict(self._experiments.runs[run]))):
                self._train(other)
        with self._alone(run):
            folder, kept = self._folder(run), self._read(run)
            command = self._base_command(run) if base else self._train_command(run)
            again: list[str] = []
            if not self._is_here(run):
                self._do(command, ledger=folder.with_suffix(".cpu"))
                again = [name for name in self._experiments.measures if name in kept.measures]
                kept = Measured(name=run, key=kept.key)
            if not kept.training:
                spent = _spent(folder.with_suffix(".cpu"))
                kept.training = {
                    "command": shlex.join(_shown(command)),
                    "made": _made(command),
                    "cpu_seconds": spent or None,
                    **(_base_training(folder) if base else _training(folder)),
                }
                kept.write(self._kept)
        for measure in again:
            self.measure(run, measure)

    def _is_here(self, run: str) -> bool:
        """Whether a run's weights are in the folder of runs."""
        last = "corpus.json" if run in self._experiments.bases else "config.json"
        return (self._folder(run) / last).exists()

    def _train_command(self, run: str) -> list[str]:
        changes = self._experiments.changes(run, self.place)
        said = [part for change in changes for part in ("--set", change)]
        return [
            *_deliberate("train"),
            _near(self._experiments.budget),
            *said,
            "--output-dir",
            str(self._folder(run)),
            "--resume",
        ]

    def _base_command(self, name: str) -> list[str]:
        """The base's own recipe, with its tokenizer and as much text, and other layers."""
        own = NANO / "base"
        corpus = json.loads((own / "corpus.json").read_text())
        folder = self._folder(name)
        command = [sys.executable, _near(RECIPES / "nano_base.py"), "--tokenizer", _near(own)]
        command += ["--layers", str(self._experiments.bases[name]["layers"])]
        command += ["--output", str(folder), "--work", str(folder.with_suffix(".work"))]
        if "mixture" in corpus:
            mixture = ",".join(f"{part}={share:g}" for part, share in corpus["mixture"].items())
            command += ["--mixture", mixture]
            command += ["--steps", str(round(corpus["tokens_read"] / ROW_TOKENS))]
        return command

    def _eval(self, run: str, measure: str) -> list[str]:
        arguments = shlex.split(self._experiments.arguments(measure, self.place))
        folder = str(self._folder(run))
        if run in self._experiments.runs:
            return [*_deliberate("eval"), folder, *arguments]
        script = _near(Path(__file__).with_name("bigger_base.py"))
        base = self._experiments.common.base.id
        length = str(self._experiments.common.data.length)
        return [sys.executable, script, base, folder, "--length", length, *arguments]

    def _read(self, run: str) -> Measured:
        return read(self._kept, run, self._experiments.key(run, self.base))

    def _folder(self, run: str) -> Path:
        return self._work / f"{run}-{self._experiments.key(run, self.base)}"

    def _pairs(self, name: str) -> Path:
        """A file of questions and answers, one family's, all numbers of steps in turn."""
        path, said = self._work / name, self._experiments.pairs
        split = Path(name).stem.removeprefix("pairs-")
        kinds = [problems(said["family"], steps=each, split=split) for each in said["steps"]]
        rows = [next(kinds[number % len(kinds)]) for number in range(said[split])]
        lines = [json.dumps({"question": row.question, "answer": row.answer}) for row in rows]
        content = ("\n".join(lines) + "\n").encode()
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
        return path

    @contextmanager
    def _alone(self, run: str) -> Generator[None]:
        """Wait until nobody else works on a run, and keep others from it."""
        with self._folder(run).with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _do(self, command: list[str], *, ledger: Path | None = None) -> None:
        """Run a command to its end, and note the processor time that it took.

        Args:
            command: The program and its arguments.
            ledger: A file of seconds that is added to, also where the command is stopped.

        Raises:
            Failed: it did not end well.
        """
        print(f"$ {shlex.join(_shown(command))}", file=sys.stderr, flush=True)  # noqa: T201
        before = _children_seconds()
        try:
            code = _waited(command)
        finally:
            if ledger is not None:
                spent = _spent(ledger) + _children_seconds() - before
                write_bytes(ledger, f"{spent:.1f}\n".encode())
        if code:
            raise Failed(f"{shlex.join(_shown(command))} ended with {code}")


def _waited(command: list[str]) -> int:
    """The exit status; a signal to stop reaches the command, which writes a checkpoint first.

    Raises:
        KeyboardInterrupt: as it came.
        SystemExit: this was asked to stop.
    """

    def stop(*_: object) -> NoReturn:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:  # of the terminal, which told the command too
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _training(folder: Path) -> dict[str, Any]:
    """What a run took, and its validations."""
    recipe = load_recipe(folder / "recipe.yaml")
    found = plan(recipe)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": recipe.train.steps,
        "seed": recipe.train.seed,
        "seconds": read_config(folder)["recipe"]["reached"]["seconds"],
        "flops": sum(found.flops.values()) * found.steps,
        "parameters": found.parameters["trained"],
        "validations": [
            {key: line[key] for key in ("step", "change_percent")}
            for line in lines
            if "change_percent" in line
        ],
    }


def _base_training(folder: Path) -> dict[str, Any]:
    """What a base took: six FLOPs a weight and token."""
    tokens = json.loads((folder / "corpus.json").read_text())["tokens_read"]
    weights = load_base(str(folder)).num_parameters
    return {
        "steps": tokens // ROW_TOKENS,
        "seed": BASE_SEED,
        "seconds": None,
        "flops": 6 * weights * tokens,
        "parameters": weights,
        "validations": [],
    }


def _deliberate(command: str) -> list[str]:
    return [str(Path(sys.executable).with_name("deliberate")), command]


def _made(command: list[str]) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = made_by(shlex.join(_shown(command)), device)
    return {name: value for name, value in made.items() if name != "command"}


def _shown(command: list[str]) -> list[str]:
    """A command as somebody would type it."""
    return [Path(command[0]).name, *command[1:]]


def _near(path: Path) -> str:
    """A path from here, where it is below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _spent(ledger: Path) -> float:
    return float(ledger.read_text()) if ledger.exists() else 0.0


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
