"""A coprocessor as a folder: `config.json` and `model.safetensors`, here or on the Hub.

The folder says what the coprocessor is, which base it serves and how it was trained; it holds
no weights of the base.
"""

import dataclasses
import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from safetensors.torch import save_file
from torch import Tensor

from deliberate.core import fingerprint, hub, plain_json, weights_file
from deliberate.core.atomic import replacing, write_bytes
from deliberate.core.base import EMBEDDED, NANO, Base
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig
from deliberate.core.errors import CheckpointError
from deliberate.core.hub_id import HubId
from deliberate.core.kinds import KINDS, build
from deliberate.core.weights_file import CHECKSUM, WEIGHTS

FORMAT = "deliberate.coprocessor"
VERSION = 1
CONFIG = "config.json"

FILES = (CONFIG, WEIGHTS, "recipe.yaml", "eval.json", "README.md")
"""What is fetched of a coprocessor on the Hub, by loading as by pulling: the cache serves both."""

EMBEDDED_FOLDERS = {
    EMBEDDED: NANO / "coprocessor",
    f"{EMBEDDED}-16": NANO / "coprocessor-16",
    f"{EMBEDDED}-soft": NANO / "soft",
}
"""Coprocessors that ship inside the package, by name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Trained:
    """A trained coprocessor and where it came from."""

    coprocessor: Coprocessor = field(repr=False)
    """On the base's device, in eval mode."""

    id: str
    """Folder or Hub id that it was loaded from."""

    fingerprint: str
    """Identifies its settings and weights."""

    recipe: dict[str, Any] = field(default_factory=dict, repr=False)
    """How it was trained: the resolved recipe, and what it reached."""


def save_coprocessor(
    coprocessor: Coprocessor,
    folder: Path,
    *,
    base: Base,
    recipe: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a coprocessor's folder, each file whole or not at all.

    Args:
        coprocessor: Its parameters are written, nothing of the base.
        folder: Made if missing.
        base: The base it serves.
        recipe: How it was trained, kept for the reader.
        dtype: In which weights are written; by default as they are.
        weights: Its weights by name, where it holds only a share of them.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "coprocessor": coprocessor.describe(),
        "base": {"id": base.id, "revision": base.revision, "fingerprint": base.fingerprint},
        "recipe": recipe or {},
    }
    written = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in (weights or weights_of(coprocessor)).items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(written, temporary, metadata={"format": "pt"})
    # As a reader will find it: in JSON, a tuple is a list.
    config = json.loads(json.dumps(config))
    config[CHECKSUM] = weights_file.checksum(config, folder / WEIGHTS)
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def weights_of(coprocessor: Coprocessor) -> dict[str, Tensor]:
    """A coprocessor's weights by name, one that is tied to another only once."""
    tied = dict(coprocessor.named_parameters(remove_duplicate=False)).keys()
    tied -= dict(coprocessor.named_parameters()).keys()
    return {name: tensor for name, tensor in coprocessor.state_dict().items() if name not in tied}


def load_weights(coprocessor: Coprocessor, weights: dict[str, Tensor]) -> None:
    """Undo `weights_of`.

    Raises:
        ValueError: these are not its weights, by their names and shapes.
    """
    expected = weights_of(coprocessor)
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in expected.items()}:
        raise ValueError("the weights are not those of such a coprocessor")
    coprocessor.load_state_dict(weights, strict=False)  # what is tied comes with its other name


