"""How tokens are chosen: what is refused, and what is too cold to be drawn."""

import pytest
import torch

from deliberate.core.sampling import Choice, Sampling

LOGITS = torch.tensor([[1.0, 30.0, 2.0], [3.0, -1.0, 2.5]])


def chosen(sampling: Sampling) -> list[int]:
    streams = [torch.Generator().manual_seed(sampling.seed + row) for row in range(len(LOGITS))]
    return Choice(sampling)(LOGITS, streams).tolist()


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-40, 1e-38, 9e-5])
def test_what_is_too_cold_to_be_divided_by_takes_the_likeliest(temperature):
    assert chosen(Sampling(temperature=temperature)) == [1, 0]


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_that_no_stream_takes_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be from"):
        Sampling(seed=seed)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_the_outermost_seeds_are_drawn_by_in_every_row(seed):
    assert len(chosen(Sampling(temperature=1.0, seed=seed))) == len(LOGITS)
