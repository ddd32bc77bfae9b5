"""Commands that are killed, again and again, until their work is done. `make torture` runs it.

    command --SIGKILL at a random moment--> the same command --...--> what no kill would have given

A kill falls a random share of the work's own time after the process has begun to work: after it
changed something in the folder, or sent its first request. One in eight falls anywhere, into
imports too. All the while, each file under a final name must be whole.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = "import sys; from deliberate.cli.main import main; sys.exit(main())"
ANYWHERE = 1 / 8
"""Share of the kills that fall anywhere, from the process's first moment on."""


def load(path: Path) -> Any:
    """A module beside the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # which dataclasses look for
    spec.loader.exec_module(module)
    return module


watch = load(Path(__file__).with_name("watch.py"))
Watch, check_whole, snapshot = watch.Watch, watch.check_whole, watch.snapshot
GLANCE = watch.GLANCE


@dataclass
class Command:
    """What is run, where it leaves what, and what of that is compared."""

    arguments: list[str]
    folder: Path
    """Begun without, and watched."""

    result: Callable[[Path], Any]
    """What the folder holds, without times."""

    environment: dict[str, str] = field(default_factory=dict)
    signs: Callable[[], object] | None = None
    """Changes once the work has begun; none is the folder's content."""

    reset: Callable[[], None] = lambda: None
    """Undoes what was done elsewhere than in the folder."""

    forks: Any = None
    """Begins its processes sooner, if there is one: `forked.Forks`."""

    def surroundings(self) -> dict[str, str]:
        """What its processes find in their environment."""
        return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | self.environment


@dataclass
class Tally:
    """What a loop came to."""

    kills: int = 0
    at_work: int = 0
    """Kills after the work had begun and before it was done."""
    runs: int = 0
    restarts: int = 0
    glances: int = 0
    differences: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of numbers."""
        return (
            f"{self.kills} kills ({self.at_work} at work), {self.restarts} restarts, "
            f"{self.runs} results compared, {len(self.differences)} differences, "
            f"{len(self.partial)} partial files in {self.glances:,} glances"
        )


def begin(command: Command, *, whole: bool = False) -> Any:
    """Start a command's process, whole or where that is possible with its imports done."""
    if command.forks and not whole:
        return command.forks.begin(command.arguments)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command.arguments],
        env=command.surroundings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def signs(command: Command) -> object:
    """What changes once the work has begun."""
    return command.signs() if command.signs else snapshot(command.folder)


def finish(process: Any) -> None:
    """Wait for a process's good end.

    Raises:
        RuntimeError: it failed.
    """
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"ended with {process.returncode}: {said[-2000:]}")


def timed(command: Command) -> tuple[Any, float, float]:
    """Run without a kill: the result, seconds before the work, and seconds of the work."""
    start, before, process = time.monotonic(), signs(command), begin(command)
    began = None
    while process.poll() is None:
        if began is None and signs(command) != before:
            began = time.monotonic()
        time.sleep(GLANCE)
    finish(process)
    began = began or time.monotonic()
    return command.result(command.folder), began - start, time.monotonic() - began


def killed(command: Command, rng: random.Random, idle: float, work: float) -> tuple[str, float]:
    """Run once and kill at a random moment.

    Returns:
        `done` where it was too late, else where it fell; and seconds of work until then.
    """
    anywhere = rng.random() < ANYWHERE
    before, process = signs(command), begin(command, whole=anywhere)
    wait = rng.random() * (idle + work if anywhere else work)
    start = None if not anywhere else time.monotonic()
    while process.poll() is None:
        if start is None and signs(command) != before:
            start = time.monotonic()
        if start is not None and time.monotonic() - start >= wait:
            process.kill()
            process.communicate()
            return "at work" if signs(command) != before else "killed", 0.0
        time.sleep(GLANCE / 4)
    finish(process)
    return "done", time.monotonic() - start if start is not None and not anywhere else work


def torture(command: Command, *, kills: int, seed: int) -> Tally:
    """Kill a command so many times, and compare each time that it came to its end."""
    tally, rng = Tally(), random.Random(seed)

    def fresh() -> None:
        shutil.rmtree(command.folder, ignore_errors=True)
        command.reset()

    fresh()
    with Watch(command.folder, tally):
        expected, idle, work = timed(command)
    while tally.kills < kills:
        fresh()
        first = True
        with Watch(command.folder, tally) as watch:
            while True:
                tally.restarts += not first
                first = False
                if tally.kills == kills:
                    finish(begin(command))
                    break
                outcome, spent = killed(command, rng, idle, work)
                if outcome == "done":
                    work = min(work, spent)  # the machine is less busy than it was
                    break
                tally.kills += 1
                tally.at_work += outcome == "at work"
                watch.look()
        tally.runs += 1
        print(f"  {tally.kills} kills, {tally.runs} results", file=sys.stderr, flush=True)  # noqa: T201
        found = command.result(command.folder)
        if found != expected:
            tally.differences.append(f"after {tally.kills} kills: {differing(expected, found)}")
    return tally


def differing(one: Any, other: Any) -> str:
    """Which keys of two results differ."""
    keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return ", ".join(map(str, keys))


