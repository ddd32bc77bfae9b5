"""Lines of 50 MB through each command that reads texts, in bounded memory and time.

`make torture` runs it; `TORTURE_LINE` is the line's length in MB.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from settings import SMALL_RUN, set_all

pytestmark = pytest.mark.torture

MEGABYTES = int(os.environ.get("TORTURE_LINE", "50"))
MOST_MEMORY = 3 << 30
"""Bytes that a process may hold at once, of which torch takes a third of a gigabyte."""

MOST_SECONDS = 300
"""CPU seconds that a command may take: how busy the machine is does not matter."""

PROGRAM = "import sys; from deliberate.cli.main import main; sys.exit(main())"

LINES: dict[str, Callable[[int], str]] = {
    "words": lambda size: ("words of a line without end " * (size // 28 + 1))[:size],
    "one word": lambda size: "x" * size,
    "blanks": lambda size: " " * size,
    "emoji": lambda size: "\U0001f600" * (size // 4),
    "right to left": lambda size: "\u05e9\u05dc\u05d5\u05dd " * (size // 9),
    "null bytes": lambda size: "\0" * size,
}
CHANGES = set_all(SMALL_RUN | {"data.length": 64})
COMMANDS = {
    "prefill --file": ["prefill", "--file", "line.txt"],
    "prefill --jsonl": ["prefill", "--jsonl", "line.jsonl", "-o", "caches"],
    "train": ["train", *CHANGES, "--set", "data.train=line.txt", "--output-dir", "run"],
    "train, streamed": ["train", *CHANGES, "--set", "data.train=line.jsonl", "--set",
                        "data.streaming=true", "--set", "data.validation=short.txt",
                        "--output-dir", "run"],
    "eval": ["eval", "nano", "--data", "line.txt", "--texts", "4", "--length", "64", "--ahead", "4",
             "--anchors", "2", "--against", "none", "-o", "result.json"],
}  # fmt: skip


def ended(command: list[str], folder: Path) -> tuple[int, str, float, int]:
    """How a command ended: its code, its last line, CPU seconds, and the most bytes it held."""
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = (folder / "said").read_text().splitlines() or [""]
    assert not any("Traceback" in line for line in lines), "\n".join(lines[-40:])
    return process.returncode, lines[-1], usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_of_megabytes(command, line, tmp_path, capsys):
    text = LINES[line](MEGABYTES * 1_000_000)
    (tmp_path / "line.txt").write_text(text)
    (tmp_path / "line.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False))
    (tmp_path / "short.txt").write_text("some words that are held out " * 40)
    code, told, seconds, most = ended(COMMANDS[command], tmp_path)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{command}, {MEGABYTES} MB of {line}: ended with {code} after {seconds:.0f} CPU "
            f"seconds, held {most / 2**30:.1f} GiB at most{f': {told[:120]}' if code else ''}"
        )
    assert code in {0, 1}
    if code:
        assert told.startswith("deliberate: ")
        assert len(told) < 500
    assert seconds < MOST_SECONDS
    assert most < MOST_MEMORY
