"""What `make results` keeps of each run: one JSON file, of its training and of each measure.

run --train, eval--> docs/results/NAME.json --its key is still the run's--> the page
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deliberate.core import plain_json
from deliberate.core.atomic import write_bytes
from deliberate.eval.finite import finite

FORMAT, VERSION = "deliberate-experiment", 1
MOST_BYTES = 16 << 20


@dataclass(kw_only=True)
class Measured:
    """One run: what it is, what training it took, what was measured."""

    name: str
    key: str
    """Of the run, its recipe and its base: `Experiments.key`."""

    training: dict[str, Any] = field(default_factory=dict)
    """Empty before it was trained."""

    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: `key`, `command`, `made` and `result`."""

    def has(self, measure: str, key: str) -> bool:
        """Whether a measure was made, with these arguments."""
        return self.measures.get(measure, {}).get("key") == key

    def write(self, folder: Path) -> None:
        """Write the whole file, or leave what was there."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "key": self.key,
            "training": self.training,
            "measures": self.measures,
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_bytes(folder / f"{self.name}.json", text.encode())


def read(folder: Path, name: str, key: str) -> Measured:
    """What is kept of a run; nothing yet where there is no file, or one of another key.

    Args:
        folder: Of the files.
        name: Of the run.
        key: What the run is by now.

    Raises:
        ValueError: the file is none of these, or of another version.
    """
    path = folder / f"{name}.json"
    new = Measured(name=name, key=key)
    if not path.exists():
        return new
    found = plain_json.read(path, most=MOST_BYTES)
    if not isinstance(found, Mapping) or (found.get("format"), found.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise ValueError(f"{str(path)!r} is no {FORMAT!r} of version {VERSION}: move it away")
    if found["key"] != key:
        return new
    return Measured(
        name=name, key=key, training=dict(found["training"]), measures=dict(found["measures"])
    )


def result_of(text: str) -> Any:
    """A result of `deliberate eval` as it is kept: without gates, which no table shows.

    Args:
        text: The file that it wrote.
    """
    result = finite(plain_json.parse(text, finite=False))
    result.pop("gate", None)
    return result
