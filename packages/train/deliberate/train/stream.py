"""Rows of a source that is read as the run goes on.

    texts of this process --held-out ones left out--> Packer --blocks, each mixed--> rows

The next block is made in a thread while the present one is used up. Where the stream is, is where
the present block began and how much of it is used, so that a resumed run makes it again.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import filterfalse, islice
from typing import Any, cast

import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

from deliberate.core.errors import TextError
from deliberate.core.packing import Packer
from deliberate.core.sources import Source, fingerprint_of_source, opened, texts_of
from deliberate.core.texts import is_held_out
from deliberate.train.processes import Processes
from deliberate.train.rows import Row, mixed

BLOCK = 1024
"""Least rows that are read, and mixed, at a time."""

TEXTS_AT_ONCE = 64
"""Most texts that are tokenized at a time."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Between two texts of a stream."""

    block: int = 0
    """Blocks made before."""

    epoch: int = 0
    """Times that the texts were read to their end."""

    read: dict[str, Any] | None = None
    """What `datasets` keeps of it; None at the start of an epoch."""

    tokens: tuple[int, ...] = ()
    """Of the texts before, in no row yet."""

    marks: tuple[int, ...] = ()
    """Of markers in them."""


class Stream:
    """One process's rows of a source, read as they are asked for, without end."""

    def __init__(
        self,
        source: Source,
        packer: Packer,
        *,
        seed: int,
        share: Processes,
        keep: Callable[[Row], bool] | None = None,
        hold_out: bool = False,
    ) -> None:
        """Open a source; nothing is read before `begin`.

        Args:
            source: Not an embedded one.
            packer: Makes rows of its texts.
            seed: Of the order of rows within a block.
            share: Which of the texts are this process's: whole files where their
                number divides, else every so many-th text.
            keep: Which rows are wanted; none is all.
            hold_out: Whether texts that are held out are left out.

        Raises:
            TextError: the source is missing or cannot be read, or lacks the field.
        """
        self._source, self._packer, self._seed, self._share = source, packer, seed, share
        self._keep, self._hold_out = keep, hold_out
        self._rows = cast(IterableDataset, opened(source, split="train", streaming=True))
        self.fingerprint = fingerprint_of_source(source)
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self._block: list[Row] = []
        self._used = 0

    def begin(self, state: Any) -> None:
        """Make the first block, or the one that was in use.

        Raises:
            TextError: this process's texts have not one row that is wanted.
        """
        place = dict((state or {}).get("place", {}))
        place |= {name: tuple(place.get(name, ())) for name in ("tokens", "marks")}
        self._next = Place(**place)
        self._used = (state or {}).get("used", 0)
        self._packer.tokens, self._packer.marks = list(self._next.tokens), list(self._next.marks)
        self._texts = self._open(self._next.read)
        self._coming: Future[tuple[Place, list[Row]]] = self._maker.submit(self._make)
        self._turn()

    def row(self, index: int) -> Row:
        """The next row, whatever its index.

        Raises:
            TextError: the texts cannot be read further.
        """
        if self._used == len(self._block):
            self._turn()
            self._used = 0
        self._used += 1
        return self._block[self._used - 1]

    def close(self) -> None:
        """Make no further block."""
        self._maker.shutdown(wait=False, cancel_futures=True)

    def state(self) -> dict[str, Any]:
        """Where the present block began, and how many of its rows are used."""
        return {"place": asdict(self._place), "used": self._used}

    def _turn(self) -> None:
        """Go on to the next block, and let the one after it be made."""
        self._place, self._block = self._coming.result()
        self._coming = self._maker.submit(self._make)

    def _make(self) -> tuple[Place, list[Row]]:
        """Read a block: where it begins, and its rows in their order.

        Raises:
            TextError: a whole epoch had not one row that is wanted.
        """
        begins, epoch, read = self._next, self._next.epoch, self._next.read
        made: list[Row] = []
        while len(made) < BLOCK:
            texts = list(islice(self._texts, TEXTS_AT_ONCE))
            if texts:
                made += self._packed(texts)
                read = self._opened.state_dict()
            else:
                if not made and epoch > begins.epoch:
                    self._refuse()
                epoch, read = epoch + 1, None
                self._texts = self._open(None)
        self._next = Place(
            block=begins.block + 1,
            epoch=epoch,
            read=read,
            tokens=tuple(self._packer.tokens),
            marks=tuple(self._packer.marks),
        )
        order = mixed(len(made), number=begins.block, seed=self._seed)
        return begins, [made[index] for index in order]

    def _packed(self, texts: list[str]) -> list[Row]:
        columns = self._packer(texts)
        rows = [
            dict(zip(columns, map(torch.tensor, row), strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        return [row for row in rows if self._keep is None or self._keep(row)]

    def _open(self, read: dict[str, Any] | None) -> Iterator[str]:
        """This process's texts, from where they were read to."""
        self._opened = split_dataset_by_node(
            self._rows, rank=self._share.rank, world_size=self._share.count
        )
        if read is not None:
            self._opened.load_state_dict(read)
        texts = texts_of(self._opened, self._source)
        return filterfalse(is_held_out, texts) if self._hold_out else texts

    def _refuse(self) -> None:
        """Say that there is no row.

        Raises:
            TextError: always.
        """
        each = f" for each of {self._share.count} processes" if self._share.count > 1 else ""
        wanted = f" of data.length = {self._packer.length} tokens"
        held = " with one of its markers and room behind it" if self._keep else ""
        raise TextError(
            f"{self._source.path!r} has not one row{wanted}{held} to train on{each}: give more "
            f"text, {'other markers' if self._keep else 'or a smaller data.length'}"
        )
