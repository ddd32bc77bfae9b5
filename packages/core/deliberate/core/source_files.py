"""The files of a source that is here, and which of them can be read.

path --files_of--> reader, files --readable--> those without damage, the others counted
"""

import glob
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from datasets import config as datasets_config
from datasets import load_dataset
from datasets.exceptions import DatasetsError

from deliberate.core.errors import TextError

_log = logging.getLogger(__name__)

TABLES = {".jsonl": "json", ".parquet": "parquet"}
"""Files of rows, by suffix, and the reader of `datasets` for them; `.gz` may follow."""

MOST_SHOWN = 5
"""Files that are named of those that cannot be read."""


def kind_of(path: Path) -> str | None:
    """The reader for a file of rows, or None for one of text."""
    return TABLES.get(Path(path.stem).suffix if path.suffix == ".gz" else path.suffix)


def files_of(path: Path) -> tuple[str, Sequence[Path]]:
    """The reader for a file or the files of a folder, and these.

    Raises:
        TextError: there are none, they hold nothing, or some hold rows and some text.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in files if file.is_file() and not _hidden(file, path)]
    if not files:
        raise TextError(f"{str(path)!r} is a folder without files")
    if not any(file.stat().st_size for file in files):
        raise TextError(f"{str(path)!r} holds no text: it is empty")
    kinds = {kind_of(file): file.name for file in reversed(files)}  # and the first file of each
    if len(kinds) > 1:
        second, first = list(kinds.values())[-2:]
        raise TextError(
            f"{str(path)!r} holds {first!r} beside {second!r}: files of rows must be among their "
            "like; name a file by itself, or another folder"
        )
    return next(iter(kinds)) or "text", files


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def loaded(kind: str, files: Sequence[Path], *, streaming: bool) -> Any:
    """One of the readers of `datasets`, which need no network; read whole, it keeps a copy."""
    patterns = [glob.escape(str(file)) for file in files]  # else `a[1].txt` is one
    options: dict[str, Any] = {"sample_by": "document"} if kind == "text" else {}
    return load_dataset(kind, data_files=patterns, split="train", streaming=streaming, **options)


@contextmanager
def copies_named() -> Generator[None]:
    """Name the folder where `datasets` keeps copies, of texts and of what is made of them.

    Raises:
        OSError: as the block raised it; where that names no file, with the folder's name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(datasets_config.HF_DATASETS_CACHE)
        raise


def _is_readable(kind: str, file: Path) -> bool:
    """Whether a file can be read to its end by itself."""
    try:
        for _ in loaded(kind, [file], streaming=True):
            pass
    except (DatasetsError, OSError, ValueError):
        return False
    return True


def odd_file(kind: str, files: Sequence[Path]) -> Path | None:
    """The first file that cannot be read."""
    return next((file for file in files if not _is_readable(kind, file)), None)


def readable(kind: str, files: Sequence[Path], name: str) -> list[Path]:
    """The files that can be read; the others are counted.

    Raises:
        TextError: none can.
    """
    good = [file for file in files if _is_readable(kind, file)]
    if not good:
        raise TextError(f"{name!r} holds no file that can be read: the first is {str(files[0])!r}")
    bad = [str(file) for file in files if file not in {*good}]
    if bad:
        _tell_of_bad(name, len(files), tuple(bad))
    return good


@cache  # a source is read for training and again for validation
def _tell_of_bad(name: str, count: int, bad: tuple[str, ...]) -> None:
    shown = ", ".join(map(repr, bad[:MOST_SHOWN])) + (", …" if len(bad) > MOST_SHOWN else "")
    _log.warning(
        "%s of the %s files of %r cannot be read and are left out: %s",
        f"{len(bad):,}", f"{count:,}", name, shown,
    )  # fmt: skip


def way_out(odd: Path | None, *named: Path) -> str:
    """What to do about a file among others; one that was named itself is the user's own affair."""
    return "" if odd is None or named == (odd,) else "; mend it, or leave such files out (skip_bad)"
