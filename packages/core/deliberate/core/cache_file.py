"""Cache files: one text's cache, with or without latents, in one safetensors file.

    Cache --save--> text.st --CacheFile--> header, single layers, or the whole Cache

The layout is described in `docs/cache-format.md`, well enough to write another reader.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from deliberate.core import plain_file
from deliberate.core.atomic import replacing
from deliberate.core.cache import Cache, Origin
from deliberate.core.cache_layout import FORMAT, VERSION, check_layout, layers_of
from deliberate.core.errors import CacheError
from deliberate.core.safetensors_header import Header, read_header

SUFFIX = ".st"


def save(cache: Cache, path: Path) -> None:
    """Write a cache file, whole or not at all.

    Args:
        cache: On any device; ends with its text or with its latents.
        path: Replaced if it exists.

    Raises:
        CacheError: the cache holds numbers that are not finite, or text after its latents.
        OSError: the disk is full or the folder cannot be written.
    """
    if cache.followed:
        raise CacheError("a cache file ends with its text or its latents: save before reading on")
    tensors = _tensors(cache)
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise CacheError(f"{name} holds NaN or infinity: it cannot be saved to {str(path)!r}")
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "base": cache.origin.base,
        "revision": cache.origin.revision,
        "base_fingerprint": cache.origin.base_fingerprint,
        "coprocessor": cache.origin.coprocessor,
        "coprocessor_fingerprint": cache.origin.coprocessor_fingerprint,
        "dtype": str(cache.keys[0].dtype).removeprefix("torch."),
    }
    metadata["checksum"] = checksum(tensors.items(), metadata)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def checksum(tensors: Iterable[tuple[str, Tensor]], metadata: dict[str, str]) -> str:
    """SHA-256 over metadata, and over each tensor's name, shape, dtype and bytes.

    Args:
        tensors: In any order; each contiguous and on the CPU.
        metadata: Without the checksum.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class CacheFile:
    """An open cache file, its header checked; layers are read when asked for."""

    def __init__(self, path: Path, *, content: bytes | None = None) -> None:
        """Open and check the header, without reading any layer.

        Args:
            path: The file.
            content: Its bytes, where they were read already: the file is then not opened, and
                what happens to it later does not matter.

        Raises:
            CacheError: it is a folder, or not a cache file, or is damaged, or of another version.
            FileNotFoundError: there is no such file.
        """
        self.path = path
        if content is None and path.is_dir():
            raise CacheError(f"{str(path)!r} is a folder: name one cache file in it")
        if content is None and not path.exists():
            raise FileNotFoundError(
                f"no cache file at {str(path)!r}: make one with `deliberate prefill`"
            )
        try:
            # The header first, so that no library is shown one that is at odds with itself.
            header = _header(path, content)
            self._get: Callable[[str], Tensor] = (
                safe_open(path, framework="pt").get_tensor
                if content is None
                else load(content).__getitem__
            )
        except (SafetensorError, OSError, ValueError) as error:
            raise CacheError(
                f"{str(path)!r} is not a cache file, or is damaged: {error}; make one of a text "
                "with `deliberate prefill --file PATH`"
            ) from error
        check_layout(header, name=str(path))
        self.metadata = header.metadata
        """The header's strings."""
        self.shapes = {name: part.shape for name, part in header.parts.items()}
        """Shape of each tensor by name."""
        self.num_layers = layers_of(header)
        """Layers of the base that made it."""

    def __enter__(self) -> "CacheFile":
        """The file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the file go."""
        del self._get

    @property
    def num_tokens(self) -> int:
        """Tokens of the text."""
        return self.shapes["token_ids"][0]

    @property
    def num_latents(self) -> int:
        """Latents after the text; 0 for a plain cache."""
        return self.shapes["latents"][0] if "latents" in self.shapes else 0

    @property
    def origin(self) -> Origin:
        """Which models made it."""
        names = ("base", "revision", "base_fingerprint", "coprocessor", "coprocessor_fingerprint")
        return Origin(**{name: self.metadata[name] for name in names})

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped from the file and not read before it is used."""
        return self._get(name)

    def cache(self) -> Cache:
        """The whole cache."""
        layers = range(self.num_layers)
        augmented = self.num_latents > 0
        return Cache(
            keys=[self.tensor(f"layers.{layer}.keys") for layer in layers],
            values=[self.tensor(f"layers.{layer}.values") for layer in layers],
            token_ids=self.tensor("token_ids"),
            position_ids=self.tensor("position_ids"),
            last_hidden=self.tensor("last_hidden"),
            latents=self.tensor("latents") if augmented else None,
            latents_last_hidden=self.tensor("latents_last_hidden") if augmented else None,
            origin=self.origin,
        )

    def verify(self) -> None:
        """Read everything, and compare with the checksum.

        Raises:
            CacheError: the content is not what was written, or holds NaN or infinity.
        """
        stated = {key: value for key, value in self.metadata.items() if key != "checksum"}
        tensors = [(name, self.tensor(name)) for name in self.shapes]
        for name, tensor in tensors:
            if not _is_finite(tensor):
                raise CacheError(f"{str(self.path)!r}: {name} holds NaN or infinity; make it again")
        if checksum(tensors, stated) != self.metadata["checksum"]:
            raise CacheError(
                f"{str(self.path)!r} does not match its checksum: it was changed or damaged; "
                "make it again"
            )


def _header(path: Path, content: bytes | None) -> Header:
    if content is not None:
        return read_header(io.BytesIO(content), len(content))
    with plain_file.opened(path) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)


def check_base(origin: Origin, *, base: str, fingerprint: str, path: Path) -> None:
    """Refuse a cache that another base made.

    Raises:
        CacheError: the fingerprints differ.
    """
    if origin.base_fingerprint != fingerprint:
        raise CacheError(
            f"{str(path)!r} was made by base {origin.base!r} ({origin.base_fingerprint}) and "
            f"this is {base!r} ({fingerprint}): name the base that made it, or prefill again"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite."""
    # A sum is finite only if every term is, and fifty times as fast as asking each of them;
    # a sum that is not finite may have overflowed.
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def _tensors(cache: Cache) -> dict[str, Tensor]:
    tensors = {
        "token_ids": cache.token_ids,
        "position_ids": cache.position_ids,
        "last_hidden": cache.last_hidden,
    }
    for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
        tensors[f"layers.{layer}.keys"] = keys
        tensors[f"layers.{layer}.values"] = values
    if cache.latents is not None and cache.latents_last_hidden is not None:
        tensors["latents"] = cache.latents
        tensors["latents_last_hidden"] = cache.latents_last_hidden
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
