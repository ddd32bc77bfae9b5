"""Room for the keys and values of a batch, into which a decoder writes what it reads.

    column     0 1 2 3 4 5 6 7 8
    row 0      . . a b c d e | |      every row ends before column `end`; the next tokens of all
    row 1      0 0 0 0 x y z | |      rows land there, and what is left of a row is zero

The part of `cache.py` that knows how transformers has a layer's keys and values updated.
"""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _Layer(DynamicLayer):
    """One layer: columns `start` to `end` of the first `rows` rows are in use."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.is_initialized = True
        self.rooms = [keys, values]
        """Keys and values, each (rows, kv_heads, columns, head_dim)."""
        self.rows, self.start, self.end = keys.shape[0], 0, keys.shape[2]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the columns after `end`, which are there, and show all that are in use."""
        first, self.end = self.end, self.end + key_states.shape[2]
        shown = []
        for room, states in zip(self.rooms, (key_states, value_states), strict=True):
            room[: self.rows, :, first : self.end] = states
            shown.append(room[: self.rows, :, self.start : self.end])
        return shown[0], shown[1]

    def get_seq_length(self) -> int:
        """How many columns are in use."""
        return self.end - self.start


class Room:
    """The keys and values of rows that end in one column, with columns to spare after it."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Begin with full rows, one tensor a layer, (rows, kv_heads, cached, head_dim)."""
        self.cache = DynamicCache()
        self.cache.layers = [_Layer(*pair) for pair in zip(keys, values, strict=True)]
        self.rows, self.end = keys[0].shape[0], keys[0].shape[2]

    @property
    def layers(self) -> list[_Layer]:
        """Each layer's room."""
        return cast(list[_Layer], self.cache.layers)

    @property
    def row_room(self) -> int:
        """Rows that there is room for."""
        return self.layers[0].rooms[0].shape[0]

    @property
    def column_room(self) -> int:
        """Columns that there is room for."""
        return self.layers[0].rooms[0].shape[2]

    def show(self, width: int) -> DynamicCache:
        """What a decoder goes on from: the last `width` columns of all rows."""
        for layer in self.layers:
            layer.rows, layer.start, layer.end = self.rows, self.end - width, self.end
        return self.cache

    def move(self, *, width: int, rows: int, end: int, spare: int) -> None:
        """Copy the last `width` columns to new room.

        Args:
            width: How many columns are in use.
            rows: Rows of the new room.
            end: Column that the rows then end before.
            spare: Columns after that.
        """
        for layer in self.layers:
            for index, old in enumerate(layer.rooms):
                fresh = old.new_zeros((rows, old.shape[1], end + spare, old.shape[3]))
                fresh[: self.rows, :, end - width : end] = self._columns(old, width)
                layer.rooms[index] = fresh
        self.end = end

    def join(self, other: "Room", *, width: int) -> None:
        """Copy another room's rows, `width` columns wide, after the rows here."""
        first, count = self.rows, self.rows + other.rows
        for layer, theirs in zip(self.layers, other.layers, strict=True):
            for room, joining in zip(layer.rooms, theirs.rooms, strict=True):
                # What earlier rows left here is masked, and a masked number must be finite.
                room[first:count, :, : self.end - width] = 0
                room[first:count, :, self.end - width : self.end] = other._columns(joining, width)
        self.rows = count

    def leave(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        self.rows -= 1
        if row != self.rows:
            for layer in self.layers:
                for room in layer.rooms:
                    room[row, :, : self.end] = room[self.rows, :, : self.end]

    def last(self, row: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
        """A row's last columns, keys and values, a layer each, (kv_heads, width, head_dim)."""
        keys, values = zip(*(layer.rooms for layer in self.layers), strict=True)
        return (
            [self._columns(room, width)[row] for room in keys],
            [self._columns(room, width)[row] for room in values],
        )

    def _columns(self, room: Tensor, width: int) -> Tensor:
        return room[: self.rows, :, self.end - width : self.end]
