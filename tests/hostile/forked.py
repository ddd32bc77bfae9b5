"""Processes that need not import torch each: forked from one that has. `kills.py --forked` uses it.

a command's words --line--> the process that has imported all --fork--> the command
its number, and its exit code once it has ended <--lines--
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

IMPORTED = (
    "torch", "transformers", "datasets", "huggingface_hub", "deliberate.core", "deliberate.train",
    "deliberate.eval", "deliberate.eval.report_folder", "deliberate.cli.main",
)  # fmt: skip


class Forks:
    """Begins commands' processes, which all find the same environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=pipe, stdout=pipe, bufsize=0
        )
        assert self.line() == "ready"

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()

    def begin(self, arguments: list[str]) -> "Forked":
        """Begin a command; the one before has ended."""
        handle, said = tempfile.mkstemp()
        os.close(handle)
        asked = json.dumps({"arguments": arguments, "said": said})
        self._parent.stdin.write(f"{asked}\n".encode())
        return Forked(self, int(self.line()), Path(said))

    def line(self) -> str:
        """What comes next from the parent of all."""
        return self._parent.stdout.readline().decode().strip()  # unbuffered, for `has_line`

    def has_line(self) -> bool:
        """Whether it has said something."""
        return bool(select.select([self._parent.stdout], [], [], 0)[0])


class Forked:
    """A command's process: of `subprocess.Popen` what the loop needs."""

    def __init__(self, forks: Forks, pid: int, said: Path) -> None:
        self._forks, self._pid, self._said = forks, pid, said
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or none while it runs."""
        if self.returncode is None and self._forks.has_line():
            self.returncode = int(self._forks.line())
        return self.returncode

    def kill(self) -> None:
        """Kill it, if it has not ended just now."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> tuple[None, str]:
        """Wait for its end, and give what it said."""
        if self.returncode is None:
            self.returncode = int(self._forks.line())
        said = self._said.read_text()
        self._said.unlink()
        return None, said


def become(arguments: list[str], said: str) -> None:
    """Be a command's process, from here to its end."""
    from deliberate.cli.main import main

    nowhere = os.open(os.devnull, os.O_RDWR)
    told = os.open(said, os.O_WRONLY)
    for source, target in ((nowhere, 0), (nowhere, 1), (told, 2)):
        os.dup2(source, target)
    code = 1
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Fork a command for each line that comes."""
    for name in IMPORTED:
        __import__(name)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(**json.loads(line))
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
