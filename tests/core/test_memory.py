"""Grouped attention's memory over forward and backward stays within its stated bound."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deliberate.core import grouped_attention
from deliberate.core.groups import Groups

HEADS, KV_HEADS, WIDTH = 4, 2, 16
TOKENS, ANCHORS, SIZE = 600, 24, 16
BYTES = 4
SCORES = HEADS * SIZE * (TOKENS + SIZE)  # of one group


class Storages(TorchDispatchMode):
    """Follows the bytes of every storage made while it is on, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.most = max(self.most, sum(self.alive.values()))


def bytes_used(chunk_scores: int, monkeypatch, *, softcap: float | None, dtype) -> tuple[int, int]:
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
    with Storages() as storages:
        output, _ = grouped_attention._attend(
            module,
            *(tensor.requires_grad_() for tensor in own),
            None,
            softcap=softcap,
            groups=groups,
            text_keys=text_keys,
            text_values=text_values,
        )
        output.backward(torch.ones_like(output))
    return storages.most, sum(tensor.nbytes for tensor in [*own, output])


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups_at_once", [1, 3, 8])
def test_memory_over_forward_and_backward_is_bounded_by_the_chunk(
    monkeypatch, softcap, dtype, groups_at_once
):
    chunk = groups_at_once * SCORES
    # In two layouts, each with its gradient.
    most, ends = bytes_used(chunk, monkeypatch, softcap=softcap, dtype=dtype)
    bound = 4 * ends + grouped_attention.WORKING_COPIES * chunk * BYTES
    assert most <= bound

    unchunked, _ = bytes_used(1 << 40, monkeypatch, softcap=softcap, dtype=dtype)
    assert unchunked > bound


def test_what_is_followed_is_what_is_alive():
    with Storages() as storages:
        kept = torch.ones(1000)
        for _ in range(5):
            kept = kept + 1
        assert sum(storages.alive.values()) == 4000
    assert storages.most == 8000
