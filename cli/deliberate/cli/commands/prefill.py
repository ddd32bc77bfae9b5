"""`deliberate prefill`: texts to cache files."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import SUFFIX, check_output, is_right
from deliberate.cli.sharing import ShardName, Share, Work, refuse_share, share_of
from deliberate.cli.terminal import emit, note, progress
from deliberate.cli.text_rows import Checked, JsonlRows, Row, SourceRows, TextRows

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
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="A folder of texts, a Parquet or JSONL file, a folder of these, `stdlib`, "
            "`installed` or a dataset's Hub id.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            "--field",
            metavar="KEY",
            help="Key of the text in --jsonl and --data rows.",
            show_default="text",
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Leave --data files and --jsonl rows out that cannot be read, and count them.",
        ),
    ] = False,
    output: options.Output = None,
    base: options.BaseName = options.EMBEDDED,
    batch: options.BatchSize = 8,
    shard: ShardName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Read texts, and keep their caches as files.

    One text becomes one file: --text `cache.st` here, --file NAME.txt `NAME.st` beside it.

    --jsonl NAME.jsonl and --data NAME become the folder `NAME-caches` beside it, one file a row,
    named by the row's number (`000001.st`). Interrupted, it is gone on with by the same command:
    files that are already right are skipped.

    Any number of workers may run that command on one folder: each takes what nobody has, and what
    one that dies has left. Or each is told its share, by --shard or by torchrun. The files are the
    same in any case.

    What exists and is not right is replaced with --force only.
    """
    rows = _rows(text, file, jsonl, data, field, skip_bad=skip_bad)
    if rows is None:
        refuse_share(shard, of="the texts of --jsonl and --data")
        output = _checked_output(file, output, force=force)
        content = text or "" if file is None else _content(file)
        model = _load(base, device, dtype)
        token_ids = _tokenized(model, Row(number=1, text=content, where=""))
        _keep(model, [token_ids], [output])
        counts = {"written": 1, "skipped": 0, "others": 0, "tokens": len(token_ids)}
    else:
        share, output = share_of(shard), output or rows.output
        checked = rows.check()
        if rows.skipped:
            note(f"{rows.skipped:,} rows of {rows.name!r} cannot be read and are left out")
        _check_folder(output, checked, rows.name)
        model = _load(base, device, dtype)
        _check_lengths(model, rows, checked)
        work = _work(model, rows, checked, batch, force=force)
        counts = _run(model, work, share, output, force=force)

    result = {
        "output": str(output),
        **counts,
        "base": model.id,
        "base_fingerprint": model.fingerprint,
    }
    note(
        "{tokens} tokens for {base!r}: {written} written, {skipped} already right, "
        "{others} left to other workers".format(**result)
    )
    emit(result) if as_json else typer.echo(output)


def _rows(
    text: str | None,
    file: Path | None,
    jsonl: Path | None,
    data: str | None,
    field: str | None,
    *,
    skip_bad: bool,
) -> TextRows | None:
    """The rows to be read; none where it is a single text.

    Raises:
        typer.BadParameter: not exactly one of the sources is given, or one has no rows and an
            option is for rows.
    """
    if [text, file, jsonl, data].count(None) != 3:
        raise typer.BadParameter("give exactly one of --text, --file, --jsonl and --data")
    key = "text" if field is None else field
    if jsonl is not None:
        return JsonlRows(jsonl, key, skip_bad=skip_bad)
    if data is not None:
        return SourceRows(data, key, skip_bad=skip_bad)
    for name, given in (("--skip-bad", skip_bad), ("--field", field is not None)):
        if given:
            raise typer.BadParameter(f"{name} is for --jsonl and --data: leave it out")
    return None


def _checked_output(file: Path | None, output: Path | None, *, force: bool) -> Path:
    """Where a single text's cache goes."""
    output = output or (Path(f"cache{SUFFIX}") if file is None else file.with_suffix(SUFFIX))
    check_output(output, force=force, sources=[] if file is None else [file])
    return output


def _content(file: Path) -> str:
    from deliberate.core.errors import TextError

    try:
        return file.read_bytes().decode("utf-8")  # not as text: line ends are part of it
    except UnicodeDecodeError as error:
        raise TextError(f"{str(file)!r} is not UTF-8 at byte {error.start}: convert it") from error


