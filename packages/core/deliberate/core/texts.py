"""Texts and how they become rows of tokens.

    source --documents--> Dataset(name, text) --pack--> Dataset(token_ids), all of one length

A source is `stdlib` (the Python standard library's own source), `installed` (that and the
installed packages), a text file, a JSONL or Parquet file or a folder of text files.
"""

import glob
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase

from deliberate.core.errors import TextError
from deliberate.core.python_source import installed_texts, stdlib_texts

EMBEDDED = {"stdlib": stdlib_texts, "installed": installed_texts}
"""Sources that are found on the machine rather than named by a path."""

TABLES = {".jsonl": "json", ".parquet": "parquet"}
"""Files of rows, by suffix, and the reader of `datasets` for them."""

HELD_OUT = 0.05
"""Share of a path's texts that is held out where no validation is named."""


def documents(source: str, *, split: str = "train", field: str = "text") -> Dataset:
    """The texts of a source, one row each, with columns `name` and `text`.

    Args:
        source: `stdlib`, `installed`, or a path to a `.jsonl` or `.parquet` file, a text
            file or a folder.
        split: `train` or `validation`; a path has no split of its own and gives all its texts.
        field: The key or column that holds the text in a JSONL or Parquet file.

    Raises:
        TextError: the source is missing, not UTF-8, empty, or lacks the field.
    """
    if source in EMBEDDED:
        texts = EMBEDDED[source](split)
        return Dataset.from_dict({"name": list(texts), "text": list(texts.values())})
    path = Path(source)
    if not path.exists():
        known = ", ".join(EMBEDDED)
        raise TextError(f"no texts at {source!r}: give a file, a folder or one of {known}")
    if path.is_file() and not path.stat().st_size:
        raise TextError(f"{source!r} holds no text: the file is empty")
    kind = TABLES.get(path.suffix)
    rows = _plain(path) if kind is None else _table(path, kind, field)
    rows = rows.filter(lambda row: bool(row["text"].strip()))
    if not len(rows):
        raise TextError(f"{source!r} holds no text")
    return rows


def hold_out(texts: Dataset, source: str, *, field: str = "text") -> tuple[Dataset, Dataset]:
    """Training and validation texts of a source that names no validation of its own.

    Args:
        texts: What `documents` gave for the source's training split.
        source: An embedded source has its own validation split. Of a path's texts the last
            twentieth is held out; a single text is cut in two.
        field: As in `documents`.

    Raises:
        TextError: a single text is too short to be cut.
    """
    if source in EMBEDDED:
        return texts, documents(source, split="validation", field=field)
    if len(texts) > 1:
        kept = min(len(texts) - 1, math.ceil(len(texts) * (1 - HELD_OUT)))
        return texts.select(range(kept)), texts.select(range(kept, len(texts)))
    name, text = texts[0]["name"], texts[0]["text"]
    most = int(len(text) * (1 - HELD_OUT))
    cut = text.rfind("\n", 0, most) + 1 or most  # at the end of a line if there is one
    if not text[:cut].strip() or not text[cut:].strip():
        raise TextError(f"{source!r} is too short to hold a part of it out: give more text")
    parts = [
        Dataset.from_dict({"name": [name], "text": [part]}) for part in (text[:cut], text[cut:])
    ]
    return parts[0], parts[1]


def pack(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    markers: Sequence[str] = (),
) -> Dataset:
    """Join the texts' tokens in order and cut them into rows of `length` tokens.

    Each text begins as the tokenizer begins a text; a tokenizer without a start token gets
    its end-of-text token between texts. The tokens after the last full row are dropped.

    Args:
        texts: With a column `text`.
        tokenizer: The base's; with markers it must be a fast one, which knows where tokens stand.
        length: Tokens in each row.
        markers: Strings whose places are wanted.

    Returns:
        A dataset with a column `token_ids`, and with markers `marks`: the index of the last token
        of each, in rising order.
    """

    def cut(rows: Mapping[str, list[str]]) -> dict[str, list[list[int]]]:
        read = tokenizer(rows["text"], verbose=False, return_offsets_mapping=bool(markers))
        stream, marks = [], []
        for number, ids in enumerate(read["input_ids"]):
            if markers:
                found = _marks(rows["text"][number], read["offset_mapping"][number], markers)
                marks += [len(stream) + index for index in found]
            stream += [*ids, *after]
        starts = range(0, len(stream) - length + 1, length)
        packed = {"token_ids": [stream[start : start + length] for start in starts]}
        if markers:
            packed["marks"] = [
                [mark - start for mark in marks if start <= mark < start + length]
                for start in starts
            ]
        return packed

    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
    after = [] if begins or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    # Long batches, because the remainder of each one is dropped.
    return texts.map(cut, batched=True, batch_size=2000, remove_columns=texts.column_names)


def _marks(text: str, offsets: Sequence[tuple[int, int]], markers: Sequence[str]) -> list[int]:
    """Index of the token that holds the last character of each occurrence of a marker."""
    ends = list(accumulate((end for _, end in offsets), max))  # special tokens stand nowhere
    found = {
        bisect_left(ends, match.end())
        for marker in markers
        for match in re.finditer(re.escape(marker), text)
    }
    return sorted(found)


def _table(path: Path, kind: str, field: str) -> Dataset:
    rows = _load(kind, [path])
    if field not in rows.column_names:
        known = ", ".join(rows.column_names)
        raise TextError(f"{str(path)!r} has no field {field!r}: it has {known}")
    texts = ["" if text is None else text for text in rows[field]]
    odd = next((row for row, text in enumerate(texts, 1) if not isinstance(text, str)), None)
    if odd is not None:
        raise TextError(f"{str(path)!r} row {odd}: {field!r} must be text, got {texts[odd - 1]!r}")
    return _named(path, texts)


def _plain(path: Path) -> Dataset:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in files if file.is_file() and not _hidden(file, path)]
    if not files:
        raise TextError(f"{str(path)!r} is a folder without files")
    rows = next((file for file in files if file.suffix in TABLES), None)
    if rows is not None and path.is_dir():
        raise TextError(f"{str(path)!r} holds {rows.name!r}: name a file of rows by itself")
    return _named(path, _load("text", files, sample_by="document")["text"])


def _named(path: Path, texts: Iterable[str]) -> Dataset:
    texts = list(texts)
    names = [f"{path.name}:{number}" for number in range(1, len(texts) + 1)]
    return Dataset.from_dict({"name": names, "text": texts})


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _load(kind: str, files: Sequence[Path], **options: Any) -> Dataset:
    """One of the readers of `datasets`, which needs no network and keeps a copy in its cache.

    Raises:
        TextError: a file cannot be read.
    """
    names = [str(file) for file in files]
    patterns = [glob.escape(name) for name in names]  # else `a[1].txt` is one
    try:
        return cast(Dataset, load_dataset(kind, data_files=patterns, split="train", **options))
    except (DatasetGenerationError, ValueError) as error:  # the second where a file is no Parquet
        name = next((name for name in names if not _is_utf8(Path(name))), names[0])
        reason = error.__cause__ or error
        raise TextError(f"cannot read {name!r} as {kind}: {reason}") from error


def _is_utf8(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True
