"""Fetching a coprocessor from the Hub, and saying what it is.

user/repo@revision --pull--> a folder whose checksum is right, here or where it was asked for
"""

import math
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deliberate.core import fingerprint, hub, weights_file
from deliberate.core.atomic import check_writable, replacing_folder
from deliberate.core.base import EMBEDDED
from deliberate.core.checkpoint import (
    CONFIG,
    FILES,
    fetch_coprocessor,
    read_config,
    settings_of,
)
from deliberate.core.errors import DeliberateError
from deliberate.core.folder_lock import FolderInUseError, FolderLock
from deliberate.core.kinds import KINDS
from deliberate.core.local_paths import without_folders
from deliberate.core.weights_file import WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A coprocessor that was fetched, and what it says of itself."""

    id: str
    """`user/repo` or `user/repo@revision`."""

    commit: str
    """Which commit it is."""

    folder: Path
    """Where its files are."""

    base: dict[str, Any]
    """The base it serves: `id`, `revision` and `fingerprint`."""

    settings: dict[str, Any]
    """Its own: `kind`, `latents` and the rest."""

    fingerprint: str
    """Identifies its settings and weights."""

    parameters: int
    """Its weights."""

    dtype: str
    """In which they are written."""

    size: int
    """Bytes of them."""

    verified: bool
    """Whether a checksum was there to be compared."""

    @property
    def usage(self) -> str:
        """A command that uses it."""
        known = self.base["id"] == EMBEDDED or self.base["revision"]
        base = shlex.quote(f"path/to/{without_folders(self.base['id'])}")
        option = "" if known else f" --base {base}"
        if KINDS[self.settings["kind"]].reads_caches:
            return f'deliberate generate --coprocessor {self.name}{option} --prompt "Once"'
        return f"deliberate eval {self.name}{option} --data texts.jsonl"

    @property
    def name(self) -> str:
        """By which commands find it, as a shell takes it."""
        cached = self.folder.parent.name == "snapshots" and self.folder.name == self.commit
        return self.id if cached else shlex.quote(str(self.folder))


def pull(name: str, *, output: Path | None = None) -> Pulled:
    """Fetch a coprocessor from the Hub and check it; what is in the Hub's cache is not fetched.

    Args:
        name: A Hub id, as `hub_id.parse` reads it.
        output: A folder to put it in, besides the Hub's cache; made if missing.

    Raises:
        CheckpointError: it is no coprocessor, or is damaged.
        DeliberateError: it cannot be had, or `output` holds something else.
        OSError: `output` cannot be written.
    """
    which = hub.named(name, revision=None, what="coprocessor")
    if output is not None:
        _check_place(output)
        if not output.exists():  # what is there may be the same, and then nothing is written
            check_writable(output)
    found = fetch_coprocessor(which)
    folder, config = found.folder, read_config(found.folder, name=str(which))
    verified = weights_file.verify(folder, config)
    if output is not None:
        _put(folder, output)
    parts = weights_file.header_of(folder / WEIGHTS).parts.values()
    return Pulled(
        id=str(which),
        commit=found.commit,
        folder=output or folder,
        base=config["base"],
        settings=asdict(settings_of(config, folder)),
        fingerprint=fingerprint.of_coprocessor(folder, config["coprocessor"]),
        parameters=sum(math.prod(part.shape) for part in parts),
        dtype=weights_file.dtypes_of(parts),
        size=(folder / WEIGHTS).stat().st_size,
        verified=verified,
    )


def _check_place(output: Path) -> None:
    """See that a folder can become a coprocessor's, as far as that can be told beforehand.

    Raises:
        DeliberateError: it is a file, or this process works in it.
    """
    if output.exists() and not output.is_dir():
        raise DeliberateError(f"{str(output)!r} is a file: name a folder with -o")
    # An empty one is replaced, and who is in it would be in a folder that is no more.
    if Path.cwd().is_relative_to(output.resolve()) and not any(output.iterdir()):
        raise DeliberateError(
            f"{str(output)!r} is the folder that you are in: name another one with -o"
        )


def _put(folder: Path, output: Path) -> None:
    """Copy a coprocessor's files into a folder of their own, all or none.

    Raises:
        DeliberateError: something else is there, or another process fills it.
        OSError: it cannot be written; names it.
    """
    present = [name for name in FILES if (folder / name).is_file()]
    if output.exists() and any(output.iterdir()):
        if _same(folder, output, present):
            return
        raise DeliberateError(
            f"{str(output)!r} holds something else: name another folder with -o, or remove it"
        )
    place = output.resolve()  # a link stays one
    # Beside the folder, which two processes would otherwise make in the same place.
    beside = place.with_name(f".{place.name}.pull")
    try:
        with FolderLock(beside), replacing_folder(place) as partial:
            for name in present:
                shutil.copyfile(folder / name, partial / name)
    except FolderInUseError as error:
        raise DeliberateError(
            f"process {error.holder} fills {str(output)!r} already: wait for it, or name another "
            "folder with -o"
        ) from error
    except OSError as error:
        if error.filename == str(beside):  # of which the reader knows nothing
            error.filename = str(output)
        raise


def _same(folder: Path, output: Path, names: list[str]) -> bool:
    """Whether a folder already holds those files, and those alone count."""
    if not all((output / name).is_file() for name in (CONFIG, WEIGHTS)):
        return False
    return all(
        (output / name).is_file()
        and fingerprint.file_hash(output / name) == fingerprint.file_hash(folder / name)
        for name in names
    )
