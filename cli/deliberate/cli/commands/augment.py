"""`deliberate augment`: cache files to augmented cache files."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import (
    base_for,
    check_fits,
    check_output,
    check_writable,
    found,
    is_right,
    longest_first,
    placed,
)
from deliberate.cli.terminal import emit, note, progress

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.core.cache import Origin
    from deliberate.core.checkpoint import Trained


def augment(
    cache: Annotated[
        Path,
        typer.Argument(
            metavar="CACHE", help="A cache file, or a folder of them.", show_default=False
        ),
    ],
    *,
    output: options.Output = None,
    coprocessor: options.CoprocessorName = options.EMBEDDED,
    base: options.ImpliedBaseName = None,
    batch: options.BatchSize = 8,
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Let the coprocessor think over cache files.

    What is written goes beside what is read, with `.augmented` in its name: `cache.st` becomes
    `cache.augmented.st`, the folder `caches` becomes `caches.augmented`. What is read is left as
    it was, unless -o names it and --force is given; its text part is kept in any case.

    A folder that was interrupted is gone on with by the same command: files that are already
    right are skipped. A cache that has latents already is refused; with --force its text part
    is augmented anew.
    """
    from deliberate.cli.models import chosen_device, load_coprocessor
    from deliberate.core.cache_file import CacheFile

    files = found(cache)
    folder = cache.is_dir()
    output = output or _beside(cache)
    if folder:
        check_writable(output)
    else:
        check_output(output, force=force)
    with CacheFile(files[0]) as first:
        first.verify()
        model = base_for(first, base, device=chosen_device(device))
    trained = load_coprocessor(coprocessor, model)
    pairs = [(file, output / file.name if folder else output) for file in files]
    origin = dataclasses.replace(
        model.origin, coprocessor=trained.id, coprocessor_fingerprint=trained.fingerprint
    )
    pending = [pair for pair in pairs if not _is_done(*pair, model, origin, force=force)]
    _run(model, trained, pending, batch)

    result = {
        "output": str(output),
        "written": len(pending),
        "skipped": len(pairs) - len(pending),
        "latents": trained.coprocessor.config.latents,
        "base": model.id,
        "base_fingerprint": model.fingerprint,
        "coprocessor": trained.id,
        "coprocessor_fingerprint": trained.fingerprint,
    }
    note(
        "{latents} latents by {coprocessor!r} each: {written} written, "
        "{skipped} already right".format(**result)
    )
    emit(result) if as_json else typer.echo(output)


def _beside(cache: Path) -> Path:
    """Where to write what is made of a cache file, or of a folder of them."""
    if cache.is_dir():
        named = cache if cache.name not in {"", ".."} else cache.resolve()
        return named.with_name(f"{named.name}.augmented")
    return cache.with_name(f"{cache.stem}.augmented{cache.suffix}")


def _is_done(source: Path, target: Path, base: "Base", origin: "Origin", *, force: bool) -> bool:
    """Whether a file's augmented cache is there and right.

    Raises:
        CacheError: the file cannot be augmented.
        FileExistsError: something else is where it would be written.
    """
    from deliberate.core.cache_file import CacheFile
    from deliberate.core.errors import CacheError

    with CacheFile(source) as file:
        check_fits(file, base)
        if force:
            return False
        if target.exists():
            if is_right(
                target, origin=origin, token_ids=file.tensor("token_ids"), dtype=base.model.dtype
            ):
                return True
            raise FileExistsError(
                f"{str(target)!r} exists and is another cache, or damaged: "
                "name another place with -o, or replace it with --force"
            )
        if file.num_latents:
            raise CacheError(
                f"{str(source)!r} has {file.num_latents} latents already: "
                "augment its text part anew with --force"
            )
    return False


def _num_tokens(source: Path) -> int:
    from deliberate.core.cache_file import CacheFile

    with CacheFile(source) as file:
        return file.num_tokens


def _run(base: "Base", trained: "Trained", pending: list[tuple[Path, Path]], batch: int) -> None:
    from deliberate.core.augment import augment as ask
    from deliberate.core.cache_file import CacheFile, save
    from deliberate.core.errors import CacheError

    with progress("augment", len(pending)) as advance:
        for part in longest_first(pending, length=lambda pair: _num_tokens(pair[0]), size=batch):
            plain = []
            for source, _ in part:
                with CacheFile(source) as file:
                    file.verify()  # its content gets a new checksum, which must not hide damage
                    plain.append(placed(file.cache(), base.device).text_part())
            try:
                caches = ask(
                    base,
                    trained.coprocessor,
                    plain,
                    name=trained.id,
                    fingerprint=trained.fingerprint,
                )
            except CacheError as error:  # it is about the longest, which comes first
                raise CacheError(f"{str(part[0][0])!r}: {error}") from error
            for (_, target), cache in zip(part, caches, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                save(cache, target)
                advance(1)
