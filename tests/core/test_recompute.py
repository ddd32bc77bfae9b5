"""Running layers again in the backward changes memory and nothing else."""

import pytest
import torch

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.base import decoder_layers

AHEAD = 4


def losses(base, coprocessor, *, recompute):
    token_ids = torch.randint(2, 67, (2, 20), generator=torch.Generator().manual_seed(3))
    anchors = torch.tensor([[0, 3, 8, 15], [1, 2, 9, 14]])
    reading = base.read(token_ids)
    coprocessor.recompute = recompute
    return ahead_losses(
        base,
        reading,
        anchors,
        coprocessor(reading, anchors),
        ahead=AHEAD,
        positions=coprocessor.config.positions,
        recompute=recompute,
    )


def gradients(found, coprocessor):
    coprocessor.zero_grad()
    found.mean().backward()
    return {name: parameter.grad.clone() for name, parameter in coprocessor.named_parameters()}


def test_recomputed_is_kept_to_the_last_bit(base, start, make):
    coprocessor = make(base, start)
    kept = losses(base, coprocessor, recompute=False)
    wanted = gradients(kept, coprocessor)
    again = losses(base, coprocessor, recompute=True)
    assert torch.equal(again, kept)
    for name, gradient in gradients(again, coprocessor).items():
        assert torch.equal(gradient, wanted[name]), name


def test_recomputing_keeps_less_between_forward_and_backward(llama, make, storages):
    coprocessor = make(llama, "warm")

    def kept(recompute):
        with storages() as followed:
            found = losses(llama, coprocessor, recompute=recompute)
            alive = sum(followed.alive.values())
        assert found.requires_grad
        return alive

    assert kept(recompute=True) < kept(recompute=False) / 2


def test_the_layers_are_as_they_were_also_after_a_failure(base, start, make):
    coprocessor = make(base, start)
    losses(base, coprocessor, recompute=True).mean().backward()
    for trunk in (base.trunk, coprocessor.trunk):
        assert not [layer for layer in decoder_layers(trunk) if "forward" in vars(layer)]
    reading = base.read(torch.zeros(2, 20, dtype=torch.long))
    broken = type(reading)(token_ids=reading.token_ids, keys=[], values=[], embeds=reading.embeds)
    with pytest.raises(IndexError):
        coprocessor(broken, torch.tensor([[3, 8]] * 2))
    assert not [layer for layer in decoder_layers(coprocessor.trunk) if "forward" in vars(layer)]
