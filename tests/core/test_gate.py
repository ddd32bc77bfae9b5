"""How unsure the base is of the next token, and whether latents are asked for."""

import math

import numpy as np
import pytest
import torch

from deliberate.core import ahead_loss, gate, prefill
from deliberate.core.cache import read


def by_hand(logits):
    chances = [math.exp(each) for each in logits]
    total = sum(chances)
    return -sum(chance / total * math.log(chance / total) for chance in chances if chance)


def test_entropy_is_that_of_the_base_s_own_softmax(any_base):
    token_ids = torch.tensor([[5, 9, 30, 4, 17], [2, 2, 40, 61, 3]])
    with torch.no_grad():
        logits = any_base.model(input_ids=token_ids).logits
    found = gate.entropy(any_base, any_base.read(token_ids).hidden)
    assert found.shape == token_ids.shape
    for row in range(2):
        for place in range(5):
            expected = by_hand(logits[row, place].tolist())
            assert float(found[row, place]) == pytest.approx(expected, abs=1e-4)


def test_entropy_of_a_cache_is_that_of_its_text(llama):
    ids = torch.tensor([5, 9, 30, 4])
    [cache] = prefill(llama, [ids])
    reading = read(llama.trunk, ids[None])
    whole = gate.entropy(llama, reading.hidden)
    assert float(gate.entropy(llama, cache.last_hidden)) == pytest.approx(float(whole[0, -1]))


def test_entropy_does_not_hold_all_logits_at_once(llama, storages, monkeypatch):
    hidden = torch.randn(1, 512, llama.hidden)
    whole = gate.entropy(llama, hidden)
    monkeypatch.setattr(ahead_loss, "FEWEST_ROWS", 8)
    monkeypatch.setattr(ahead_loss, "LOGITS_AT_ONCE", 1)
    with storages() as account:
        parted = gate.entropy(llama, hidden)
    assert account.most < 512 * llama.vocab * 4 / 2
    torch.testing.assert_close(parted, whole)


def test_chances_of_zero_add_nothing(llama, monkeypatch):
    logits = torch.tensor([[0.0, 0.0, -math.inf], [0.0, -math.inf, -math.inf]])
    monkeypatch.setattr(type(llama), "logits", lambda base, hidden: logits)
    assert gate.entropy(llama, torch.zeros(2, llama.hidden)).tolist() == [
        pytest.approx(math.log(2)),
        0,
    ]


def test_a_cache_is_asked_from_the_threshold_on():
    assert gate.asks(2.0, 2.0)
    assert gate.asks(2.5, 2.0)
    assert not gate.asks(1.9, 2.0)
    assert gate.asks(np.array([1.0, 2.0, 2.5]), 2.0).tolist() == [False, True, True]
