"""flex_attention under a block mask = attention in two parts."""

import copy
import dataclasses

import pytest
import torch

from deliberate.core import flex
from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.base import Base
from deliberate.core.execution import Execution

TOLERANCE = 2e-5
# Outside torch.compile it says that it is slow, which is all it can be on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def base(unlike_base):
    return unlike_base


def losses(base, coprocessor, attention):
    token_ids = torch.randint(2, 67, (2, 20), generator=torch.Generator().manual_seed(3))
    anchors = torch.tensor([[0, 3, 8, 15], [1, 2, 9, 14]])
    token_ids, anchors = token_ids.to(base.device), anchors.to(base.device)
    reading = base.read(token_ids)
    coprocessor.execution = Execution(attention=attention)
    return ahead_losses(
        base,
        reading,
        anchors,
        coprocessor(reading, anchors),
        ahead=4,
        positions=coprocessor.config.positions,
        execution=coprocessor.execution,
    )


def test_losses_are_those_of_the_two_part_form(base, start, make):
    coprocessor = make(base, start)
    with torch.no_grad():
        parts = losses(base, coprocessor, "parts")
        under_mask = losses(base, coprocessor, "flex")
    torch.testing.assert_close(under_mask, parts, atol=TOLERANCE, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_on_cuda_are_those_of_the_two_part_form(base, start, make):
    moved = Base(model=copy.deepcopy(base.model).cuda(), tokenizer=base.tokenizer, id=base.id)
    coprocessor = make(base, start).cuda()

    def gradients(attention):
        coprocessor.zero_grad()
        losses(moved, coprocessor, attention).mean().backward()
        return {name: p.grad.clone() for name, p in coprocessor.named_parameters()}

    under_mask = gradients("flex")
    for name, expected in gradients("parts").items():
        error = (under_mask[name] - expected).abs().max() / expected.abs().max()
        assert error < 2e-3, name


def test_one_more_token_seen_would_not_go_unnoticed(llama, make, monkeypatch):
    coprocessor = make(llama, "paper")
    plain = flex._make_block_mask

    def generous(groups, tokens, window):
        return plain(dataclasses.replace(groups, last_seen=groups.last_seen + 1), tokens, window)

    with torch.no_grad():
        parts = losses(llama, coprocessor, "parts")
        monkeypatch.setattr(flex, "_make_block_mask", generous)
        assert (losses(llama, coprocessor, "flex") - parts).abs().max() > 100 * TOLERANCE
