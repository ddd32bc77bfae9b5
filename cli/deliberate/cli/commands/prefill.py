"""`deliberate prefill`: texts to cache files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import (
    SUFFIX,
    check_output,
    check_writable,
    is_right,
    longest_first,
)
from deliberate.cli.terminal import emit, note, progress

if TYPE_CHECKING:
    import torch

    from deliberate.core.base import Base


def prefill(
    *,
    text: Annotated[str | None, typer.Option("--text", help="The text itself.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A file with one text, in UTF-8.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", metavar="FILE", help="A file with a text in each row.")
    ] = None,
    field: Annotated[
        str, typer.Option("--field", metavar="KEY", help="Key of the text in a --jsonl row.")
    ] = "text",
    output: options.Output = None,
    base: options.BaseName = options.EMBEDDED,
    batch: options.BatchSize = 8,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Read texts, and keep their caches as files.

    One text becomes one file: --text `cache.st` here, --file NAME.txt `NAME.st` beside it.

    --jsonl NAME.jsonl becomes the folder `NAME-caches` beside it, one file a row, named by the
    row's line number (`000001.st`). Interrupted, it is gone on with by the same command: files
    that are already right are skipped.

    What exists and is not right is replaced with --force only.
    """
    output, tasks = _tasks(text, file, jsonl, field, output, force=force)
    model = _load(base, device, dtype)
    texts = [(task, _tokenized(model, task)) for task in tasks]
    pending = texts
    if jsonl is not None and not force:
        pending = [(task, ids) for task, ids in texts if not _is_done(model, task, ids)]
    _run(model, pending, batch)

    result = {
        "output": str(output),
        "written": len(pending),
        "skipped": len(texts) - len(pending),
        "tokens": sum(len(ids) for _, ids in texts),
        "base": model.id,
        "base_fingerprint": model.fingerprint,
    }
    note(
        "{tokens} tokens for {base!r}: {written} written, {skipped} already right".format(**result)
    )
    emit(result) if as_json else typer.echo(output)


@dataclass(frozen=True, slots=True)
class _Task:
    """One text to be read."""

    text: str
    path: Path
    where: str = ""


def _tasks(
    text: str | None,
    file: Path | None,
    jsonl: Path | None,
    field: str,
    output: Path | None,
    *,
    force: bool,
) -> tuple[Path, list[_Task]]:
    """Where to write, and each text to be read.

    Raises:
        typer.BadParameter: not exactly one of the sources is given.
    """
    if [text, file, jsonl].count(None) != 2:
        raise typer.BadParameter("give exactly one of --text, --file and --jsonl")
    if jsonl is not None:
        output = output or jsonl.with_name(f"{jsonl.stem}-caches")
        tasks = [
            _Task(row, output / f"{number:06}{SUFFIX}", f"row {number} of {str(jsonl)!r}: ")
            for number, row in _rows(jsonl, field)
        ]
        _check_folder(output, tasks, jsonl)
        return output, tasks
    if file is not None:
        output = output or file.with_suffix(SUFFIX)
        check_output(output, force=force, sources=[file])
        return output, [_Task(_content(file), output)]
    output = output or Path(f"cache{SUFFIX}")
    check_output(output, force=force)
    return output, [_Task(text or "", output)]


def _content(file: Path) -> str:
    from deliberate.core.errors import TextError

    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{str(file)!r} is not UTF-8 at byte {error.start}: convert it") from error


def _rows(jsonl: Path, field: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each row; empty lines are passed over.

    Raises:
        TextError: a row is not JSON, or has no text.
    """
    from deliberate.core.errors import TextError

    for number, line in enumerate(jsonl.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(
                f"row {number} of {str(jsonl)!r} is not JSON: {error}; mend it"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            known = ", ".join(row) if isinstance(row, dict) else "no keys"
            raise TextError(
                f"row {number} of {str(jsonl)!r} has no text under {field!r}, only {known}: "
                "name the key with --field"
            )
        yield number, row[field]


def _check_folder(output: Path, tasks: list[_Task], jsonl: Path) -> None:
    """Refuse a folder of which the rows would be only a part.

    Raises:
        FileExistsError: it holds a cache file of no row.
        TextError: there are no rows.
    """
    from deliberate.core.errors import TextError

    if not tasks:
        raise TextError(f"{str(jsonl)!r} has no rows: give at least one")
    strays = sorted({*output.glob(f"*{SUFFIX}")} - {task.path for task in tasks})
    if strays:
        raise FileExistsError(
            f"{str(strays[0])!r} is of no row of {str(jsonl)!r}: "
            "name another folder with -o, or remove it"
        )
    check_writable(output)


def _load(name: str, device_name: str, dtype: options.Dtype | None) -> "Base":
    from deliberate.cli.models import chosen_device, chosen_dtype, load_base

    device = chosen_device(device_name)
    return load_base(name, dtype=chosen_dtype(dtype, device), device=device)


def _tokenized(base: "Base", task: _Task) -> "torch.Tensor":
    from deliberate.core.augment import tokenize
    from deliberate.core.errors import TextError

    try:
        return tokenize(base, task.text)
    except TextError as error:
        raise TextError(f"{task.where}{error}") from error


def _is_done(base: "Base", task: _Task, token_ids: "torch.Tensor") -> bool:
    """Whether a row's file is there and right.

    Raises:
        FileExistsError: it is there and is not right.
    """
    if not task.path.exists():
        return False
    if is_right(task.path, origin=base.origin, token_ids=token_ids, dtype=base.model.dtype):
        return True
    raise FileExistsError(
        f"{task.where}{str(task.path)!r} exists and is another cache, or damaged: "
        "name another folder with -o, or replace it with --force"
    )


def _run(base: "Base", pending: "list[tuple[_Task, torch.Tensor]]", batch: int) -> None:
    from deliberate.core.augment import prefill as read
    from deliberate.core.cache_file import save

    with progress("prefill", len(pending)) as advance:
        for part in longest_first(pending, length=lambda text: len(text[1]), size=batch):
            for (task, _), cache in zip(part, read(base, [ids for _, ids in part]), strict=True):
                task.path.parent.mkdir(parents=True, exist_ok=True)
                save(cache, task.path)
                advance(1)
