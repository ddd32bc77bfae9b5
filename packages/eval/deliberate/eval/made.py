"""What made a result: versions, machine, command and commit.

the process, its device --made_by--> plain values
"""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from deliberate.core.redaction import without_secrets

CPU_FACTS = Path("/proc/cpuinfo")


def made_by(command: str, device: torch.device) -> dict[str, str | None]:
    """Versions, the machine, the command and the commit, as `results.json` holds them.

    Args:
        command: What was typed.
        device: Where the base computes.
    """
    return {
        "deliberate": _version("deliberate") or _version("deliberate-eval"),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "machine": machine(device),
        "command": without_secrets(command),
        "commit": commit(Path(__file__)),
    }


def machine(device: torch.device) -> str:
    """A device in words: a GPU's name, or how many processors of which name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} of {platform.machine()}"
    lines = CPU_FACTS.read_text().splitlines() if CPU_FACTS.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(iter(named), "") or platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {name}"


def commit(file: Path) -> str | None:
    """The commit that a file of a checkout is from, with `-dirty` where it was changed since.

    Args:
        file: One that the checkout follows; a library installed inside of somebody else's checkout
            is none of its files, and has no commit.
    """

    def said(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(file.parent), *words], capture_output=True, text=True, check=False
            )
        except OSError:  # there is no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if said("ls-files", "--error-unmatch", file.name) is None:
        return None
    return said("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
