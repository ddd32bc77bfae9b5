"""One cache file that a store may serve: what it is, and its cache, read whole and checked.

    path --examine--> Source (header and token ids)  --read--> Cache (checksum verified)

A file is read into memory before it is checked, so that what is served is what was checked,
whatever happens to the file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from deliberate.core.cache import Cache
from deliberate.core.cache_file import CacheFile
from deliberate.core.errors import CacheError
from deliberate.serve.address import address, file_name
from deliberate.serve.served import Served, private


class OtherContentError(CacheError):
    """A whole cache file, and not of the text or the models that it was of."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file stood under a name, and in which state: it differs after any change."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """What a file's status says."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(slots=True, kw_only=True, eq=False)
class Source:
    """A file, and what its header says."""

    path: Path
    """Where it is."""

    address: str
    """Of its text, its base and its dtype."""

    tokens: int
    """Length of the text."""

    latents: int
    """Latents that it holds by the served coprocessor."""

    rank: int
    """2: with the served coprocessor's latents; 1: plain; 0: with another's, so its text serves."""

    own: bool
    """Whether it is named as the store names what it writes."""

    refusal: str
    """Why it is not served; empty if it is."""

    identity: Identity
    """Of the file when it was looked at."""


def examine(path: Path, served: Served) -> Source:
    """Look at a file's header and token ids.

    Raises:
        CacheError: it is not a cache file, or is damaged.
        OSError: it is gone.
    """
    identity = Identity.of(path.stat())
    with CacheFile(path) as file:
        return _described(file, served, identity)


def read(source: Source, served: Served) -> Cache:
    """The cache in a file, in memory of its own; notes in the source what was found.

    Args:
        source: Of the file, which may have changed since; then it is looked at anew.
        served: The models that are served.

    Returns:
        With latents only where the served coprocessor wrote them.

    Raises:
        CacheError: the file is damaged.
        OtherContentError: it is whole, and not of the text it was of, or not of these models.
        OSError: it is gone or cannot be read.
    """
    with source.path.open("rb") as opened:
        identity = Identity.of(os.fstat(opened.fileno()))
        content = opened.read()
    with CacheFile(source.path, content=content) as file:
        file.verify()
        found = _described(file, served, identity)
        if found.refusal:
            raise OtherContentError(f"{str(source.path)!r} {found.refusal}")
        if found.address != source.address:
            raise OtherContentError(f"{str(source.path)!r} holds another text than it did")
        cache = file.cache()
    source.identity, source.latents, source.rank = identity, found.latents, found.rank
    return cache if found.latents or cache.latents is None else private(cache.text_part())


def _described(file: CacheFile, served: Served, identity: Identity) -> Source:
    base, dtype = file.metadata["base_fingerprint"], file.metadata["dtype"]
    found = address(file.tensor("token_ids"), fingerprint=base, dtype=dtype)
    latents = file.num_latents
    ours = latents > 0 and file.origin.coprocessor_fingerprint == served.coprocessor != ""
    refusal = ""
    if base != served.fingerprint:
        refusal = f"is of base {file.origin.base!r} ({base}), which is not served"
    elif dtype != served.dtype:
        refusal = f"holds {dtype}, and {served.dtype} is served"
    return Source(
        path=file.path,
        address=found,
        tokens=file.num_tokens,
        latents=latents if ours else 0,
        rank=2 if ours else int(not latents),
        own=file.path.name == file_name(found),
        refusal=refusal,
        identity=identity,
    )