def _check_folder(output: Path, checked: Checked, name: str) -> None:
    """Refuse a folder of which the rows would be only a part.

    Raises:
        FileExistsError: it holds a cache file of no row.
        OSError: it cannot be written.
    """
    from deliberate.core.atomic import check_writable

    strays = []
    for path in output.glob(f"*{SUFFIX}"):
        number = int(path.stem) if path.stem.isdecimal() and path.stem.isascii() else 0
        known = 0 < number < len(checked.numbers) and checked.numbers[number]
        if not known or path.stem != f"{number:06}":
            strays.append(path)
    if strays:
        raise FileExistsError(
            f"{str(min(strays))!r} is of no row of {name!r}: "
            "name another folder with -o, or remove it"
        )
    check_writable(output)


def _load(name: str, device_name: str, dtype: options.Dtype | None) -> "Base":
    from deliberate.cli.models import chosen_device, chosen_dtype, load_base

    device = chosen_device(device_name)
    return load_base(name, dtype=chosen_dtype(dtype, device), device=device)


def _check_lengths(base: "Base", rows: TextRows, checked: Checked) -> None:
    """Refuse a text that is too long before any other is read.

    Only texts that might be are tokenized: a character is at most four bytes, and a token at least
    one. Where a tokenizer does otherwise, the text is refused when its turn comes.

    Raises:
        TextError: names the row.
    """
    if base.positions is None or 4 * checked.longest < base.positions:
        return
    for row in rows:
        if 4 * len(row.text) >= base.positions:
            _tokenized(base, row)


def _tokenized(base: "Base", row: Row) -> "torch.Tensor":
    from deliberate.core.augment import tokenize
    from deliberate.core.errors import TextError

    try:
        return tokenize(base, row.text)
    except TextError as error:
        raise TextError(f"{row.where}{error}") from error


def _work(base: "Base", rows: TextRows, checked: Checked, batch: int, *, force: bool) -> Work[Row]:
    identity = f"prefill {base.fingerprint} {base.model.dtype} {batch} {force} "
    return Work(
        items=lambda: rows,
        count=checked.count,
        length=lambda row: len(row.text),
        size=batch,
        identity=identity.encode() + checked.digest,
    )


def _run(
    base: "Base", work: Work[Row], share: Share | None, output: Path, *, force: bool
) -> dict[str, int]:
    """Read the batches that are this worker's; what came of them."""
    written = skipped = tokens = 0
    batches = work.batches_of(share, output)
    with closing(batches), progress("prefill", work.num_items(share)) as advance:
        for batch in batches:
            texts = [_tokenized(base, row) for row in batch]
            wanted = _wanted(base, batch, texts, output, force=force)
            if any(wanted):
                _keep(base, texts, wanted)
            done = wanted.count(None)
            written, skipped = written + len(batch) - done, skipped + done
            tokens += sum(len(ids) for ids in texts)
            advance(len(batch))
    others = work.count - written - skipped
    return {"written": written, "skipped": skipped, "others": others, "tokens": tokens}


def _wanted(
    base: "Base", batch: Sequence[Row], texts: "list[torch.Tensor]", output: Path, *, force: bool
) -> list[Path | None]:
    """Where each row's cache is to be written; none where it is there and right."""
    paths: list[Path | None] = [output / row.file_name for row in batch]
    if force:
        return paths
    order = sorted(range(len(batch)), key=lambda index: batch[index].number)
    for index in order:  # so that the first one that is not right is named
        path = output / batch[index].file_name
        if _is_done(base, batch[index], path, texts[index]):
            paths[index] = None
    return paths


def _is_done(base: "Base", row: Row, path: Path, token_ids: "torch.Tensor") -> bool:
    """Whether a row's file is there and right.

    Raises:
        FileExistsError: it is there and is not right.
    """
    if not path.exists():
        return False
    if is_right(path, origin=base.origin, token_ids=token_ids, dtype=base.model.dtype):
        return True
    raise FileExistsError(
        f"{row.where}{str(path)!r} exists and is another cache, or damaged: "
        "name another folder with -o, or replace it with --force"
    )


def _keep(base: "Base", texts: "list[torch.Tensor]", paths: list[Path | None]) -> None:
    """Read a batch, all of it so that it is the same whatever is kept, and write what is."""
    from deliberate.core.augment import prefill as read
    from deliberate.core.cache_file import save

    for path, cache in zip(paths, read(base, texts), strict=True):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save(cache, path)
