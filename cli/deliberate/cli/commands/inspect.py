"""`deliberate inspect`: what is in cache files and coprocessor folders."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import found
from deliberate.cli.terminal import emit, harmless, note, progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from deliberate.core.cache_file import CacheFile

CHARACTERS_SHOWN = 60
"""Of each text."""

COLUMNS = ("file", "tokens", "latents", "layers", "dtype", "bytes", "base", "text")
"""Of the table over a folder."""


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A cache file, a folder of them, a coprocessor's folder, or `nano`.",
            show_default=False,
        ),
    ],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything, and refuse what is damaged.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what is in a cache file or a coprocessor.

    Without --verify only headers are read. With it everything is: a cache file must match its
    checksum, and neither it nor a coprocessor may hold NaN or infinity.
    """  # noqa: DOC501
    from deliberate.core.checkpoint import CONFIG, EMBEDDED_FOLDERS, is_unfinished

    place = path if path.exists() else EMBEDDED_FOLDERS.get(str(path), path)
    if not place.exists():
        raise FileNotFoundError(
            f"nothing at {str(path)!r}: name a cache file, a folder of them, a coprocessor's "
            "folder, or `nano`"
        )
    if (place / CONFIG).is_file() or is_unfinished(place):
        contents = _coprocessor(place, verify=verify)
    elif place.is_dir():
        _folder(place, verify=verify, as_json=as_json)
        return
    else:
        contents = _cache(place, verify=verify)
    emit(contents) if as_json else _show(contents)


def _cache(path: Path, *, verify: bool) -> dict[str, Any]:
    """What is in a cache file."""
    from deliberate.core.cache_file import CacheFile

    with CacheFile(path) as file:
        if verify:
            file.verify()
        shapes = file.shapes
        names = {"keys": "layers.0.keys", "values": "layers.0.values"}
        names |= {name: name for name in shapes if not name.startswith("layers.")}
        return {
            "kind": "cache",
            "file": str(path),
            "base": file.origin.base,
            "revision": file.origin.revision,
            "base_fingerprint": file.origin.base_fingerprint,
            "coprocessor": file.origin.coprocessor,
            "coprocessor_fingerprint": file.origin.coprocessor_fingerprint,
            "tokens": file.num_tokens,
            "latents": file.num_latents,
            "layers": file.num_layers,
            "shapes": {name: list(shapes[stored]) for name, stored in sorted(names.items())},
            "dtype": file.metadata["dtype"],
            "bytes": path.stat().st_size,
            "text": _first_words(file),
            "verified": verify,
        }


def _first_words(file: "CacheFile") -> str | None:
    """How the text begins, where the base that reads it is at hand."""
    tokenizer = _tokenizer(file.origin.base, file.origin.base_fingerprint)
    if tokenizer is None:
        return None
    token_ids = file.tensor("token_ids")[:CHARACTERS_SHOWN]
    if int(token_ids.min()) < 0 or int(token_ids.max()) >= len(tokenizer):
        return None
    return str(tokenizer.decode(token_ids, skip_special_tokens=True))[:CHARACTERS_SHOWN]


@functools.cache
def _tokenizer(base: str, fingerprint: str) -> "PreTrainedTokenizerBase | None":
    """The tokenizer of a base, if it is on this machine and the same one still."""
    from transformers import AutoTokenizer

    from deliberate.core.base import EMBEDDED, NANO
    from deliberate.core.fingerprint import of_base

    folder = NANO / "base" if base == EMBEDDED else Path(base)
    try:
        if not base or of_base(folder) != fingerprint:
            return None
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError):  # the words are a courtesy: without the base they are left out
        return None


def _folder(folder: Path, *, verify: bool, as_json: bool) -> None:
    """Show the cache files of a folder.

    Raises:
        CacheError: some are damaged; the others are shown all the same.
    """
    from deliberate.core.errors import CacheError

    files = found(folder)
    rows, damaged = [], []
    with progress("inspect", len(files)) as advance:
        for file in files:
            try:
                rows.append(_cache(file, verify=verify))
            except CacheError as error:
                damaged.append({"file": str(file), "problem": str(error)})
            advance(1)
    if as_json:
        emit({"kind": "folder", "path": str(folder), "files": rows, "damaged": damaged})
    else:
        _show_table([{**row, "file": Path(row["file"]).name} for row in rows])
        note(
            f"{len(rows)} cache files, {sum(row['tokens'] for row in rows)} tokens, "
            f"{sum(row['bytes'] for row in rows):,} bytes"
        )
    if damaged:
        raise CacheError(
            f"{len(damaged)} of {len(files)} files are damaged: {damaged[0]['problem']}"
        )


def _coprocessor(folder: Path, *, verify: bool) -> dict[str, Any]:
    """What is in a coprocessor's folder."""
    from deliberate.core import weights_file
    from deliberate.core.checkpoint import read_config
    from deliberate.core.fingerprint import of_coprocessor

    config, weights = read_config(folder), folder / weights_file.WEIGHTS
    parts = weights_file.header_of(weights).parts.values()
    stated = weights_file.verify(folder, config) if verify else None
    return {
        "kind": "coprocessor",
        "path": str(folder),
        "fingerprint": of_coprocessor(folder, config["coprocessor"]),
        "base": config["base"],
        "coprocessor": config["coprocessor"],
        "parameters": sum(math.prod(part.shape) for part in parts),
        "dtype": ", ".join(sorted({part.dtype for part in parts})),
        "bytes": weights.stat().st_size,
        "recipe": config["recipe"],
        "checksum": config.get(weights_file.CHECKSUM, ""),
        "verified": bool(stated),
    }


def _show(contents: dict[str, Any]) -> None:
    """One line a value; what is empty is left out."""
    flat = {}
    for name, value in contents.items():
        nested = value if isinstance(value, dict) else None
        flat |= (
            {name: value} if nested is None else {f"{name}.{key}": v for key, v in nested.items()}
        )
    shown = {harmless(name): each for name, each in flat.items() if each is not None and each != ""}
    width = max(map(len, shown))
    for name, value in shown.items():
        typer.echo(f"{name:{width}}  {_plain(value)}")


def _show_table(rows: list[dict[str, Any]]) -> None:
    lines = [COLUMNS, *([_plain(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _plain(value: Any) -> str:
    """A value in one line."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return harmless(str(value))
