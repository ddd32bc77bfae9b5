"""Answers of a vLLM server that is at hand are those of the own engine.

    vllm serve BASE --served-model-name served --port 8001 --enable-prompt-embeds \
        --dtype float32 --enforce-eager --max-model-len 512
    DELIBERATE_VLLM_URL=http://127.0.0.1:8001 DELIBERATE_VLLM_BASE=BASE pytest -rs THIS_FILE
"""

import os

import pytest
import torch

from deliberate.core import load_base
from deliberate.core.augment import augment, prefill
from deliberate.core.sampling import Sampling
from deliberate.serve.engine import Request
from deliberate.serve.vllm_engine import VllmEngine

URL, BASE = os.environ.get("DELIBERATE_VLLM_URL"), os.environ.get("DELIBERATE_VLLM_BASE")
NOTHING = torch.empty(0, dtype=torch.long)
TEXTS = 10
NEAR = 1e-3
"""Difference of log-probabilities that two programs' rounding in float32 explains."""


@pytest.fixture(scope="module")
def named():
    """The base that the server has."""
    if not URL or not BASE:
        pytest.skip("DELIBERATE_VLLM_URL and DELIBERATE_VLLM_BASE name no vLLM server")
    return load_base(BASE, dtype=torch.float32)


@pytest.fixture
def there(named):
    engine = VllmEngine(named, url=URL, model="served", patience=300.0)
    yield engine
    engine.close(0.0)


def equal_to_the_end(got, wanted) -> bool:
    """Whether all tokens are equal; after a tie the answers have nothing in common."""
    for one, other in zip(got.tokens, wanted.tokens, strict=False):
        assert one.logprob == pytest.approx(other.logprob, abs=NEAR)
        if one.id != other.id:
            likeliest, next_one = other.top[:2]
            assert likeliest[2] - next_one[2] < NEAR, "not a tie"
            return False
    assert (got.finish, len(got.tokens)) == (wanted.finish, len(wanted.tokens))
    return True


def test_answers_of_vllm_itself_are_those_of_the_own_engine(
    named, there, make, engine, ask, caplog
):
    random, here = torch.Generator().manual_seed(3), engine(named)
    texts = [torch.randint(2, named.vocab, (5 + 3 * i,), generator=random) for i in range(TEXTS)]
    plain = prefill(named, texts)
    equal = []
    for cache in [*plain, *augment(named, make(named, "paper"), plain)]:
        request = Request(
            token_ids=NOTHING, cache=cache, sampling=Sampling(max_tokens=24), logprobs=2
        )
        got, wanted = ask(there, request).wait(), ask(here, request).wait()
        equal.append(equal_to_the_end(got, wanted))
    assert not caplog.records, "and nothing was decoded here"
    assert equal.count(False) <= 2, "ties are rare"
