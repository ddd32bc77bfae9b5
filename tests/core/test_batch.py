"""A batch whose rows join, leave and part, each row against one straight forward."""

import random

import pytest
import torch

from deliberate.core.augment import augment, prefill
from deliberate.core.batch import Batch

TOLERANCE = 1e-4


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


def straight(base, embeds: list[torch.Tensor], positions: list[int]) -> torch.Tensor:
    """The last hidden state of one forward over a row's embeddings."""
    joined = torch.cat(embeds)[None]
    with torch.no_grad():
        return base.trunk(
            inputs_embeds=joined,
            position_ids=torch.tensor([positions]),
            attention_mask=torch.ones(joined.shape[:2], dtype=torch.long),
            use_cache=False,
        ).last_hidden_state[0, -1]


class Row:
    """What a row has read: its embeddings and where they stand."""

    def __init__(self, base, cache) -> None:
        latents = [] if cache.latents is None else [cache.latents]
        self.embeds = [base.embed(cache.token_ids), *latents]
        self.positions = cache.position_ids.tolist()

    def read(self, embeds: torch.Tensor, position: int) -> None:
        self.embeds.append(embeds)
        self.positions.append(position)


def caches(base, make, seed: int) -> list:
    """Five caches of unequal lengths, two of them with latents."""
    plain = prefill(base, [text(seed + row, length) for row, length in enumerate((9, 2, 14, 6, 9))])
    coprocessor = make(base, "warm")
    return [plain[0], *augment(base, coprocessor, plain[1:3]), *plain[3:]]


def test_rows_that_join_and_leave_read_as_if_each_were_alone(any_base, make):
    chance, base = random.Random(3), any_base
    waiting = [(cache, Row(base, cache)) for cache in caches(base, make, 20)]
    first, row = waiting.pop()
    batch, rows = Batch([first]), [row]
    for step in range(14):
        while waiting and (len(rows) < 2 or chance.random() < 0.4):
            cache, row = waiting.pop()
            batch.join(Batch([cache]))
            rows.append(row)
        if len(rows) > 2 and chance.random() < 0.4:
            gone = chance.randrange(len(rows))
            batch.leave(gone)
            rows[gone] = rows[-1]
            rows.pop()
        embeds = base.embed(text(step, len(rows)))[:, None]
        for row, new, position in zip(rows, embeds, batch.next_position.tolist(), strict=True):
            row.read(new, position)
        hidden = batch.feed(base.trunk, embeds)[:, -1]
        for row, state in zip(rows, hidden, strict=True):
            expected = straight(base, row.embeds, row.positions)
            torch.testing.assert_close(state, expected, atol=TOLERANCE, rtol=1e-4)


def test_a_part_reads_on_apart_and_joins_again(base, make):
    joined = caches(base, make, 40)
    rows = [Row(base, cache) for cache in joined]
    batch = Batch(joined)
    for row, new in zip(rows, base.embed(text(1, 5))[:, None], strict=True):
        row.read(new, row.positions[-1] + 1)
    batch.feed(base.trunk, base.embed(text(1, 5))[:, None])
    part, row = batch.part(1), rows[1]
    batch.leave(1)
    rows[1] = rows.pop()
    more = base.embed(text(2, 9))
    at = row.positions[-1] + 1
    hidden = part.feed(base.trunk, more[None])[0, -1]
    for offset, new in enumerate(more):
        row.read(new[None], at + offset)
    torch.testing.assert_close(
        hidden, straight(base, row.embeds, row.positions), atol=TOLERANCE, rtol=1e-4
    )
    batch.join(part)
    rows.append(row)
    new = base.embed(text(3, 5))[:, None]
    for row, embeds in zip(rows, new, strict=True):
        row.read(embeds, row.positions[-1] + 1)
    for row, state in zip(rows, batch.feed(base.trunk, new)[:, -1], strict=True):
        expected = straight(base, row.embeds, row.positions)
        torch.testing.assert_close(state, expected, atol=TOLERANCE, rtol=1e-4)


def test_joining_leaves_the_caches_and_the_other_batch_as_they_were(llama, make):
    joined = caches(llama, make, 60)
    before = [[layer.clone() for layer in (*cache.keys, *cache.values)] for cache in joined]
    batch = Batch(joined[:1])
    for cache in joined[1:]:
        other = Batch([cache])
        batch.join(other)
        assert other.lengths == [len(cache.position_ids)]
    for _ in range(3):
        batch.feed(llama.trunk, llama.embed(text(5, 5))[:, None])
    for cache, layers in zip(joined, before, strict=True):
        assert all(map(torch.equal, (*cache.keys, *cache.values), layers))


def test_what_an_earlier_row_left_reaches_no_later_one(llama):
    short, long = prefill(llama, [text(1, 3), text(2, 30)])
    spoiled, *_ = prefill(llama, [text(3, 30)])
    for layer in (*spoiled.keys, *spoiled.values):
        layer.fill_(float("nan"))
    batch = Batch([long])
    batch.join(Batch([spoiled]))
    batch.feed(llama.trunk, llama.embed(text(4, 2))[:, None])
    batch.leave(1)
    batch.join(Batch([short]))
    hidden = batch.feed(llama.trunk, llama.embed(text(5, 2))[:, None])
    assert hidden.isfinite().all()


def test_a_batch_is_as_it_was_where_the_decoder_fails(llama, monkeypatch):
    batch, calls = Batch(prefill(llama, [text(1, 5), text(2, 9)])), []
    layer = llama.trunk.layers[1]
    embeds = llama.embed(text(3, 2))[:, None]

    def fail(*_, **__):
        calls.append(1)
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            batch.feed(llama.trunk, embeds)
    assert calls
    again = Batch(prefill(llama, [text(1, 5), text(2, 9)]))
    assert batch.lengths == again.lengths
    assert torch.equal(batch.feed(llama.trunk, embeds), again.feed(llama.trunk, embeds))


def test_room_shrinks_when_a_long_row_has_left(llama):
    batch = Batch(prefill(llama, [text(1, 50), text(2, 50), text(3, 50), text(4, 4)]))
    for row in (2, 1, 0):
        batch.leave(row)
    for step in range(2):
        batch.feed(llama.trunk, llama.embed(text(step, 1))[None])
    assert batch.width == 6
    for _ in range(70):
        position_ids = batch.next_position[:, None].clamp(max=60)
        batch.feed(llama.trunk, llama.embed(text(3, 1))[None], position_ids=position_ids)
    assert batch._room.row_room == 1 < 4
    assert batch._room.column_room < 76 + 2 * 64
