"""Caches joined, so that the base reads on from all of them at once.

    caches --join, leave--> Batch --feed: embeddings of tokens, or latents--> last hidden states

Source: arXiv:2412.17747, section 2.1.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from deliberate.core.cache import Cache, cache_keyword, padded_layers
from deliberate.core.room import Room


class Batch:
    """Caches joined so that the base can read on from all of them at once.

    Shorter ones are padded on the left and masked, so that the next token of each lands in the
    same column: a sliding window counts columns, and so is right in every row. Rows join and leave
    between two feeds. The caches given are left as they were.
    """

    def __init__(self, joined: Sequence[Cache]) -> None:
        self.lengths = [len(cache.position_ids) for cache in joined]
        device = joined[0].token_ids.device
        self.next_position = torch.tensor([cache.next_position for cache in joined], device=device)
        if len(joined) == 1:  # seen where it is: there is no room in it to write in
            keys = [layer[None] for layer in joined[0].keys]
            values = [layer[None] for layer in joined[0].values]
        else:
            keys = padded_layers([cache.keys for cache in joined], self.width, left=True)
            values = padded_layers([cache.values for cache in joined], self.width, left=True)
        self._room, self._fed = Room(keys, values), False
        self._see()

    @property
    def width(self) -> int:
        """Cached tokens and latents of its longest row."""
        return max(self.lengths)

    @torch.no_grad()
    def feed(
        self,
        trunk: PreTrainedModel,
        embeds: Float[Tensor, "batch new hidden"],
        *,
        position_ids: Int[Tensor, "batch new"] | None = None,
    ) -> Float[Tensor, "batch new hidden"]:
        """Read further input embeddings, and keep their keys and values.

        Where the decoder fails, the batch is as it was before.

        Args:
            trunk: The base's decoder, without its head.
            embeds: Embeddings of tokens, or latents.
            position_ids: Where they stand; by default right after what is there.

        Returns:
            The last hidden states.
        """
        new, room = embeds.shape[1], self._room
        if position_ids is None:
            position_ids = self.next_position[:, None] + torch.arange(new, device=embeds.device)
        mask = self._mask
        if mask is not None:
            mask = torch.nn.functional.pad(mask, (0, new), value=True)
        if room.end + new > room.column_room:
            # What is fed but once, as latents are, needs no more room than that.
            self._move(spare=new + (self._spare if self._fed else 0))
        output = trunk(
            inputs_embeds=embeds,
            position_ids=position_ids,
            attention_mask=mask,
            use_cache=True,
            **{cache_keyword(type(trunk)): room.show(self.width)},
        )
        room.end, self._mask, self._fed = room.end + new, mask, True
        self.lengths = [length + new for length in self.lengths]
        self.next_position = torch.maximum(self.next_position, position_ids.max(1).values + 1)
        return output.last_hidden_state

    def join(self, other: "Batch") -> None:
        """Take in another batch's rows, after its own.

        Args:
            other: Of the same base; left as it was.
        """
        rows, width = len(self.lengths) + len(other.lengths), max(self.width, other.width)
        room = self._room
        if rows > room.row_room or width > room.end:
            # Twice the rows, so that joining one by one does not copy all of them each time.
            more = max(rows, 2 * len(self.lengths)) if rows > room.row_room else room.row_room
            self._move(rows=more, end=width)
        room.join(other._room, width=other.width)
        self.lengths = self.lengths + other.lengths
        self.next_position = torch.cat([self.next_position, other.next_position])
        self._see()

    def leave(self, row: int) -> None:
        """Drop a row; the last one takes its place. One row stays always."""
        last = len(self.lengths) - 1
        assert last
        self._room.leave(row)
        order = [last if index == row else index for index in range(last)]
        self.lengths = [self.lengths[index] for index in order]
        self.next_position = self.next_position[order]
        self._see()

    def part(self, row: int) -> "Batch":
        """A row as a batch of its own, in memory of its own."""
        part = copy.copy(self)
        part.lengths, part.next_position = [self.lengths[row]], self.next_position[[row]]
        keys, values = self._room.last(row, self.lengths[row])
        part._room = Room([k[None].clone() for k in keys], [v[None].clone() for v in values])
        part._see()
        return part

    def grown(self, row: int, cache: Cache, position_ids: Int[Tensor, " new"]) -> dict[str, Any]:
        """The fields of one row's cache that change by what was last fed, at `position_ids`."""
        keys, values = self._room.last(row, len(position_ids))
        return {
            "keys": [torch.cat(pair, 1) for pair in zip(cache.keys, keys, strict=True)],
            "values": [torch.cat(pair, 1) for pair in zip(cache.values, values, strict=True)],
            "position_ids": torch.cat([cache.position_ids, position_ids]),
        }

    @property
    def _spare(self) -> int:
        """Columns made ahead of their use, so many that copying to new room is seldom."""
        return max(64, self.width // 4)

    def _move(self, *, rows: int = 0, end: int = 0, spare: int = 0) -> None:
        """Move to new room, by default for the rows that are there, and twice as many at most."""
        count, held = len(self.lengths), self._room.row_room
        self._room.move(
            width=self.width,
            rows=rows or (held if held <= 2 * count else count),
            end=end or self.width,
            spare=spare or self._spare,
        )

    def _see(self) -> None:
        """Mask what is left of each row, where one is shorter than another."""
        self._mask = None
        if min(self.lengths) < self.width:
            missing = self.width - torch.tensor(self.lengths, device=self.next_position.device)
            columns = torch.arange(self.width, device=missing.device)
            self._mask = columns >= missing[:, None]
