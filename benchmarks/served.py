"""`deliberate serve` as a process of its own, on this machine alone.

options --> process --"is served at"--> url, resident memory, metrics, what it logged as an error
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

_ENTRY = """
import os, signal, sys, threading

def alone():
    os.read(0, 1)  # nobody writes there: it ends when whoever started this has ended, killed or not
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=alone, daemon=True).start()
from deliberate.cli.main import main
sys.exit(main())
"""
_SAID = "is served at "
_PATIENCE = 300.0
"""Seconds to begin, and to end: torch is loaded slowly on a busy machine."""


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def resident(self) -> int:
        """Bytes that it holds, without the coprocessor's process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def metrics(self) -> dict[str, float]:
        """Its numbers by their names without `deliberate_`."""
        page = httpx2.get(f"{self.url}/metrics", timeout=_PATIENCE, trust_env=False).text
        lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
        return {name.removeprefix("deliberate_"): float(value) for name, _, value in lines}

    def errors(self) -> list[str]:
        """What it logged as an error."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if json.loads(line)["level"] == "error"]

    def stop(self) -> int:
        """End it as its owner would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """A server until the block ends, or this process does.

    Args:
        folder: For its store and its log.
        options: Of `deliberate serve`.

    Raises:
        SystemExit: it does not begin.
    """
    log = folder / "log"
    command = [sys.executable, "-c", _ENTRY, "serve", "--port", "0"]
    command += ["--store", str(folder / "store"), *options]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=written, stdout=subprocess.DEVNULL
        )
    assert process.stdin is not None
    try:
        yield Served(_address(process, log), process, log)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + _PATIENCE
    while _SAID not in log.read_text():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the server did not begin:\n{log.read_text()}")
        time.sleep(0.1)
    return log.read_text().partition(_SAID)[2].split()[0]
