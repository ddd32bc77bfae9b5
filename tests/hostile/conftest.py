"""Files as somebody who means harm would write them, made by small builders."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from deliberate.core.augment import augment, prefill
from deliberate.core.base import Base
from deliberate.core.cache_file import CacheFile, save
from deliberate.core.checkpoint import load_coprocessor, save_coprocessor, weights_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CacheError, CheckpointError

settings.register_profile(
    "hostile",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("hostile")


@dataclass
class Forged:
    """A safetensors file whose every part can be made to lie."""

    header: dict
    content: bytes
    path: Path
    text: str | None = None
    length: int | None = None
    after: bytes = field(default=b"")

    @classmethod
    def of(cls, path: Path) -> "Forged":
        whole = path.read_bytes()
        [size] = struct.unpack("<Q", whole[:8])
        return cls(json.loads(whole[8 : 8 + size]), whole[8 + size :], path)

    def write(self) -> Path:
        text = (self.text or json.dumps(self.header)).encode()
        length = len(text) if self.length is None else self.length
        self.path.write_bytes(struct.pack("<Q", length) + text + self.content + self.after)
        return self.path


@pytest.fixture
def forged() -> Callable[[Path], Forged]:
    """Takes a file apart, each time as it was at first."""
    first: dict[Path, bytes] = {}

    def take(path: Path) -> Forged:
        path.write_bytes(first.setdefault(path, path.read_bytes()))
        return Forged.of(path)

    return take


@pytest.fixture
def cache_path(llama, make, tmp_path) -> Path:
    """A tiny cache file with latents."""
    plain = prefill(llama, [torch.arange(1, 7)])
    [augmented] = augment(llama, make(llama, "warm"), plain, name="tiny", fingerprint="f" * 16)
    path = tmp_path / "cache.st"
    save(augmented, path)
    return path


@pytest.fixture
def coprocessor_path(llama, make, tmp_path) -> Path:
    """A tiny coprocessor's folder."""
    folder = tmp_path / "coprocessor"
    coprocessor: Coprocessor = make(llama, "warm")
    save_coprocessor(coprocessor, folder, base=llama)
    return folder


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hashes are remembered from elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def outcome_of_cache(path: Path) -> tuple[str, dict, dict]:
    """What reading a cache file whole comes to: a word, its metadata, its tensors.

    Anything but a named error in one line passes through.
    """
    try:
        file = CacheFile(path)
    except (CacheError, FileNotFoundError) as error:
        return "refused", {"said": str(error)}, {}
    with file:
        try:
            file.verify()
        except CacheError as error:
            return "found", {"said": str(error)}, {}
        return "read", file.metadata, {name: file.tensor(name).clone() for name in file.shapes}


def outcome_of_coprocessor(folder: Path, base: Base) -> tuple[str, dict, dict]:
    """What loading a coprocessor, verified, comes to: a word, its settings, its weights."""
    try:
        loaded = load_coprocessor(folder, base=base, verify=True)
    except CheckpointError as error:
        return "refused", {"said": str(error)}, {}
    return "read", loaded.coprocessor.describe(), weights_of(loaded.coprocessor)


@pytest.fixture(scope="session")
def read_cache() -> Callable:
    """Reads a cache file whole."""
    return outcome_of_cache


@pytest.fixture
def read_coprocessor(no_home: None) -> Callable:
    """Loads a coprocessor."""
    return outcome_of_coprocessor
