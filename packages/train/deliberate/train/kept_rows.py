"""Packed rows that are kept for the next run, so that no corpus is tokenized twice.

    what decides the rows --sha256--> $XDG_CACHE_HOME/deliberate/rows/SHA256.st --> rows

Of the embedded sources alone: of others `datasets` keeps what it made. A file that is damaged is as
good as none, and a folder that cannot be written costs time and nothing else.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from deliberate.core import (
    packing,
    problem_texts,
    problems,
    python_source,
    sources,
    texts,
    thoughts,
    tokens,
    user_cache,
)
from deliberate.core.atomic import is_partial, replacing
from deliberate.core.sources import Source

MOST_BYTES = 4 * 1024**3
"""Of all files that are kept; those that were not used for longest go first."""

_MADE_BY = (packing, problem_texts, problems, python_source, sources, texts, thoughts, tokens)
_DAY = 24 * 60 * 60  # seconds after which nobody can still be writing a file


def kept_rows(decisive: Callable[[], str | None], make: Callable[[], Dataset]) -> Dataset:
    """The rows that were kept, or else those that are made now, which are kept if they can be.

    Args:
        decisive: Says what decides the rows, or None where they are not to be kept. Asked again
            when they are made: what changed meanwhile may be in them or not.
        make: Makes them.
    """
    key = decisive()
    if key is None:
        return make()
    path = user_cache.place("rows") / f"{key}.st"
    rows = _read(path)
    if rows is None:
        rows = make()
        if decisive() == key:
            _keep(rows, path)
    return rows


def decisive_of(
    source: Source, tokenizer: PreTrainedTokenizerBase, *, length: int, markers: Sequence[str]
) -> str | None:
    """A hash of all that decides the rows of an embedded source.

    Returns:
        None for another source or one with thoughts, for a tokenizer that does not say how it
        works, and where a file that is to be read is gone.
    """
    known = source.path in sources.EMBEDDED and source.thought is None
    if not known or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    tokenizer("a")  # which sets truncation and padding as packing does
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    kind = type(tokenizer)
    special = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.split_special_tokens
    versions = sys.version, transformers.__version__, tokenizers.__version__
    told = [
        repr(replace(source, weight=1.0)),
        length,
        [*markers],
        f"{kind.__module__}.{kind.__qualname__}",
        special,
        versions,
    ]
    digest.update(json.dumps(told).encode())
    try:
        for module in _MADE_BY:
            digest.update(Path(str(module.__file__)).read_bytes())
        if source.path != "problems":
            files = python_source.fingerprint(installed=source.path == "installed")
            digest.update(files.encode())
    except OSError:
        return None
    return digest.hexdigest()


def _read(path: Path) -> Dataset | None:
    """The rows in a file; None where there is none, or not as it was written."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get("sha256") != _hash(arrays):
                return None
        os.utime(path)  # when it was last used
    except (OSError, SafetensorError, TypeError, ValueError):  # what damage makes of a header
        return None
    columns: dict[str, object] = {"token_ids": arrays["token_ids"]}
    if "marks" in arrays:
        columns["marks"] = np.split(arrays["marks"], np.cumsum(arrays["counts"])[:-1])
    return Dataset.from_dict(columns)


def _keep(rows: Dataset, path: Path) -> None:
    """Write rows, if there are any and they fit, and make room for them."""
    arrays = _arrays(rows)
    if not 0 < sum(array.nbytes for array in arrays.values()) <= MOST_BYTES:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(arrays, temporary, metadata={"sha256": _hash(arrays)})
        _make_room(path.parent)
    except OSError:  # a home that is full or read-only
        pass


def _arrays(rows: Dataset) -> dict[str, np.ndarray]:
    """The token ids of rows, (row, token), and the marks of all of them with each row's count."""
    if not len(rows):
        return {}
    whole = rows.with_format("numpy")[:]
    arrays = {"token_ids": np.stack(whole["token_ids"])}
    if "marks" in whole:
        counts = [len(marks) for marks in whole["marks"]]
        arrays |= {"marks": np.concatenate(whole["marks"]), "counts": np.array(counts)}
    most = max(int(array.max(initial=0)) for array in arrays.values())
    dtype = np.uint16 if most <= np.iinfo(np.uint16).max else np.int32
    return {name: np.ascontiguousarray(array, dtype) for name, array in arrays.items()}


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _make_room(folder: Path) -> None:
    """Remove what a process that was killed left a day ago, and what is too much.

    Raises:
        OSError: something cannot be removed, or another process did it first.
    """
    found = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    size = 0
    for each in found:
        if is_partial(each.name) and each.stat().st_mtime < time.time() - _DAY:
            shutil.rmtree(each)
        elif each.suffix == ".st":
            size += each.stat().st_size
            if size > MOST_BYTES:
                each.unlink()
