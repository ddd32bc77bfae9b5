"""Texts and how they become rows of tokens.

    source --documents--> Dataset(name, text) --pack--> Dataset(token_ids), all of one length

A source is `stdlib` (the Python standard library's own source), `installed` (that and the
installed packages), a text file, a JSONL file or a folder of text files.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase

from deliberate.core.errors import TextError
from deliberate.core.python_source import installed_texts, stdlib_texts

EMBEDDED = {"stdlib": stdlib_texts, "installed": installed_texts}
"""Sources that are found on the machine rather than named by a path."""

HELD_OUT = 0.05
"""Share of a path's texts that is held out where no validation is named."""


def documents(source: str, *, split: str = "train", field: str = "text") -> Dataset:
    """The texts of a source, one row each, with columns `name` and `text`.

    Args:
        source: `stdlib`, `installed`, or a path to a `.jsonl` file, a text file or a folder.
        split: `train` or `validation`; a path has no split of its own and gives all its texts.
        field: The key that holds the text in a JSONL file.

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
    rows = _jsonl(path, field) if path.suffix == ".jsonl" else _plain(path)
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
    cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1 or int(
        len(text) * (1 - HELD_OUT)
    )
    if not text[:cut].strip() or not text[cut:].strip():
        raise TextError(f"{source!r} is too short to hold a part of it out: give more text")
    parts = [
        Dataset.from_dict({"name": [name], "text": [part]}) for part in (text[:cut], text[cut:])
    ]
    return parts[0], parts[1]


def pack(texts: Dataset, tokenizer: PreTrainedTokenizerBase, *, length: int) -> Dataset:
    """Join the texts' tokens in order and cut them into rows of `length` tokens.

    Each text begins as the tokenizer begins a text; a tokenizer without a start token gets
    its end-of-text token between texts. The tokens after the last full row are dropped.

    Returns:
        A dataset with one column, `token_ids`.
    """

    def cut(rows: Mapping[str, list[str]]) -> dict[str, list[list[int]]]:
        stream = [
            token
            for ids in tokenizer(rows["text"], verbose=False)["input_ids"]
            for token in [*ids, *after]
        ]
        starts = range(0, len(stream) - length + 1, length)
        return {"token_ids": [stream[start : start + length] for start in starts]}

    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
    after = [] if begins or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    # Long batches, because the remainder of each one is dropped.
    return texts.map(cut, batched=True, batch_size=2000, remove_columns=texts.column_names)


def _jsonl(path: Path, field: str) -> Dataset:
    rows = _load("json", path)
    if field not in rows.column_names:
        known = ", ".join(rows.column_names)
        raise TextError(f"{str(path)!r} has no field {field!r}: it has {known}")
    names = [f"{path.name}:{number}" for number in range(1, len(rows) + 1)]
    texts = [text or "" for text in rows[field]]
    return Dataset.from_dict({"name": names, "text": texts})


def _plain(path: Path) -> Dataset:
    if path.is_file():
        files = [path]
    else:
        files = [
            file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)
        ]
    if not files:
        raise TextError(f"{str(path)!r} is a folder without files")
    texts = [_load("text", file, sample_by="document")["text"] for file in files]
    names = [file.relative_to(path).as_posix() or file.name for file in files]
    return Dataset.from_dict({"name": names, "text": ["".join(parts) for parts in texts]})


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _load(kind: str, path: Path, **options: Any) -> Dataset:
    try:
        return cast(Dataset, load_dataset(kind, data_files=str(path), split="train", **options))
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise TextError(f"cannot read {str(path)!r} as {kind}: {cause}") from error
