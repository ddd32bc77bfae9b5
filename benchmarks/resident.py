"""How far resident memory rises, each time in a process of its own.

    rises(names) --the same script, once a name--> asked() --rise(run)--> bytes

The processes give memory back as soon as it is freed, so that what is measured is what was
needed and not what was held.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_CHILD = "MEASURE_IN_THIS_PROCESS"
_GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc's settings."""


def rises(names: Iterable[str]) -> dict[str, int]:
    """What this script prints with its own arguments when each name is asked of it."""
    environment = {**os.environ, **_GIVING_BACK}
    found = {}
    for name in names:
        command = [sys.executable, *sys.argv, _CHILD, name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        found[name] = int(done.stdout)
    return found


def asked() -> str:
    """The name that is to be measured in this process, taken from the arguments; or nothing."""
    if sys.argv[-2:-1] != [_CHILD]:
        return ""
    name = sys.argv.pop()
    sys.argv.pop()
    return name


def rise(run: Callable[[], object]) -> int:
    """Bytes by which a run lifts this process's resident memory at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    # `getrusage` would do if it did not begin at the peak of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
