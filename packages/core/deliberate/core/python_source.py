"""A corpus that every machine has: the Python source installed on it.

Validation is a seventh of the standard library's modules, chosen by a hash of the module's
name, so the same modules are held out on every machine and every Python version. Training
files that repeat them (installed packages carry copies of standard modules) are left out
by content.
"""

import hashlib
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
    root = Path(sysconfig.get_paths()["stdlib"])
    files = {path.relative_to(root).as_posix(): path for path in _source_files(root)}
    held_out = {name: text for name, text in _read(files) if is_held_out(name)}
    if split == "validation":
        return held_out
    copied = _telling_lines(held_out.values())
    return {
        name: text
        for name, text in _read(files)
        if not is_held_out(name) and not _is_copy(text, copied)
    }


def installed_texts(split: str) -> dict[str, str]:
    """The standard library's source and that of the installed packages, by relative path.

    Args:
        split: `train` or `validation`; validation is the standard library's alone.
    """
    texts = stdlib_texts(split)
    if split == "validation":
        return texts
    copied = _telling_lines(stdlib_texts("validation").values())
    root = Path(sysconfig.get_paths()["purelib"])
    taken: dict[str, int] = {}
    files = {path.relative_to(root).as_posix(): path for path in _source_files(root)}
    for name, text in _read(dict(sorted(files.items(), key=lambda item: _hash(item[0])))):
        package = name.split("/")[0]
        size = taken.get(package, 0) + len(text)
        if size <= PACKAGE_BYTES and not _is_copy(text, copied):
            taken[package] = size
            texts[f"site-packages/{name}"] = text
    return texts


def is_held_out(name: str) -> bool:
    """Whether the standard module at this relative path belongs to validation."""
    return _hash(name.split("/")[0].removesuffix(".py")) % HELD_OUT_SHARE == 0


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _source_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if not _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts[:-1]):
            yield path


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
