"""The weights of a coprocessor's folder, and the checksum over all that the folder says.

model.safetensors --load--> tensors, of the names and shapes that were asked for
config.json, model.safetensors --checksum--> 64 digits --verify--> whole, or refused
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deliberate.core import plain_file
from deliberate.core.errors import CheckpointError
from deliberate.core.safetensors_header import NAMES, Header, Part, read_header

WEIGHTS = "model.safetensors"
CHECKSUM = "checksum"
"""Key of `config.json`."""


def header_of(path: Path) -> Header:
    """What a file of weights says of itself; no weight is read.

    Raises:
        CheckpointError: it cannot be read, or is at odds with itself.
    """
    try:
        with plain_file.opened(path) as file:
            return read_header(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def dtypes_of(parts: Iterable[Part]) -> str:
    """The dtypes of some weights in words, as `float32`."""
    return " and ".join(sorted({NAMES.get(part.dtype, part.dtype) for part in parts}))


def load(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The weights in a file.

    Args:
        path: The file.
        shapes: What it must hold, by name; found from its header, before a weight is read.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    held = {name: part.shape for name, part in header_of(path).parts.items()}
    if held != {name: tuple(shape) for name, shape in shapes.items()}:
        odd = sorted({name for name in {*held, *shapes} if held.get(name) != shapes.get(name)})
        raise CheckpointError(
            f"{str(path)!r} does not hold the weights that its config.json describes "
            f"({len(odd)} differ, such as {odd[0]!r:.100}): get the coprocessor again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in held}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def check_finite(path: Path) -> None:
    """See that every weight is a number, one tensor in memory at a time.

    Raises:
        CheckpointError: the file cannot be read, or holds NaN or infinity.
    """
    names = header_of(path).parts
    try:
        with safe_open(path, framework="pt") as file:
            for name in names:
                if not torch.isfinite(file.get_tensor(name).to(torch.float32)).all():
                    raise CheckpointError(
                        f"{str(path)!r} holds NaN or infinity in {name!r}: get it again, or train "
                        "again with a smaller learning rate"
                    )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def checksum(config: Mapping[str, Any], path: Path) -> str:
    """SHA-256 over a coprocessor's `config.json` but the checksum itself, and over its weights.

    The weights' file holds their names, shapes and dtypes, so these are in it.

    Args:
        config: The content of `config.json`.
        path: The file of weights, read whole and anew.

    Raises:
        OSError: the file cannot be read.
    """
    return checksum_of(config, hash_of(path))


def hash_of(path: Path) -> str:
    """SHA-256 of a file of weights, read whole and anew.

    Raises:
        OSError: it cannot be read.
    """
    with plain_file.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_of(config: Mapping[str, Any], weights: str) -> str:
    """The same, where the file's hash is known.

    Args:
        config: The content of `config.json`.
        weights: SHA-256 of the file of weights, in hexadecimal digits.
    """
    stated = {key: value for key, value in config.items() if key != CHECKSUM}
    written = json.dumps([stated, WEIGHTS, weights], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def verify(folder: Path, config: Mapping[str, Any]) -> bool:
    """Read a coprocessor's weights whole, and compare with the checksum that it states.

    Args:
        folder: The coprocessor's.
        config: The content of its `config.json`.

    Returns:
        Whether it states one: a folder written by an earlier version does not.

    Raises:
        CheckpointError: it was changed or damaged, or holds NaN or infinity.
    """
    path = folder / WEIGHTS
    check_finite(path)
    if CHECKSUM not in config:
        return False
    try:
        found = checksum(config, path)
    except OSError as error:
        raise CheckpointError(_unreadable(path, error)) from error
    if found != config[CHECKSUM]:
        raise CheckpointError(
            f"{str(folder)!r} does not match the checksum in its config.json: it was changed or "
            "damaged; get the coprocessor again"
        )
    return True


def _unreadable(path: Path, error: Exception) -> str:
    return f"cannot read {str(path)!r}: {error}; get the coprocessor again"
