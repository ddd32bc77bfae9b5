"""Texts to be read one after the other, none of which is kept.

JSONL file | folder, Parquet file, Hub id --TextRows--> row number, text --check--> Checked
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deliberate.cli.cache_files import SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text, and where it is from."""

    number: int
    """Its line or its place in the source, from 1."""

    text: str

    where: str
    """What an error about it begins with."""

    @property
    def file_name(self) -> str:
        """What its cache file is called."""
        return f"{self.number:06}{SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is known of rows once all of them were seen."""

    count: int
    longest: int
    """Characters of the longest text."""

    numbers: bytearray
    """At each row's number whether it has a text."""

    digest: bytes
    """Of the numbers and lengths."""


class TextRows(ABC):
    """Texts from one place, read anew each time they are gone through."""

    name: str
    """What the user calls it."""

    skipped = 0
    """Rows that were left out since they cannot be read."""

    @property
    @abstractmethod
    def output(self) -> Path:
        """Folder of cache files, where none is named."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Each row that has a text.

        Raises:
            TextError: one cannot be read or has no text.
        """

    def check(self) -> Checked:
        """Go through all rows before anything is loaded.

        Raises:
            TextError: one cannot be read, has no text or is not Unicode, or there are none.
        """
        from deliberate.core.augment import check_text
        from deliberate.core.errors import TextError

        numbers, longest, digest = bytearray(1), 0, hashlib.sha256()
        for row in self:
            try:
                check_text(row.text)
            except TextError as error:
                raise TextError(f"{row.where}{error}") from error
            numbers.extend(bytes(row.number - len(numbers)) + b"\x01")
            longest = max(longest, len(row.text))
            digest.update(f"{row.number} {len(row.text)}\n".encode())
        count = sum(numbers)
        if not count:
            raise TextError(f"{self.name!r} has no rows: give at least one")
        return Checked(count=count, longest=longest, numbers=numbers, digest=digest.digest())


class JsonlRows(TextRows):
    """The rows of a JSONL file, each of which must have a text; empty lines are passed over."""

    def __init__(self, path: Path, field: str, *, skip_bad: bool = False) -> None:
        self.name, self._path, self._field, self._skip_bad = str(path), path, field, skip_bad

    @property
    def output(self) -> Path:
        """`NAME-caches` beside `NAME.jsonl`."""
        return self._path.with_name(f"{self._path.stem}-caches")

    def __iter__(self) -> Iterator[Row]:
        """Each row, under its line's number.

        Raises:
            TextError: a row is not JSON, or has no text, and is not to be left out.
        """
        from deliberate.core.augment import check_text
        from deliberate.core.errors import TextError

        self.skipped = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"row {number} of {self.name!r}"
                try:
                    text = self._text(line, where)
                    if self._skip_bad:
                        check_text(text)
                except TextError:
                    if not self._skip_bad:
                        raise
                    self.skipped += 1
                else:
                    yield Row(number=number, text=text, where=f"{where}: ")

    def _text(self, line: bytes, where: str) -> str:
        from deliberate.core.errors import TextError

        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"{where} is not JSON: {error}; mend it") from error
        if not isinstance(row, dict) or not isinstance(row.get(self._field), str):
            known = ", ".join(row) if isinstance(row, dict) else "no keys"
            raise TextError(
                f"{where} has no text under {self._field!r}, only {known}: "
                "name the key with --field"
            )
        return row[self._field]


class SourceRows(TextRows):
    """The texts of a source as training has them (`docs/data.md`); empty ones are passed over."""

    def __init__(self, name: str, field: str, *, skip_bad: bool = False) -> None:
        """Find the source.

        Raises:
            TextError: it is missing or cannot be read, or lacks the field.
        """
        from deliberate.cli.models import patient_bars
        from deliberate.core.sources import Source, opened, sources

        self.name = name
        [self._source] = sources(Source(path=name, skip_bad=skip_bad), field=field)
        with patient_bars():
            # From the Hub it is fetched once, not anew each time it is gone through.
            self._rows = opened(self._source, split="train", streaming=Path(name).exists())

    @property
    def output(self) -> Path:
        """`NAME-caches` beside a file or folder, here for what has no path."""
        path = Path(self.name)
        if not path.exists():
            return Path(f"{path.name}-caches")
        path = path.resolve() if path.name in {"", ".."} else path
        return path.with_name(f"{path.name if path.is_dir() else path.stem}-caches")

    def __iter__(self) -> Iterator[Row]:
        """Each row that has a text, under its place in the source.

        Raises:
            TextError: a row cannot be read, or its field is not there or is no text.
        """
        from deliberate.core.sources import numbered_texts

        for number, text in numbered_texts(self._rows, self._source):
            where = f"row {number} of {self.name!r}: "
            yield Row(number=number, text=text, where=where)
