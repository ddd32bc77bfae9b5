"""Grouped attention's memory over forward and backward stays within its stated bound."""

import pytest
import torch

from deliberate.core import grouped_attention, grouped_forward
from deliberate.core.groups import Groups

HEADS, KV_HEADS, WIDTH = 4, 2, 16
TOKENS, ANCHORS, SIZE = 600, 24, 16
BYTES = 4
SCORES = HEADS * SIZE * (TOKENS + SIZE)  # of one group


def bytes_used(
    storages, chunk_scores: int, monkeypatch, *, softcap: float | None, dtype
) -> tuple[int, int]:
    """Most bytes alive over forward and backward; bytes of the groups' inputs and output."""
    monkeypatch.setattr(grouped_attention, "CHUNK_SCORES", chunk_scores)
    generator = torch.Generator().manual_seed(1)

    def random(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(1, heads, tokens, WIDTH, generator=generator).to(dtype)

    groups = Groups(torch.arange(TOKENS - ANCHORS, TOKENS)[None], SIZE, causal=True)
    own = [random(heads, ANCHORS * SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    module = torch.nn.Module()
    module.layer_idx = 0
    text_keys, text_values = [random(KV_HEADS, TOKENS)], [random(KV_HEADS, TOKENS)]
    with storages() as followed:
        output, _ = grouped_forward._attend(
            module,
            *(tensor.requires_grad_() for tensor in own),
            None,
            softcap=softcap,
            groups=groups,
            text_keys=text_keys,
            text_values=text_values,
            form=grouped_attention.attend_in_parts,
        )
        output.backward(torch.ones_like(output))
    return followed.most, sum(tensor.nbytes for tensor in [*own, output])


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups_at_once", [1, 3, 8])
def test_memory_over_forward_and_backward_is_bounded_by_the_chunk(
    storages, monkeypatch, softcap, dtype, groups_at_once
):
    chunk = groups_at_once * SCORES
    # In two layouts, each with its gradient.
    most, ends = bytes_used(storages, chunk, monkeypatch, softcap=softcap, dtype=dtype)
    masks = ANCHORS * TOKENS
    bound = 4 * ends + (grouped_attention.WORKING_COPIES * chunk + masks) * BYTES
    assert most <= bound

    unchunked, _ = bytes_used(storages, 1 << 40, monkeypatch, softcap=softcap, dtype=dtype)
    assert unchunked > bound


def test_what_is_followed_is_what_is_alive(storages):
    with storages() as followed:
        kept = torch.ones(1000)
        for _ in range(5):
            kept = kept + 1
        assert sum(followed.alive.values()) == 4000
    assert followed.most == 8000
