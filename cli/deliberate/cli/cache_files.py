"""Cache files as the commands use them: found, opened for a base, compared, and where to write.

Existing files are never replaced unless `--force` says so; a folder is gone on with, and the
files in it that are already right are left alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deliberate.cli.options import EMBEDDED

if TYPE_CHECKING:
    import torch

    from deliberate.core.base import Base
    from deliberate.core.cache import Cache, Origin
    from deliberate.core.cache_file import CacheFile

SUFFIX = ".st"


def found(path: Path) -> list[Path]:
    """The cache file at a path, or those in the folder that it is, in order.

    Raises:
        FileNotFoundError: there is nothing at the path, or no cache file in the folder.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(
                f"no cache file at {str(path)!r}: make one with `deliberate prefill`"
            )
        return [path]
    files = sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if not files:
        raise FileNotFoundError(
            f"the folder {str(path)!r} holds no cache files (*{SUFFIX}): "
            "make some with `deliberate prefill`"
        )
    return files


def base_for(
    file: "CacheFile",
    name: str | None,
    *,
    device: "torch.device",
    dtype: "torch.dtype | None" = None,
) -> "Base":
    """The base that made a cache file, in the file's dtype; another base is refused.

    Args:
        file: Already verified.
        name: The base, where the user named it.
        device: Where its weights are held.
        dtype: What the user asked for, if anything.

    Raises:
        typer.BadParameter: the user asked for another dtype than the file's.
    """
    from deliberate.cli.models import load_base
    from deliberate.core.cache_fit import check_fit

    held, origin = dtype_of(file), file.origin
    if dtype not in {None, held}:
        raise typer.BadParameter(
            f"{str(file.path)!r} holds {held} and not {dtype}: leave --dtype out, or prefill again"
        )
    noted = {"revision": origin.revision, "named_by": str(file.path)}
    if name is None and origin.base:
        base = load_base(origin.base, dtype=held, device=device, **noted)
    else:
        base = load_base(name or EMBEDDED, dtype=held, device=device)
    check_fit(file, base)
    return base


def check_fits(file: "CacheFile", base: "Base") -> None:
    """Refuse a cache file that the base cannot go on from.

    Raises:
        CacheError: another base made it, or this base in another dtype.
    """
    from deliberate.core.cache_fit import check_fit
    from deliberate.core.errors import CacheError

    check_fit(file, base)
    held, wanted = dtype_of(file), base.model.dtype
    if held != wanted:
        raise CacheError(
            f"{str(file.path)!r} holds {held} and the files before it {wanted}: "
            "give files of one dtype at a time"
        )


def placed(cache: "Cache", device: "torch.device") -> "Cache":
    """The cache on a device; the one given is left as it was."""
    tensors = {
        field.name: value.to(device)
        for field in dataclasses.fields(cache)
        if hasattr(value := getattr(cache, field.name), "to")
    }
    keys = [layer.to(device) for layer in cache.keys]
    values = [layer.to(device) for layer in cache.values]
    return dataclasses.replace(cache, **tensors, keys=keys, values=values)


def is_right(
    path: Path, *, origin: "Origin", token_ids: "torch.Tensor", dtype: "torch.dtype"
) -> bool:
    """Whether a file is a readable cache of that text by those models in that dtype."""
    from deliberate.core.cache_file import CacheFile
    from deliberate.core.errors import CacheError

    try:
        with CacheFile(path) as file:
            return (
                file.origin.base_fingerprint == origin.base_fingerprint
                and file.origin.coprocessor_fingerprint == origin.coprocessor_fingerprint
                and bool(file.num_latents) == bool(origin.coprocessor_fingerprint)
                and dtype_of(file) == dtype
                and file.tensor("token_ids").equal(token_ids.cpu())
            )
    except CacheError:
        return False


def dtype_of(file: "CacheFile") -> "torch.dtype":
    """In which numbers a cache file's keys and values are held."""
    return file.tensor("layers.0.keys").dtype


def check_output(path: Path, *, force: bool, sources: Sequence[Path] = ()) -> None:
    """Refuse an output file that exists or cannot be written, before anything is computed.

    Args:
        path: The file to be written.
        force: Whether it may replace one that exists.
        sources: Files that must not be replaced in any case.

    Raises:
        FileExistsError: it exists, and may not be replaced.
        IsADirectoryError: it is a folder.
        OSError: it cannot be written.
    """
    from deliberate.core.atomic import check_writable

    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file with -o")
    if path.exists():
        if any(path.samefile(source) for source in sources):
            raise FileExistsError(f"{str(path)!r} is what is read: name another file with -o")
        if not force:
            raise FileExistsError(
                f"{str(path)!r} exists: name another file with -o, or replace it with --force"
            )
    check_writable(path.parent)