def without_times(value: Any) -> Any:
    """JSON without what no two runs have alike."""
    if isinstance(value, dict):
        times = ("seconds", "finished", "made", "checksum")
        return {key: without_times(each) for key, each in value.items() if key not in times}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def of_run(folder: Path) -> dict[str, Any]:
    """A run's weights to the last bit, and what it says of itself."""
    result: dict[str, Any] = {"files": sorted(snapshot(folder))}
    for name in ("model.safetensors", "best/model.safetensors", "recipe.yaml"):
        result[name] = (folder / name).read_bytes()
    for name in ("config.json", "best/config.json"):
        result[name] = without_times(json.loads((folder / name).read_text()))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return result | {"metrics": [without_times(json.loads(line)) for line in lines]}


def of_caches(folder: Path) -> dict[str, Any]:
    """Each cache file's header and numbers; the order within the header is not fixed."""
    found = {}
    for path in sorted(folder.glob("*.st")):
        content = path.read_bytes()
        [size] = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        numbers = {
            name: content[8 + size :][slice(*part["data_offsets"])]
            for name, part in header.items()
            if name != "__metadata__"
        }
        found[path.name] = header["__metadata__"], numbers
    return found


def of_report(folder: Path) -> dict[str, Any]:
    """What a report has measured, and its files."""
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    tasks.pop("cost")  # nothing but times
    return {"files": sorted(snapshot(folder)), **without_times(tasks)}


def commands(work: Path, hub: Any, names: list[str]) -> dict[str, Command]:
    """The commands that are killed, on nano, and what they need beforehand."""
    rng = random.Random(0)
    words = ["def", "return", "value", "list", "import", "(x)", "=", "0.5", "\n"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(20, 90))) for _ in range(160)]
    rows, text = work / "rows.jsonl", work / "texts.txt"
    rows.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    text.write_text("\n".join(texts))
    caches = ["prefill", "--jsonl", str(rows), "--batch", "4", "-o"]
    recipe = {
        "base": {"id": "nano", "dtype": "float32"},
        "data": {"train": str(text), "length": 64},
        "coprocessor": {"latents": 2},
        "objective": {"ahead": 4, "anchors": 8},
        "train": {
            "steps": 40,
            "batch": 2,
            "keep": 2,
            "checkpoint_every": 3,
            "validate_every": 5,
        },
        "eval": {"texts": 4, "anchors": 4, "ahead": 4},
    }
    settings = work / "recipe.yaml"
    settings.write_text(json.dumps(recipe))  # which is YAML too
    report = (
        "eval nano --suite quick --repeats 1 --prompt-tokens 32 --decoded-tokens 4 --texts 16 "
        "--anchors 4 --length 64 --problems symbols --steps 1-2 --count 4 --delay 0 "
        "--against shuffled,zero --resume -o"
    )
    home = {"HF_HOME": str(work / "home"), "XDG_CACHE_HOME": str(work / "hashes")}
    if "augment" in names:
        made = Command([*caches, str(work / "plain")], work / "plain", of_caches, home)
        finish(begin(made))
    known = {
        "train": Command(
            ["train", str(settings), "--output-dir", str(work / "run"), "--resume"],
            work / "run",
            of_run,
            home,
        ),
        "prefill": Command([*caches, str(work / "caches")], work / "caches", of_caches, home),
        "augment": Command(
            ["augment", str(work / "plain"), "--batch", "4", "-o", str(work / "augmented")],
            work / "augmented",
            of_caches,
            home,
        ),
        "eval": Command([*report.split(), str(work / "report")], work / "report", of_report, home),
    }
    if "push" in names:
        known["push"] = Command(
            ["push", "nano", "someone/nano", "--without-evaluation"],
            work / "nothing",
            lambda _: dict(hub.repositories["someone/nano"].at("main").files),
            home | hub.environment(work / "home") | {"HF_HUB_OFFLINE": "0"},
            signs=lambda: len(hub.requests),
            reset=hub.forget,
        )
    return {name: known[name] for name in names}


def main() -> int:
    """Kill commands, and print a line for each; 1 where a result differs or a file was partial."""
    names = ["train", "prefill", "augment", "eval", "push"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", default=names, metavar="COMMAND")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--forked", action="store_true", help="Fork from a process that has torch imported."
    )
    asked = parser.parse_args()
    stand_in = load(Path(__file__).parents[1] / "hub_stand_in.py")
    forked = load(Path(__file__).with_name("forked.py"))
    failed = False
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(stand_in.hub_stand_in())
        for name, command in commands(work, hub, asked.commands).items():
            began = time.monotonic()
            if asked.forked:
                command.forks = stack.enter_context(forked.Forks(command.surroundings()))
            tally = torture(command, kills=asked.kills, seed=asked.seed)
            print(f"{name}: {tally}; {time.monotonic() - began:,.0f} s", flush=True)  # noqa: T201
            for odd in [*tally.differences, *tally.partial]:
                print(f"  {odd}", flush=True)  # noqa: T201
            failed |= bool(tally.differences or tally.partial)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
