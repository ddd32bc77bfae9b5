"""`deliberate augment`: cache files to augmented cache files."""

import dataclasses
import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import (
    base_for,
    check_fits,
    check_output,
    found,
    is_right,
    placed,
)
from deliberate.cli.sharing import ShardName, Share, Work, refuse_share, share_of
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
    shard: ShardName = None,
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Let the coprocessor think over cache files.

    What is written goes beside what is read, with `.augmented` in its name: `cache.st` becomes
    `cache.augmented.st`, the folder `caches` becomes `caches.augmented`. What is read is left as
    it was, unless -o names it and --force is given; its text part is kept in any case.

    A folder that was interrupted is gone on with by the same command: files that are already
    right are skipped. Any number of workers may run that command on one folder, once all caches
    are in it: each takes what nobody has, and what one that dies has left; or each is told its
    share, by --shard or by torchrun.

    A cache that has latents already is refused; with --force its text part is augmented anew.
    """
    from deliberate.cli.models import chosen_device, load_coprocessor
    from deliberate.core.atomic import check_writable
    from deliberate.core.cache_file import CacheFile

    files, folder = found(cache), cache.is_dir()
    if not folder:
        refuse_share(shard, of="the files of a folder")
    share = share_of(shard) if folder else Share(index=0, count=1)
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
    for source in files:
        _check(source, model, trained, force=force)
    work = _work(model, trained, pairs, batch, force=force)
    counts = _run(model, trained, work, share, output, force=force)

    result = {
        "output": str(output),
        **counts,
        "latents": trained.coprocessor.config.latents,
        "base": model.id,
        "base_fingerprint": model.fingerprint,
        "coprocessor": trained.id,
        "coprocessor_fingerprint": trained.fingerprint,
    }
    note(
        "{latents} latents by {coprocessor!r} each: {written} written, "
        "{skipped} already right, {others} left to other workers".format(**result)
    )
    emit(result) if as_json else typer.echo(output)


def _beside(cache: Path) -> Path:
    """Where to write what is made of a cache file, or of a folder of them."""
    if cache.is_dir():
        named = cache if cache.name not in {"", ".."} else cache.resolve()
        return named.with_name(f"{named.name}.augmented")
    return cache.with_name(f"{cache.stem}.augmented{cache.suffix}")


def _check(source: Path, base: "Base", trained: "Trained", *, force: bool) -> None:
    """Refuse a file that cannot be augmented, before anything is written.

    Raises:
        CacheError: it is of another base, has latents, or leaves no room for them.
    """
    from deliberate.core.augment import check_latents_fit
    from deliberate.core.cache_file import CacheFile
    from deliberate.core.errors import CacheError

    with CacheFile(source) as file:
        check_fits(file, base)
        if file.num_latents and not force:
            raise CacheError(
                f"{str(source)!r} has {file.num_latents} latents already: "
                "augment its text part anew with --force"
            )
        try:
            check_latents_fit(base, trained.coprocessor, file.num_tokens)
        except CacheError as error:
            raise CacheError(f"{str(source)!r}: {error}") from error


Pair = tuple[Path, Path]
"""A file to be read, and where to write."""


def _work(
    base: "Base", trained: "Trained", pairs: Sequence[Pair], batch: int, *, force: bool
) -> Work[Pair]:
    """All files; those of about one size are computed together, as they were at the beginning."""
    sizes = {source: source.stat().st_size for source, _ in pairs}
    digest = hashlib.sha256()
    for source, size in sizes.items():
        digest.update(f"{source.name} {size}\n".encode())
    models = f"{base.fingerprint} {base.model.dtype} {trained.fingerprint}"
    return Work(
        items=lambda: pairs,
        count=len(pairs),
        length=lambda pair: sizes[pair[0]],
        size=batch,
        identity=f"augment {models} {batch} {force} ".encode() + digest.digest(),
    )


def _run(
    base: "Base",
    trained: "Trained",
    work: Work[Pair],
    share: Share | None,
    output: Path,
    *,
    force: bool,
) -> dict[str, int]:
    """Augment the batches that are this worker's; what came of them."""
    origin = dataclasses.replace(
        base.origin, coprocessor=trained.id, coprocessor_fingerprint=trained.fingerprint
    )
    written = skipped = 0
    batches = work.batches_of(share, output)
    with closing(batches), progress("augment", work.num_items(share)) as advance:
        for batch in batches:
            ordered = sorted(batch)  # so that the first one that is not right is named
            wanted = {pair for pair in ordered if force or not _is_done(*pair, base, origin)}
            if wanted:
                _keep(base, trained, batch, wanted)
            written, skipped = written + len(wanted), skipped + len(batch) - len(wanted)
            advance(len(batch))
    return {"written": written, "skipped": skipped, "others": work.count - written - skipped}


def _is_done(source: Path, target: Path, base: "Base", origin: "Origin") -> bool:
    """Whether a file's augmented cache is there and right.

    Raises:
        FileExistsError: something else is where it would be written.
    """
    from deliberate.core.cache_file import CacheFile

    if not target.exists():
        return False
    with CacheFile(source) as file:
        token_ids = file.tensor("token_ids").clone()
    if is_right(target, origin=origin, token_ids=token_ids, dtype=base.model.dtype):
        return True
    raise FileExistsError(
        f"{str(target)!r} exists and is another cache, or damaged: "
        "name another place with -o, or replace it with --force"
    )


def _keep(base: "Base", trained: "Trained", batch: Sequence[Pair], wanted: set[Pair]) -> None:
    """Augment a batch, all of it so that it is the same whatever is kept, and write what is."""
    from deliberate.core.augment import augment as ask
    from deliberate.core.cache_file import CacheFile, save

    plain = []
    for source, _ in batch:
        with CacheFile(source) as file:
            file.verify()  # its content gets a new checksum, which must not hide damage
            plain.append(placed(file.cache(), base.device).text_part())
    coprocessor, name, fingerprint = trained.coprocessor, trained.id, trained.fingerprint
    caches = ask(base, coprocessor, plain, name=name, fingerprint=fingerprint)
    for pair, cache in zip(batch, caches, strict=True):
        if pair in wanted:
            pair[1].parent.mkdir(parents=True, exist_ok=True)
            save(cache, pair[1])
