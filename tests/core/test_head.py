"""Losses through the head, in chunks: those of all logits at once, in bounded memory."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from deliberate.core import ahead_loss
from deliberate.core.ahead_loss import token_losses
from deliberate.core.base import Base

WIDTH = 16
CONFIGS = {"plain": LlamaConfig, "softcap": Gemma2Config}
SIZE = {
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "tie_word_embeddings": True,
}


def whole_losses(base, hidden, targets):
    """The same from one matrix of logits."""
    logits = base.logits(hidden).float().flatten(0, -2)
    return cross_entropy(logits, targets.flatten(), reduction="none").view(targets.shape)


def bytes_used(storages, llama, losses, *, head, dtype, vocab, targets):
    """Most bytes alive over forward and backward, but for the head's own weights."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS[head](vocab_size=vocab, **SIZE)).to(dtype)
    base = Base(model=model, tokenizer=llama.tokenizer, id=head)
    hidden = torch.randn(targets, WIDTH).to(dtype).requires_grad_()
    wanted = torch.randint(vocab, (targets,))
    with storages() as followed:
        losses(base, hidden, wanted).sum().backward()
    return followed.most - base.embed(wanted[:1]).element_size() * vocab * WIDTH


def test_losses_and_gradients_are_those_of_all_logits_at_once(any_base, monkeypatch):
    monkeypatch.setattr(ahead_loss, "FEWEST_ROWS", 3)
    monkeypatch.setattr(ahead_loss, "LOGITS_AT_ONCE", 1)
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(any_base.vocab, (2, 5), generator=generator)
    weights = torch.randn(2, 5, generator=generator)
    found = []
    for losses in (token_losses, whole_losses):
        hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
        loss = losses(any_base, hidden, targets)
        (loss * weights).sum().backward()
        found.append((loss.detach(), hidden.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=2e-4, rtol=2e-4)
    with torch.no_grad():
        torch.testing.assert_close(token_losses(any_base, hidden, targets), found[0][0])


@pytest.mark.parametrize("head", list(CONFIGS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_bounded_by_a_chunk(storages, llama, monkeypatch, head, dtype):
    rows, vocab, targets = ahead_loss.FEWEST_ROWS, 4096, 1024
    monkeypatch.setattr(ahead_loss, "LOGITS_AT_ONCE", rows * vocab)
    sizes = {"head": head, "dtype": dtype, "vocab": vocab, "targets": targets}
    used = bytes_used(storages, llama, token_losses, **sizes)
    # What `--dry-run` says of logits, and the rows themselves with their gradients.
    bound = rows * vocab * (2 * dtype.itemsize + 8) + 6 * targets * WIDTH * 4
    assert used <= bound
    assert bytes_used(storages, llama, whole_losses, **sizes) > 4 * bound


@pytest.mark.parametrize("head", list(CONFIGS))
def test_a_large_vocabulary_never_makes_the_matrix_of_all_logits(storages, llama, head):
    vocab, targets = 256_000, 2048
    with torch.device("meta"):  # tensors there have a size and no content
        used = bytes_used(
            storages, llama, token_losses,
            head=head, dtype=torch.float32, vocab=vocab, targets=targets,
        )  # fmt: skip
    matrix = 4 * vocab * targets
    assert matrix / 20 < used < matrix / 7
