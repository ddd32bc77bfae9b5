"""Rows of training tokens by their position in the run, from one source or several.

    position --mixture--> source, index --Packed or Stream--> row

Which source a position draws from, and which row of a source that is read whole, are functions of
the recipe and the position alone. A stream gives its rows in turn, and says where it is.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from datasets import Dataset

from deliberate.train.mixture import MIX, quotas
from deliberate.train.processes import Processes

Row = Mapping[str, Any]
"""`token_ids` (token,); where anchors are at markers or thoughts `marks` (marks,), and of thoughts
`thoughts` (marks, latents); of a pair `anchor`."""


@runtime_checkable
class Part(Protocol):
    """The rows of one source."""

    fingerprint: str
    """Identifies them and their order."""

    def row(self, index: int) -> Row:
        """The row at an index of its own endless order; a stream gives the next one."""
        ...

    def state(self) -> Any:
        """Where it is, as JSON holds it; None if that follows from the index."""
        ...

    def begin(self, state: Any) -> None:
        """Make ready to give rows, from where it was or from the start."""
        ...

    def close(self) -> None:
        """Give no rows any more."""
        ...


class Packed:
    """Rows that are all at hand, in an order that is drawn anew for each epoch."""

    def __init__(self, rows: Dataset, *, seed: int) -> None:
        """Hold packed rows."""
        self._rows, self._seed = rows.with_format("torch"), seed
        self.fingerprint = fingerprint_of_rows(rows)

    def row(self, index: int) -> Row:
        """The row at an index of the endless stream of reshuffled epochs."""
        epoch, offset = divmod(index, len(self._rows))
        return self._rows[_order(epoch, len(self._rows), self._seed)[offset]]

    def state(self) -> None:
        """Nothing: the index says it all."""

    def begin(self, state: Any) -> None:
        """Nothing to be done."""

    def close(self) -> None:
        """Nothing to be done."""


class Rows:
    """This process's rows of the batches of a run."""

    def __init__(
        self, parts: Sequence[Part], weights: Sequence[float], *, seed: int, share: Processes
    ) -> None:
        """Mix sources, by their weights."""
        self._parts, self._seed, self._share = parts, seed, share
        self._quotas = quotas(weights)

    @property
    def fingerprint(self) -> str:
        """Identifies the sources' rows and how they are mixed."""
        prints = [part.fingerprint for part in self._parts]
        if len(prints) == 1:
            return prints[0]
        return hashlib.sha256(f"{prints} {self._quotas}".encode()).hexdigest()[:16]

    def own(self, first: int, size: int) -> list[Row]:
        """This process's share of `size` rows from position `first` on."""
        own = self._share.share_of(size)
        return self.all(first + own.start, own.stop - own.start)

    def all(self, first: int, size: int) -> list[Row]:
        """The `size` rows from position `first` on; of a stream not for others to take too."""
        places = map(self._place, range(first, first + size))
        return [self._parts[source].row(index) for source, index in places]

    def state(self) -> list[Any]:
        """Where each source is, as JSON holds it."""
        return [part.state() for part in self._parts]

    def begin(self, state: Sequence[Any] | None) -> None:
        """Make ready to give rows, from where the sources were or from their start."""
        for part, where in zip(self._parts, state or [None] * len(self._parts), strict=True):
            part.begin(where)

    def close(self) -> None:
        """Give no rows any more."""
        for part in self._parts:
            part.close()

    def _place(self, position: int) -> tuple[int, int]:
        """The source that a position draws from, and how many rows of it came before."""
        if len(self._parts) == 1:
            return 0, position
        block, offset = divmod(position, MIX)
        drawn = _mix(block, self._quotas, self._seed)
        source = drawn[offset]
        return source, block * self._quotas[source] + drawn[:offset].count(source)


def fingerprint_of_rows(rows: Dataset) -> str:
    """Identifies the token ids of rows, their order, where questions end, and thoughts."""
    digest = hashlib.sha256(f"{len(rows)} rows".encode())
    for part in rows.with_format("arrow").iter(batch_size=1000):
        for chunk in part["token_ids"].chunks:
            digest.update(chunk.flatten().to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        if "anchor" in rows.column_names:
            digest.update(part["anchor"].to_numpy().astype("<i8").tobytes())
        if "thoughts" in rows.column_names:  # of which the token ids say nothing
            digest.update(repr([part["marks"].to_pylist(), part["thoughts"].to_pylist()]).encode())
    return digest.hexdigest()[:16]


def mixed(count: int, *, number: int, seed: int) -> list[int]:
    """The numbers below `count` in an order that is the `number`th of a seed."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.randperm(count, generator=generator).tolist()


def with_room(last: int) -> Callable[[Row], bool]:
    """Whether a row has a marker at or before an index."""
    return lambda row: len(row["marks"]) > 0 and int(row["marks"][0]) <= last


@lru_cache(maxsize=2)
def _mix(block: int, quotas: tuple[int, ...], seed: int) -> list[int]:
    pool = [source for source, quota in enumerate(quotas) for _ in range(quota)]
    return [pool[index] for index in mixed(MIX, number=block, seed=seed)]


@lru_cache(maxsize=16)  # an order of each source that is in use
def _order(epoch: int, count: int, seed: int) -> list[int]:
    return mixed(count, number=epoch, seed=seed)
