"""Claim: `deliberate --help` answers in less than half a second, and imports no torch.

The time is that of a whole process. Beside it: an interpreter that imports typer and rich and
does nothing, and one that imports torch.

    python benchmarks/startup.py --repeats 15
"""

import argparse
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from ratio import Ratio, in_turn, report

TARGET = 0.5
HEAVY = {"torch", "transformers", "datasets"}


def program() -> list[str]:
    """The installed program, or its entry point where it is not installed."""
    installed = Path(sys.executable).parent / "deliberate"
    if installed.exists():
        return [str(installed)]
    entry = "import sys; from deliberate.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", entry]


def run(command: list[str]) -> None:
    """Run a process to its end, its output unread."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def imported(command: list[str]) -> set[str]:
    """Top-level names of the modules that a command of this interpreter imports."""
    if command[0] != sys.executable:
        command = [sys.executable, *command]
    traced = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(traced, check=True, capture_output=True, text=True)
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, flags=re.MULTILINE)
    return {name.split(".")[0] for name in names}


def main() -> None:
    """Look at the imports, time the processes in turn, print the table and the line.

    Raises:
        SystemExit: a heavy library is imported.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    command = [*program(), "--help"]
    names = imported(command)
    if "typer" not in names:
        raise SystemExit("the trace of imports does not show typer: it cannot be trusted")
    if heavy := names & HEAVY:
        raise SystemExit(f"`deliberate --help` imports {', '.join(sorted(heavy))}")
    runs = {
        "deliberate --help": partial(run, command),
        "import typer, rich": partial(run, [sys.executable, "-c", "import typer, rich"]),
        "import torch": partial(run, [sys.executable, "-c", "import torch"]),
    }
    seconds = in_turn(runs, repeats=options.repeats)
    ours = seconds["deliberate --help"]
    for name, each in seconds.items():
        print(f"{name:>18}  {each:6.3f} s  {each / ours:5.2f} x")
    print(f"\nimports none of {', '.join(sorted(HEAVY))}; the ratio is in seconds")
    report("startup", {"help": Ratio(value=ours, target=TARGET, at_least=False)})


if __name__ == "__main__":
    main()
