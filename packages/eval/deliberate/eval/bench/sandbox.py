"""Runs programs that a model wrote, one process each, as confined as an ordinary user can.

    program --confined.py, in namespaces of its own--> did it end without an error?

What is prevented and what is not is in docs/benchmarks.md.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

SECONDS = 8.0
"""Most wall time of one program, its start included."""

_SCRIPT = Path(__file__).with_name("confined.py")
_ENVIRONMENT = {"PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_NAMESPACES = [
    "--user",
    "--map-current-user",
    "--net",
    "--ipc",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child",
]


def passes(program: str, *, seconds: float = SECONDS) -> bool:
    """Whether a Python program ends by itself, in time and without an error.

    Args:
        program: Its text.
        seconds: Most wall time.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*_namespaces(), sys.executable, "-I", "-B", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": folder, "PATH": os.defpath, **_ENVIRONMENT},
            start_new_session=True,
        )
        try:
            process.communicate(program.encode(errors="replace"), timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    return process.returncode == 0


def without_network() -> bool:
    """Whether programs run without a network, other processes or a way to reach them."""
    return bool(_namespaces())


@cache
def _namespaces() -> tuple[str, ...]:
    """What gives a process namespaces of its own, where this machine lets an ordinary user."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, *_NAMESPACES)
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
