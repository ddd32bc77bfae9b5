"""Where texts come from, whole or as a stream.

    `stdlib`, … | file | folder | Hub id --Source--> rows, one of whose fields is the text

The Hub is asked only for what is named like one of its datasets and is not here.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset
from datasets import config as datasets_config
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError, DatasetsError

from deliberate.core.errors import TextError
from deliberate.core.problem_texts import problem_texts
from deliberate.core.python_source import installed_texts, stdlib_texts
from deliberate.core.reach import hub_or_cache
from deliberate.core.source_files import files_of, kind_of, loaded, odd_file, readable, way_out

# Otherwise each reading of a file here is counted on a server of the Hub's.
datasets_config.HF_UPDATE_DOWNLOAD_COUNTS = False

EMBEDDED = {"stdlib": stdlib_texts, "installed": installed_texts, "problems": problem_texts}
"""Sources that are found or made on the machine rather than named by a path."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""`owner/name`, as datasets on the Hub are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Texts from one place, and how often they come up among those from others."""

    path: str
    """`stdlib`, `installed`, `problems`, a text file, a JSONL or Parquet file, a folder of either,
    or the id of a dataset on the Hub."""

    weight: float = 1.0
    """Its share of the rows, relative to the weights of the others."""

    field: str | None = None
    """The key or column of the text, where rows have several."""

    split: str | None = None
    """Of a dataset on the Hub, `train[:1000]` as well; none is the one that the use calls for."""

    config: str | None = None
    """Of a dataset on the Hub that has several."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    skip_bad: bool = dataclasses.field(default=False, repr=False)
    """Whether files here that cannot be read are left out and counted, for which all are read once
    more; otherwise they are refused by name."""

    markers: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    """Of texts to train on, with `objective.place: marker`: strings at whose end anchors may be.
    None are those of the objective, an empty list is anywhere."""

    thought: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    """Of texts to train on, with `objective.thought`: what opens and what closes a thought, such as
    `<think>` and `</think>`. Texts are read without thoughts, and anchors are where they stood; of
    `problems` each answer has one before it."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: there is no path, the weight is not above 0, or a marker is empty.
        """
        if not self.path:
            raise ValueError("data: a source must have a path")
        if not (0 < self.weight < math.inf):
            raise ValueError(f"data: weight of {self.path!r} must be above 0, got {self.weight}")
        if "" in (self.markers or ()):
            raise ValueError(f"data: markers of {self.path!r} must not hold the empty text")
        if self.thought is not None and (len(self.thought) != 2 or "" in self.thought):
            raise ValueError(
                f"data: thought of {self.path!r} must be two strings, what opens and what closes "
                f"one, got {[*self.thought]}"
            )
        if self.thought is not None and self.markers is not None:
            raise ValueError(
                f"data: {self.path!r} has markers and thought: its anchors are at one or the "
                "other, leave one out"
            )


def sources(named: str | Source | Iterable[Any], *, field: str = "text") -> tuple[Source, ...]:
    """The sources that a recipe names, each with its field.

    Args:
        named: A path, or sources, each of them a `Source` or the mapping that one is kept as.
        field: Of those that name none.
    """
    if isinstance(named, str | Source):
        named = [Source(path=named) if isinstance(named, str) else named]
    made = [Source(**each) if isinstance(each, Mapping) else each for each in named]
    return tuple(replace(each, field=each.field or field) for each in made)


def label(named: str | Iterable[Any]) -> str:
    """What a recipe's sources are called, in a line."""
    return ", ".join(source.path for source in sources(named))


