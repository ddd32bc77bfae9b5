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


def begin(command: Command) -> subprocess.Popen:
    """Start a command's process."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command.arguments],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | command.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def signs(command: Command) -> object:
    """What changes once the work has begun."""
    return command.signs() if command.signs else snapshot(command.folder)


def finish(process: subprocess.Popen) -> None:
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


def killed(command: Command, rng: random.Random, idle: float, work: float) -> str:
    """Run once and kill at a random moment: `done` where it was too late, else where it fell."""
    before, process = signs(command), begin(command)
    anywhere = rng.random() < ANYWHERE
    wait = rng.random() * (idle + work if anywhere else work)
    start = None if not anywhere else time.monotonic()
    while process.poll() is None:
        if start is None and signs(command) != before:
            start = time.monotonic()
        if start is not None and time.monotonic() - start >= wait:
            process.kill()
            process.communicate()
            return "at work" if signs(command) != before else "killed"
        time.sleep(GLANCE / 4)
    finish(process)
    return "done"


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
                outcome = killed(command, rng, idle, work)
                if outcome == "done":
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
