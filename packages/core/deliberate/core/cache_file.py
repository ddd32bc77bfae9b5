"""Cache files: one text's cache, with or without latents, in one safetensors file.

    Cache --save--> text.st --CacheFile--> header, single layers, or the whole Cache

The layout is described in `docs/cache-format.md`, well enough to write another reader.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deliberate.core.atomic import replacing
from deliberate.core.cache import Cache, Origin
from deliberate.core.errors import CacheError
from deliberate.core.held_safetensors import HeldSafetensors

FORMAT = "deliberate.cache"
VERSION = "1"
SUFFIX = ".st"

_TEXT_NAMES = {"token_ids", "position_ids", "last_hidden"}
_LATENT_NAMES = {"latents", "latents_last_hidden"}
_METADATA = (
    "format",
    "version",
    "base",
    "revision",
    "base_fingerprint",
    "coprocessor",
    "coprocessor_fingerprint",
    "dtype",
    "checksum",
)


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
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


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
        if content is None and not path.is_file():
            raise FileNotFoundError(
                f"no cache file at {str(path)!r}: make one with `deliberate prefill`"
            )
        try:
            if content is None:
                self._file: Any = safe_open(path, framework="pt")
            else:
                self._file = HeldSafetensors(content)
        except (SafetensorError, OSError) as error:
            raise CacheError(
                f"{str(path)!r} is not a cache file, or is damaged: {error}; make one of a text "
                "with `deliberate prefill --file PATH`"
            ) from error
        self.metadata: dict[str, str] = self._file.metadata() or {}
        self._check_metadata()
        self._shapes = {
            name: (tuple(part.get_shape()), part.get_dtype())
            for name in self._file.keys()  # noqa: SIM118 (not a dict)
            for part in [self._file.get_slice(name)]
        }
        self.num_layers = sum(name.endswith(".keys") for name in self._shapes)
        self._check_shapes()

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
        del self._file

    @property
    def num_tokens(self) -> int:
        """Tokens of the text."""
        return self._shapes["token_ids"][0][0]

    @property
    def num_latents(self) -> int:
        """Latents after the text; 0 for a plain cache."""
        return self._shapes["latents"][0][0] if "latents" in self._shapes else 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        return {name: shape for name, (shape, _) in self._shapes.items()}

    @property
    def origin(self) -> Origin:
        """Which models made it."""
        names = ("base", "revision", "base_fingerprint", "coprocessor", "coprocessor_fingerprint")
        return Origin(**{name: self.metadata[name] for name in names})

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped from the file and not read before it is used."""
        return self._file.get_tensor(name)

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
        tensors = [(name, self.tensor(name)) for name in self._shapes]
        for name, tensor in tensors:
            if not _is_finite(tensor):
                raise CacheError(f"{str(self.path)!r}: {name} holds NaN or infinity; make it again")
        if checksum(tensors, stated) != self.metadata["checksum"]:
            raise CacheError(
                f"{str(self.path)!r} does not match its checksum: it was changed or damaged; "
                "make it again"
            )

    def _check_metadata(self) -> None:
        if self.metadata.get("format") != FORMAT:
            raise CacheError(
                f"{str(self.path)!r} is a safetensors file and not a cache file: "
                "make one of a text with `deliberate prefill --file PATH`"
            )
        version = self.metadata.get("version")
        if version != VERSION:
            raise CacheError(
                f"{str(self.path)!r} has format version {version!r} and this program reads "
                f"{VERSION!r}: make it again, or use the program that wrote it"
            )
        for name in _METADATA:
            if name not in self.metadata:
                raise CacheError(f"{str(self.path)!r} lacks {name!r} in its header; make it again")

    def _check_shapes(self) -> None:
        names = set(self._shapes)
        layers = range(self.num_layers)
        expected = _TEXT_NAMES | {
            f"layers.{i}.{part}" for i in layers for part in ("keys", "values")
        }
        if names & _LATENT_NAMES:
            expected |= _LATENT_NAMES
        if names != expected or not layers:
            odd = ", ".join(sorted(names ^ expected)) or "layers"
            raise CacheError(
                f"{str(self.path)!r} has missing or unknown tensors: {odd}; make it again"
            )
        tokens, latents = self._size("token_ids", 1), 0
        hidden = self._size("last_hidden", 1)
        if "latents" in names:
            latents = self._size("latents", 2)
            self._expect("latents", (latents, hidden))
            self._expect("latents_last_hidden", (hidden,))
        self._expect("position_ids", (tokens + latents,))
        for part in ("keys", "values"):
            heads = self._size(f"layers.0.{part}", 3)
            width = self._shapes[f"layers.0.{part}"][0][2]
            for layer in layers:
                self._expect(f"layers.{layer}.{part}", (heads, tokens + latents, width))

    def _size(self, name: str, rank: int) -> int:
        shape, _ = self._shapes[name]
        if len(shape) != rank or 0 in shape:
            raise CacheError(
                f"{str(self.path)!r}: {name} has shape {shape} and not {rank} non-empty axes; "
                "make it again"
            )
        return shape[0]

    def _expect(self, name: str, wanted: tuple[int, ...]) -> None:
        shape, dtype = self._shapes[name]
        stated = "I64" if name.endswith("_ids") else None
        if shape != wanted or (stated and dtype != stated):
            raise CacheError(
                f"{str(self.path)!r}: {name} is {dtype} {shape} and should be "
                f"{stated or dtype} {wanted}; make it again"
            )


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
