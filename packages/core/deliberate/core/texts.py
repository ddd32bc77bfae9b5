"""Texts, and what is held out of them.

    Source --documents--> Dataset(text) --hold_out--> training and validation texts

A stream is not read whole, so a text of it is held out or not by itself, whatever the order.
"""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any, cast

from datasets import Dataset, Value, concatenate_datasets

from deliberate.core.errors import TextError
from deliberate.core.source_files import copies_named
from deliberate.core.sources import (
    EMBEDDED,
    Source,
    check_field,
    check_has_columns,
    label,
    opened,
    sources,
    texts_of,
)
from deliberate.core.thoughts import apart, outside

_log = logging.getLogger(__name__)

HELD_OUT = 0.05
"""Share of a path's texts that is held out where no validation is named."""


@copies_named()
def documents(
    source: str | Source, *, split: str = "train", field: str = "text", domain: str | None = None
) -> Dataset:
    """The texts of a source, one row each, in a column `text`; `name` too if it is embedded.

    Args:
        source: Or its path; see `Source`.
        split: `train` or `validation`, where the source has both and names none; a path of its own
            gives all its texts.
        field: The key or column that holds the text, where the source names none.
        domain: Another one, to be had as a column `domain`.

    Raises:
        TextError: the source is missing, not UTF-8, empty, or lacks a field.
    """
    (source,) = sources(source, field=field)
    if domain is not None:
        check_has_columns(source, domain)
    rows = cast(Dataset, opened(source, split=split))
    name = source.field or "text"
    if rows.features[name] not in [Value("string"), Value("large_string"), Value("null")]:
        list(texts_of(rows, source))  # the first that is there is no text
    kept = ["name"] if source.path in EMBEDDED and domain != "name" else []
    renamed = {name: "text"}
    if domain is not None:
        check_field(replace(source, field=domain), (c for c in rows.column_names if c != name))
        renamed[domain] = "domain"
    rows = rows.select_columns([*kept, *renamed]).rename_columns(renamed)
    whole = len(rows)
    rows = rows.filter(lambda text: text is not None and bool(text.strip()), input_columns="text")
    if not len(rows):
        raise TextError(f"{source.path!r} holds no text")
    if len(rows) < whole and source.path not in EMBEDDED:
        _tell_of_empty(source.path, whole - len(rows), whole)
    return rows


@cache  # a source is read for training and again for validation
def _tell_of_empty(path: str, empty: int, whole: int) -> None:
    _log.warning(
        "%s of the %s texts of %r are empty and left out", f"{empty:,}", f"{whole:,}", path
    )


def hold_out(
    texts: Dataset, source: str, *, field: str = "text", thought: Sequence[str] | None = None
) -> tuple[Dataset, Dataset]:
    """Training and validation texts of a source that names no validation of its own.

    Args:
        texts: What `documents` gave for the source's training split.
        source: An embedded source has its own validation split. Of a path's texts the last
            twentieth is held out; a single text is cut in two.
        field: As in `documents`.
        thought: What opens and what closes a thought, none of which is cut, if there are any.

    Raises:
        TextError: a single text is too short to be cut.
    """
    if source in EMBEDDED:
        return texts, documents(source, split="validation", field=field)
    if len(texts) > 1:
        kept = min(len(texts) - 1, math.ceil(len(texts) * (1 - HELD_OUT)))
        return texts.select(range(kept)), texts.select(range(kept, len(texts)))
    text = texts[0]["text"]
    most = int(len(text) * (1 - HELD_OUT))
    cut = text.rfind("\n", 0, most) + 1 or most  # at the end of a line if there is one
    cut = cut if thought is None else outside(cut, text, thought)
    if not text[:cut].strip() or not text[cut:].strip():
        raise TextError(f"{source!r} is too short to hold a part of it out: give more text")
    parts = [Dataset.from_dict({"text": [part]}) for part in (text[:cut], text[cut:])]
    return parts[0], parts[1]


def is_held_out(text: str) -> bool:
    """Whether a text of a stream is held out: one in twenty, and all its copies with it."""
    return hashlib.sha256(text.encode()).digest()[0] < HELD_OUT * 256


def validation_texts(
    train: str | Sequence[Any],
    validation: str | Sequence[Any] | None = None,
    *,
    field: str = "text",
    streaming: bool = False,
    most: int = 64,
) -> tuple[str, Dataset]:
    """What a run is validated on: texts that were named for it, or what is held out.

    Args:
        train: The training texts, as `data.train` of a recipe has them.
        validation: Likewise, or None.
        field: Of sources that name none.
        streaming: Whether the training texts are a stream.
        most: Texts that are held out of each stream.

    Returns:
        What they are called, and the texts.

    Raises:
        TextError: they cannot be read, or nothing can be held out.
    """
    if validation is not None:
        parts = [documents(each, split="validation") for each in sources(validation, field=field)]
        return label(validation), _joined(parts)
    parts = []
    for source in sources(train, field=field):
        if source.path in EMBEDDED:
            parts.append(_read(documents(source, split="validation"), source.thought))
        elif streaming:
            parts.append(_head(source, most))
        else:
            texts = hold_out(documents(source), source.path, thought=source.thought)[1]
            parts.append(_read(texts, source.thought))
    return f"{label(train)} (held out)", _joined(parts)


def _head(source: Source, most: int) -> Dataset:
    """The first texts that are held out of a stream.

    Raises:
        TextError: there is none.
    """
    rows = opened(source, split="train", streaming=True)
    found = list(islice(filter(is_held_out, texts_of(rows, source)), most))
    if not found:
        raise TextError(
            f"{source.path!r} is too short to hold a twentieth of it out: name data.validation, or "
            "read it whole (data.streaming=false)"
        )
    return Dataset.from_dict({"text": found})


def _read(texts: Dataset, thought: Sequence[str] | None) -> Dataset:
    """Texts as the base reads them, without thoughts."""
    if thought is None:
        return texts
    return Dataset.from_dict({"text": [apart(text, thought)[0] for text in texts["text"]]})


def _joined(parts: Sequence[Dataset]) -> Dataset:
    return concatenate_datasets([part.select_columns("text") for part in parts])
