"""A safetensors file whose bytes are in memory, asked as an open one is.

    bytes --> header, tensors

A mapped file that someone shortens takes the process with it at the next look; bytes that were
read do not change.
"""

import json
import struct
from collections.abc import KeysView
from dataclasses import dataclass

import torch
from safetensors.torch import load
from torch import Tensor

_LENGTH = struct.Struct("<Q")
_KINDS = {torch.int64: "I64"}


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the file."""

    tensor: Tensor

    def get_shape(self) -> list[int]:
        """Its shape."""
        return list(self.tensor.shape)

    def get_dtype(self) -> str:
        """Its dtype: as the file has it where it is an integer, else as torch calls it."""
        return _KINDS.get(self.tensor.dtype, str(self.tensor.dtype))


class HeldSafetensors:
    """What `safetensors.safe_open` offers, over bytes."""

    def __init__(self, content: bytes) -> None:
        """Check the header and take the tensors out.

        Raises:
            SafetensorError: these are not the bytes of such a file, or not all of them.
        """
        self._tensors = load(content)
        [length] = _LENGTH.unpack_from(content)
        header = json.loads(content[_LENGTH.size : _LENGTH.size + length])
        self._metadata: dict[str, str] = header.get("__metadata__") or {}

    def metadata(self) -> dict[str, str]:
        """The header's strings."""
        return self._metadata

    def keys(self) -> KeysView[str]:
        """The tensors' names."""
        return self._tensors.keys()

    def get_slice(self, name: str) -> Part:
        """One tensor's shape and dtype."""
        return Part(self._tensors[name])

    def get_tensor(self, name: str) -> Tensor:
        """One tensor."""
        return self._tensors[name]
