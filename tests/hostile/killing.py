"""The loop that kills a command until its work is done.

    command --SIGKILL at a random moment--> the same command --...--> what no kill would have given

A kill falls a random share of the work's own time after the process has begun to work: after it
changed something in the folder, or sent its first request. One in eight falls anywhere, into
imports too. All the while, each file under a final name must be whole.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watch import GLANCE, Tally, Watch, snapshot

PROGRAM = "import sys; from deliberate.cli.main import main; sys.exit(main())"
ANYWHERE = 1 / 8
"""Share of the kills that fall anywhere, from the process's first moment on."""


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
        found = command.result(command.folder)
        if found != expected:
            tally.differences.append(f"after {tally.kills} kills: {differing(expected, found)}")
    return tally


def differing(one: Any, other: Any) -> str:
    """Which keys of two results differ."""
    keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return ", ".join(map(str, keys))
