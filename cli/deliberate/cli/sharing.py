"""How a folder's work is divided among workers: the same batches however many there are.

    items --windows--> by length --> numbered batches --Share, or claims--> this worker's

A batch's numbers depend, in their last bits, on what else is in it. So what is shared is batches
and never texts, and a batch that was left half done is computed whole again.
"""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import typer

WINDOW = 64
"""Batches within which items are sorted by length: so many of them are in memory."""

Item = TypeVar("Item")

ShardName = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Make the I-th of N shares, I from 1 to N.",
        show_default="RANK + 1 of WORLD_SIZE, where torchrun sets them; else what nobody has taken",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Every `count`-th batch, from `index` on."""

    index: int
    """From 0, as torchrun's RANK is."""

    count: int
    """Workers in all."""

    def __str__(self) -> str:
        """As `--shard` has it."""
        return f"{self.index + 1}/{self.count}"


def share_of(shard: str | None, environment: Mapping[str, str] = os.environ) -> Share | None:
    """The share that was asked for or that torchrun gives; none where neither says one.

    Args:
        shard: What `--shard` says: `3/16` is the third of sixteen.
        environment: Has RANK, from 0, and WORLD_SIZE under torchrun.

    Raises:
        typer.BadParameter: there is no such share.
    """
    if shard is not None:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard, re.ASCII)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise typer.BadParameter(
                f"{shard!r} is no share: say 3/16 for the third of sixteen, from 1/16 to 16/16",
                param_hint="--shard",
            )
        return Share(index=int(match[1]) - 1, count=int(match[2]))
    said = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE")}
    if set(said.values()) == {None}:
        return None
    rank, count = (
        int(value) if value and re.fullmatch(r"\d{1,9}", value, re.ASCII) else -1
        for value in said.values()
    )
    if not 0 <= rank < count:
        told = " and ".join(f"{name} is {value!r}" for name, value in said.items())
        raise typer.BadParameter(
            f"{told} in the environment, which is no share: unset both, or say --shard I/N"
        )
    return Share(index=rank, count=count)


def refuse_share(shard: str | None, *, of: str) -> None:
    """Refuse `--shard` for what is not divided.

    Args:
        shard: What it says, if anything.
        of: What would be divided.

    Raises:
        typer.BadParameter: it says something.
    """
    if shard is not None:
        raise typer.BadParameter(f"--shard divides {of}, and this is a single one: leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Item]):
    """What all workers together do."""

    items: Callable[[], Iterable[Item]]
    """Gives all items, in the same order each time."""

    count: int
    """How many there are."""

    length: Callable[[Item], int]
    """Of an item; those of about one length are computed together."""

    size: int
    """Items in a batch."""

    identity: bytes
    """Tells it from other work on the same folder."""

    def batches(self) -> Iterator[tuple[int, list[Item]]]:
        """Each batch and its number; within a window the longest come first."""
        items, number = iter(self.items()), 0
        while window := list(islice(items, WINDOW * self.size)):
            window.sort(key=self.length, reverse=True)
            for start in range(0, len(window), self.size):
                yield number, window[start : start + self.size]
                number += 1

    def num_items(self, share: Share | None) -> int:
        """Items in a share, or in all."""
        if share is None:
            return self.count
        starts = range(share.index * self.size, self.count, share.count * self.size)
        return sum(min(self.size, self.count - start) for start in starts)

    def batches_of(self, share: Share | None, folder: Path) -> Generator[Sequence[Item]]:
        """The batches to be made here; asking for the next one says that the last one is done.

        Without a share it ends once every batch is done, here or by other workers: what one that
        dies has left is made here.

        Args:
            share: Of a worker that was told its share; others take what nobody has taken.
            folder: To be filled; has the claims of those others.

        Raises:
            OSError: workers with other work fill the folder, or it has no locks.
        """
        if share is not None:
            for number, batch in self.batches():
                if number % share.count == share.index:
                    yield batch
            return
        from deliberate.cli.claims import Claims

        with Claims(folder, self.identity) as claims:
            held = set()
            for number, batch in self.batches():
                claim = claims.take(number)
                if claim == "mine":
                    yield batch
                    claims.finish(number)
                elif claim == "held":
                    held.add(number)
            for number, batch in self.batches() if held else ():
                if number in held and claims.take(number, wait=True) == "mine":
                    yield batch
                    claims.finish(number)