def load_coprocessor(
    name: str | Path = EMBEDDED,
    *,
    base: Base,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    verify: bool = False,
) -> Trained:
    """Load a coprocessor for its base.

    Args:
        name: `nano`, `nano-16`, `nano-soft`, a folder, or a Hub id: `user/repo`,
            `user/repo@revision`, `hf://user/repo`.
        base: The base it was trained for, already loaded.
        revision: Branch, tag or commit on the Hub, where the id does not say it.
        dtype: In which its weights are held; by default the base's.
        verify: Whether its checksum is compared first, for which its weights are read once more.

    Raises:
        CheckpointError: it is not a coprocessor, is damaged, or serves another base.
        DeliberateError: there is none of that name.
    """
    found = _find(name, revision=revision)
    folder, called = found.folder, str(found.hub or name)
    config = read_config(folder)
    check_serves(config, base, name=called)
    if verify:
        weights_file.verify(folder, config)
    coprocessor = _built(settings_of(config, folder), base, folder)
    # Before its weights come, or they would be rounded to the base's dtype.
    coprocessor.to(base.device, dtype or base.model.dtype)
    shapes = {key: tensor.shape for key, tensor in weights_of(coprocessor).items()}
    load_weights(coprocessor, weights_file.load(folder / WEIGHTS, shapes))
    return Trained(
        coprocessor=coprocessor.eval().requires_grad_(False),
        id=called,
        fingerprint=fingerprint.of_coprocessor(folder, config["coprocessor"]),
        recipe=config["recipe"],
    )


def check_serves(config: dict[str, Any], base: Base, *, name: str) -> None:
    """Refuse a coprocessor that was trained for another base.

    Args:
        config: From `read_config`.
        base: The base at hand.
        name: The coprocessor's, for the message.

    Raises:
        CheckpointError: the fingerprints differ.
    """
    stated = config["base"]
    if stated["fingerprint"] != base.fingerprint:
        raise CheckpointError(
            f"coprocessor {name!r} serves base {stated['id']!r} ({stated['fingerprint']}) and "
            f"this is {base.id!r} ({base.fingerprint}): name its base, or train one for this base"
        )


def find_coprocessor(name: str | Path = EMBEDDED, *, revision: str | None = None) -> Path:
    """The folder of a coprocessor, fetched from the Hub where it is not here.

    Raises:
        CheckpointError: what the Hub has of that name is no coprocessor, or is damaged.
        DeliberateError: there is none of that name.
    """
    return _find(name, revision=revision).folder


def _find(name: str | Path, *, revision: str | None) -> hub.Found:
    if name in EMBEDDED_FOLDERS:
        return hub.Found(folder=EMBEDDED_FOLDERS[str(name)])
    found = hub.here(str(name), what="coprocessor")
    if found is None:
        found = fetch_coprocessor(hub.named(str(name), revision=revision, what="coprocessor"))
    return found


def fetch_coprocessor(which: HubId) -> hub.Found:
    """A coprocessor's files in the Hub's cache, fetched if they are not there.

    Its `config.json` comes first, so that nobody waits for the weights of something else; and the
    weights are compared with its checksum, since the client compares their size alone.

    Args:
        which: The repository and the revision.

    Raises:
        CheckpointError: it is no coprocessor, or does not match its checksum, also when it is
            fetched again, or cannot be.
        DeliberateError: the Hub refuses, has none, or cannot be reached and nothing is cached.
    """
    first = hub.fetch(which, what="coprocessor", files=(CONFIG,))
    config = read_config(first.folder, name=str(which))
    settings_of(config, first.folder)
    found = hub.fetch(which, what="coprocessor", files=FILES)
    if _is_whole(found.folder, str(which)):
        return found
    damaged = (found.folder / WEIGHTS).stat()
    if not is_offline_mode():
        found = hub.fetch(which, what="coprocessor", files=FILES, again=True)
    if _is_whole(found.folder, str(which)):
        return found
    if os.path.samestat(damaged, (found.folder / WEIGHTS).stat()):
        why = "in the Hub's cache, and cannot be fetched again: try again with a network"
    else:
        why = "fetched twice: what is on the Hub is damaged or was changed; tell its owner"
    raise CheckpointError(
        f"coprocessor {str(which)!r} does not match the checksum in its config.json, {why}"
    )


