"""A corpus that every machine has: the Python source installed on it.

Validation is a seventh of the standard library's modules, chosen by a hash of the module's
name, so the same modules are held out on every machine and every Python version. Training
files that repeat them (installed packages carry copies of standard modules) are left out
by content.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

HELD_OUT_SHARE = 7
"""One standard module in this many is held out."""

PACKAGE_BYTES = 12_000_000
"""The most source taken from one installed package, so that no package dominates."""

# Tests and generated tables read unlike the rest, and no two systems install the same ones.
_SKIPPED_FOLDERS = {
    "__pycache__", "encodings", "ensurepip", "idle_test", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "dist-packages", "test", "tests", "turtledemo",
}  # fmt: skip

_TELLING_LINE = 40  # characters; shorter lines (`return self`) are shared by unrelated files
_COPIED_SHARE = 0.02  # of a file's telling lines found in held-out modules make it a copy


def stdlib_texts(split: str) -> dict[str, str]:
    """Source files of the standard library, by path relative to it.

    Args:
        split: `train` or `validation`.
    """
    if split == "validation":
        return _held_out_texts()
    return _stdlib_without(_telling_lines(_held_out_texts().values()))


def installed_texts(split: str) -> dict[str, str]:
    """The standard library's source and that of the installed packages, by relative path.

    Args:
        split: `train` or `validation`; validation is the standard library's alone.
    """
    if split == "validation":
        return _held_out_texts()
    copied = _telling_lines(_held_out_texts().values())
    texts = _stdlib_without(copied)
    taken: dict[str, int] = {}
    files = _source_files("purelib")
    for name, text in _read(dict(sorted(files.items(), key=lambda item: _hash(item[0])))):
        package = name.split("/")[0]
        size = taken.get(package, 0) + len(text)
        if size <= PACKAGE_BYTES and not _is_copy(text, copied):
            taken[package] = size
            texts[f"site-packages/{name}"] = text
    return texts


def fingerprint(*, installed: bool) -> str:
    """Identifies the files of the standard library, or of the installed packages as well.

    Nothing is read: they are told apart by path, size and time of change.

    Raises:
        OSError: a file is gone since it was listed.
    """
    digest = hashlib.sha256()
    for scheme in ("stdlib", "purelib") if installed else ("stdlib",):
        for name, path in _source_files(scheme).items():
            status = path.stat()
            digest.update(f"{path} {name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_held_out(name: str) -> bool:
    """Whether the standard module at this relative path belongs to validation."""
    return _hash(name.split("/")[0].removesuffix(".py")) % HELD_OUT_SHARE == 0


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _held_out_texts() -> dict[str, str]:
    """The held-out modules of the standard library."""
    files = _source_files("stdlib")
    return dict(_read({name: path for name, path in files.items() if is_held_out(name)}))


def _stdlib_without(copied: set[str]) -> dict[str, str]:
    """Its other modules, but those that repeat telling lines of held-out ones."""
    files = _source_files("stdlib")
    read = _read({name: path for name, path in files.items() if not is_held_out(name)})
    return {name: text for name, text in read if not _is_copy(text, copied)}


def _source_files(scheme: str) -> dict[str, Path]:
    """The files of one of Python's folders, by path relative to it, in the order of its parts."""
    root = Path(sysconfig.get_paths()[scheme]).resolve()
    found: list[tuple[str, ...]] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        parts = Path(folder).relative_to(root).parts
        found += [(*parts, name) for name in names if name.endswith(".py")]
    return {"/".join(parts): root.joinpath(*parts) for parts in sorted(found)}


def _read(files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    for name, path in files.items():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a few standard files are in other encodings on purpose
            continue
        if text.strip():
            yield name, text


def _telling_lines(texts: Iterable[str]) -> set[str]:
    return {line for text in texts for line in _lines(text)}


def _lines(text: str) -> list[str]:
    return [line for raw in text.splitlines() if len(line := raw.strip()) >= _TELLING_LINE]


def _is_copy(text: str, held_out: set[str]) -> bool:
    lines = _lines(text)
    shared = sum(line in held_out for line in lines)
    return shared > max(2, _COPIED_SHARE * len(lines))
