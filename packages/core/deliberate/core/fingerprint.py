"""Fingerprints: which architecture and which weights, without loading them.

A fingerprint is a hash of the configuration's architecture keys and of the checkpoint's
files. Hashing gigabytes takes seconds, so each file's hash is remembered by its path, size
and time of change in `$XDG_CACHE_HOME/deliberate/hashes.json`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from deliberate.core import plain_file, plain_json, user_cache
from deliberate.core.atomic import write_bytes

_NOT_ARCHITECTURE = {
    "_name_or_path", "dtype", "transformers_version", "use_cache", "architectures",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "return_dict",
    "output_hidden_states", "output_attentions", "_attn_implementation",
}  # fmt: skip

LENGTH = 16
"""Hexadecimal digits of a fingerprint."""


def of_base(folder: Path) -> str:
    """Fingerprint of a base model's folder.

    The configuration is read as it is written: what a library makes of it depends on its version.

    Raises:
        OSError: a file cannot be read.
        ValueError: the configuration is not JSON, or not an object.
    """
    config = json.loads(plain_file.read(folder / "config.json", most=plain_json.MOST_BYTES))
    if not isinstance(config, dict):
        raise ValueError(f"{str(folder / 'config.json')!r} holds no JSON object")
    return _of(folder, {key: v for key, v in config.items() if key not in _NOT_ARCHITECTURE})


def of_coprocessor(folder: Path, settings: dict[str, Any]) -> str:
    """Fingerprint of a coprocessor's folder."""
    return _of(folder, settings)


def _of(folder: Path, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    # Some repositories hold all weights once more, as `consolidated.safetensors`.
    files = sorted(folder.glob("*.safetensors"))
    for path in [file for file in files if not file.name.startswith("consolidated")]:
        digest.update(f"{path.name} {file_hash(path)}".encode())
    return digest.hexdigest()[:LENGTH]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, remembered as long as its size and time of change stay.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    memory = user_cache.place("hashes.json")
    known = _recall(memory)
    if key not in known:
        with plain_file.opened(path) as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(memory, json.dumps(known).encode())
        except OSError:  # a read-only home costs a hash each time and nothing else
            pass
    return known[key]


def _recall(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}