def opened(source: Source, *, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of a source, with its field among their columns.

    Args:
        source: With a field.
        split: `train` or `validation`, where the source has both and names none; a path of its own
            gives all of its rows.
        streaming: Read rows when they are asked for.

    Raises:
        TextError: the source is missing or cannot be read, or lacks the field.
    """
    path = Path(source.path)
    if source.path in EMBEDDED or path.exists():
        _check_local(source)
    if source.path in EMBEDDED:
        if source.path == "problems" and split == "train":
            texts = problem_texts(split, thought=source.thought or ())
        else:
            texts = EMBEDDED[source.path](split)
        return Dataset.from_dict({"name": list(texts), source.field or "text": [*texts.values()]})
    if path.exists():
        kind, files = files_of(path)
        files = readable(kind, files, source.path) if source.skip_bad else files
        rows = _read(kind, files, streaming)
        if kind == "text":
            return rows.rename_column("text", source.field) if source.field != "text" else rows
    elif HUB_ID.fullmatch(source.path) and kind_of(path) is None and path.suffix != ".txt":
        rows = _from_hub(source, split, streaming)
    else:
        known = ", ".join(EMBEDDED)
        raise TextError(
            f"no texts at {source.path!r}: give a file, a folder, a Hub id like 'owner/name' or "
            f"one of {known}"
        )
    if rows.column_names is not None:  # of a stream they may be known only once it is read
        check_field(source, rows.column_names)
    return rows


def _check_local(source: Source) -> None:
    """See that a source that is here asks for nothing that only the Hub has.

    Raises:
        TextError: it does; names what.
    """
    for name in ("split", "config", "revision"):
        value = getattr(source, name)
        if value is not None:
            raise TextError(
                f"{source.path!r} is here and has no {name} {value!r}, which only a dataset on the "
                f"Hub has: leave {name} out"
            )


def check_field(source: Source, columns: Iterable[str]) -> None:
    """See that a source's field is among its columns.

    Raises:
        TextError: it is not; names those that are.
    """
    columns = list(columns)
    if source.field not in columns:
        has = f"{', '.join(columns)}; name one of these" if columns else "nothing beside its texts"
        raise TextError(f"{source.path!r} has no field {source.field!r}: it has {has}")


def check_has_columns(source: Source, name: str) -> None:
    """See that a source has columns at all, where one of them is named.

    Raises:
        TextError: it is plain text.
    """
    if source.path not in EMBEDDED and not has_columns(source):
        raise TextError(
            f"{source.path!r} is plain text, which has no field {name!r}: name no field, or give "
            "JSONL or Parquet files, whose rows have it"
        )


def has_columns(source: Source) -> bool:
    """Whether a source, if it is there, has rows of several columns and not texts alone."""
    path = Path(source.path)
    return source.path not in EMBEDDED and not (path.exists() and files_of(path)[0] == "text")


def text_of(row: Mapping[str, Any], source: Source, number: int) -> str:
    """The text in a row; none is the empty text.

    Args:
        row: Of the source.
        source: Names the field.
        number: Of the row, from 1, for the message.

    Raises:
        TextError: the field is not there, or is no text.
    """
    check_field(source, row)
    text = row[source.field or "text"]
    if text is not None and not isinstance(text, str):
        raise TextError(
            f"{source.path!r} row {number}: {source.field!r} must be text, got {text!r}: "
            "write it as text"
        )
    return text or ""


def texts_of(rows: Iterable[Any], source: Source) -> Iterator[str]:
    """The texts in a source's rows, in their order, without those that are empty.

    Raises:
        TextError: a row cannot be read, or its field is not there or is no text.
    """
    return (text for _, text in numbered_texts(rows, source))


def numbered_texts(rows: Iterable[Any], source: Source) -> Iterator[tuple[int, str]]:
    """The texts in a source's rows with the rows' numbers from 1, without those that are empty.

    Raises:
        TextError: a row cannot be read, or its field is not there or is no text.
    """
    try:
        for number, row in enumerate(rows, 1):
            text = text_of(row, source, number)
            if text.strip():
                yield number, text
    except (OSError, ValueError, DatasetsError) as error:  # what a stream's readers raise
        reason = " ".join(str(error).split())
        path = Path(source.path)
        odd = odd_file(*files_of(path)) if path.exists() else None
        raise TextError(
            f"cannot read {str(odd or path)!r}: {reason}{way_out(odd, path)}"
        ) from error


def fingerprint_of_source(source: Source) -> str:
    """Identifies a source that is not read whole: what is named, and its files' names and sizes."""
    digest = hashlib.sha256(repr(replace(source, weight=1.0)).encode())
    path = Path(source.path)
    if path.exists():
        for file in files_of(path)[1]:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _read(kind: str, files: Sequence[Path], streaming: bool) -> Any:
    """One of the readers of `datasets`, which need no network; read whole, it keeps a copy.

    Raises:
        TextError: a file cannot be read.
        OSError: there is no room for the copy.
    """
    try:
        rows = loaded(kind, files, streaming=streaming)
        if not streaming:
            rows.data.table.validate(full=True)  # JSON's bytes were taken for UTF-8 without a look
        return rows
    except (DatasetGenerationError, OSError, ValueError) as error:  # the last where no Parquet is
        cause, odd = error.__cause__ or error, odd_file(kind, files)
        if odd is None and isinstance(cause, OSError):
            cause.filename = cause.filename or str(datasets_config.HF_DATASETS_CACHE)
            raise cause from error  # of the copy, where there may be no room for it
        reason, name = " ".join(str(cause).split()), str(odd or files[0].parent)
        if odd is None and "corresponds to no data" in reason:
            raise TextError(f"{str(files[0])!r} holds no text: no line has anything") from error
        if "Invalid UTF8" in reason:
            reason = "it is not UTF-8"
        raise TextError(
            f"cannot read {name!r} as {kind}: {reason}{way_out(odd, *files)}"
        ) from error


def _from_hub(source: Source, split: str, streaming: bool) -> Any:
    """A dataset of the Hub, or what is kept of it here.

    Raises:
        TextError: there is none, or it has no such configuration or split.
    """
    name = source.path
    options: dict[str, Any] = {"streaming": streaming, "revision": source.revision}
    try:
        with hub_or_cache():
            return load_dataset(name, source.config, split=source.split or split, **options)
    except DatasetNotFoundError as error:
        at = f" with revision {source.revision!r}" if source.revision else ""
        raise TextError(
            f"no texts at {name!r}: it is neither a file nor a folder, and the Hub shows no such "
            f"dataset{at}; check it (a private one needs HF_TOKEN)"
        ) from error
    except ConnectionError as error:
        raise TextError(
            f"no texts at {name!r} here, and the Hub cannot be reached: give a file or a folder, "
            "or try again with a network"
        ) from error
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split()).split(" Example of usage")[0].rstrip(".")
        raise TextError(
            f"cannot read dataset {name!r}: {reason}; a source names its split and config as "
            "data.train=[{path: owner/name, config: ..., split: ...}]"
        ) from error