def _is_whole(folder: Path, name: str) -> bool:
    """Whether the weights are those that the checksum is of, as far as there is one.

    Raises:
        CheckpointError: there are none.
    """
    config = read_config(folder, name=name)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"coprocessor {name!r} has no {WEIGHTS}: tell its owner")
    if CHECKSUM not in config:
        return True
    # By the hash that is kept of each file, so that only its first use reads it whole.
    return config[CHECKSUM] == weights_file.checksum_of(
        config, fingerprint.file_hash(folder / WEIGHTS)
    )


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run of `deliberate train` that has not written its coprocessor."""
    begun = (folder / "recipe.yaml").is_file() and (folder / "checkpoints").is_dir()
    return begun and not (folder / CONFIG).exists()


def read_config(folder: Path, *, name: str = "") -> dict[str, Any]:
    """What a coprocessor's folder says of itself.

    Args:
        folder: The coprocessor's.
        name: What the user calls it, for the message; none is the folder.

    Raises:
        CheckpointError: the folder is not a coprocessor's, or of another version, or its run is
            unfinished.
    """
    path, called = folder / CONFIG, name or str(folder)
    if is_unfinished(folder):
        raise CheckpointError(
            f"{str(folder)!r} holds an unfinished run: go on with "
            f"`deliberate train --resume --output-dir {shlex.quote(str(folder))}`"
        )
    try:
        config = plain_json.read(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{called!r} is not a coprocessor: cannot read its {CONFIG} ({error}); "
            "train one with `deliberate train`"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(
            f"{called!r} is not a coprocessor: its {CONFIG} is of something else; "
            "train one with `deliberate train`"
        )
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{called!r} has format version {config.get('version')!r:.80} and this program "
            f"reads {VERSION!r}: use the program that wrote it"
        )
    for name in ("coprocessor", "base", "recipe"):
        if not isinstance(config.get(name), dict):
            raise CheckpointError(f"{str(path)!r} lacks {name!r}: get the coprocessor again")
    for name in ("id", "revision", "fingerprint"):
        if not isinstance(config["base"].get(name), str):
            raise CheckpointError(
                f"{str(path)!r} does not say its base's {name}: get the coprocessor again"
            )
    return config


def settings_of(config: dict[str, Any], folder: Path) -> CoprocessorConfig:
    """The settings that a coprocessor's `config.json` holds.

    Raises:
        CheckpointError: this program does not know one of them, or its value cannot be.
    """
    known = {field.name for field in dataclasses.fields(CoprocessorConfig)}
    unknown = set(config["coprocessor"]) - known  # one that is missing is younger than the file
    if unknown or "kind" not in config["coprocessor"]:
        odd = ", ".join(sorted(unknown)) or "no kind"
        raise CheckpointError(
            f"{str(folder)!r} has settings that this program does not know ({odd}): use the "
            "program that wrote it"
        )
    kind = config["coprocessor"]["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckpointError(
            f"{str(folder)!r} is of kind {kind!r:.80} and this program knows {', '.join(KINDS)}: "
            "use the program that wrote it"
        )
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config["coprocessor"].items()
    }
    try:
        return CoprocessorConfig(**settings)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / CONFIG)!r}: {' '.join(str(error).split())}; get the coprocessor again"
        ) from error


def _built(config: CoprocessorConfig, base: Base, folder: Path) -> Coprocessor:
    """A coprocessor that its settings describe, if its file has the weights for it.

    Raises:
        CheckpointError: it has not, or this base cannot have such a coprocessor.
    """
    if "rank" in KINDS[config.kind].uses:
        # Or a number in a small file would decide how much memory is taken.
        shapes = [part.shape for part in weights_file.header_of(folder / WEIGHTS).parts.values()]
        if not any(config.rank in shape for shape in shapes):
            raise CheckpointError(
                f"{str(folder / CONFIG)!r} says rank {config.rank} and none of its weights has "
                "that: get the coprocessor again"
            )
    try:
        return build(config, base)
    except ValueError as error:
        raise CheckpointError(
            f"{str(folder / CONFIG)!r}: {error}; get the coprocessor again"
        ) from error
