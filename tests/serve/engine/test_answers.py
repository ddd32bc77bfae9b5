"""Whatever else the engine has to do, each answer is what `generate` gives for it alone."""

import random

import pytest
import torch

from deliberate.core.augment import augment, extend, prefill
from deliberate.core.cache import Cache
from deliberate.core.generate import Sampling, generate
from deliberate.serve.engine import Request
from deliberate.serve.token_texts import added


@pytest.fixture
def base(unlike_base):
    return unlike_base


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


NOTHING = text(0, 0)


def begun(base, make, seed: int) -> list[tuple[Cache | None, torch.Tensor]]:
    """Prompts of every kind: text, plain and augmented caches, with and without text after."""
    plain = prefill(base, [text(seed + row, length) for row, length in enumerate((9, 4, 13, 6))])
    augmented = augment(base, make(base, "warm"), plain[2:])
    return [
        (None, text(seed, 11)),
        (plain[0], NOTHING),
        (augmented[0], text(seed + 1, 5)),
        (None, text(seed + 2, 1)),
        (augmented[1], NOTHING),
        (plain[1], text(seed + 3, 14)),
        (None, text(seed + 4, 23)),
    ]


def alone(base, cache: Cache | None, token_ids: torch.Tensor, sampling: Sampling):
    whole = prefill(base, [token_ids])[0] if cache is None else extend(base, cache, token_ids)
    return generate(base, [whole], sampling)[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_that_join_and_leave_change_no_answer(base, make, engine, ask, equal, seed):
    chance = random.Random(seed)
    running = engine(base, rows=4, slice_tokens=4)
    requests = [
        Request(
            cache=cache,
            token_ids=token_ids,
            sampling=Sampling(max_tokens=chance.randrange(1, 14)),
        )
        for cache, token_ids in begun(base, make, 10 * seed)
    ]
    waiting, all_asked = requests[2:], []

    def on_piece(_) -> None:  # on the engine's thread, so that the schedule is the same each time
        if waiting and chance.random() < 0.3:
            all_asked.append(ask(running, waiting.pop(0), on_piece))

    all_asked += [ask(running, request, on_piece) for request in requests[:2]]
    for one in all_asked:
        one.wait()
    assert len(all_asked) >= 2
    all_asked += [ask(running, request).wait() for request in waiting]
    answers = [one.generation() for one in all_asked]
    for request in requests:
        expected = alone(base, request.cache, request.token_ids, request.sampling)
        assert any(equal(answer, expected) for answer in answers)


@pytest.mark.parametrize("slice_tokens", [1, 3, 256])
def test_a_prompt_in_slices_is_the_prompt_at_once(base, make, engine, ask, equal, slice_tokens):
    running, sampling = engine(base, slice_tokens=slice_tokens), Sampling(max_tokens=7)
    asked = [
        (ask(running, Request(cache=cache, token_ids=ids, sampling=sampling)), cache, ids)
        for cache, ids in begun(base, make, 40)
    ]
    for one, cache, ids in asked:
        assert equal(one.wait().generation(), alone(base, cache, ids, sampling))


def test_sampled_answers_are_those_of_generate(llama, make, engine, ask, equal):
    running = engine(llama, rows=5)
    settings = [(0.7, 1.0, 3), (0.0, 1.0, 4), (1.2, 0.8, 5), (0.7, 1.0, 6), (0.0, 0.5, 7)]
    asked = []
    for (temperature, top_p, seed), (cache, ids) in zip(
        settings, begun(llama, make, 5)[:5], strict=True
    ):
        sampling = Sampling(max_tokens=15, temperature=temperature, top_p=top_p, seed=seed)
        request = Request(cache=cache, token_ids=ids, sampling=sampling)
        asked.append((ask(running, request), cache, ids, sampling))
    for one, cache, ids, sampling in asked:
        assert equal(one.wait().generation(), alone(llama, cache, ids, sampling))


def test_a_stop_text_ends_its_answer_and_is_never_told(llama, engine, ask, equal):
    running = engine(llama)
    free = alone(llama, None, text(3, 9), Sampling(max_tokens=20)).text
    for first in range(0, len(free) - 3, 3):
        stop = (free[first : first + 3], "never")
        sampling = Sampling(max_tokens=20, stop=stop)
        one = ask(running, Request(token_ids=text(3, 9), sampling=sampling)).wait()
        assert equal(one.generation(), alone(llama, None, text(3, 9), sampling))
        assert one.finish == "stop"
        assert stop[0] not in one.generation().text


def test_the_end_token_ends_an_answer(llama, engine, ask):
    running = engine(llama)
    ended = 0
    for seed in range(12):
        request = Request(token_ids=text(seed, 8), sampling=Sampling(max_tokens=30))
        one = ask(running, request).wait()
        ended += one.finish == "stop"
        assert (one.finish == "stop") == (one.tokens[-1].id == 0)
        assert all(token.id for token in one.tokens[:-1])
    assert ended


def test_an_answer_ends_with_the_base_s_positions(base, engine, ask, equal):
    running, sampling = engine(base), Sampling(max_tokens=50)
    asked = [ask(running, Request(token_ids=text(1, n), sampling=sampling)) for n in (60, 63, 5)]
    for one, length in zip(asked, (60, 63, 5), strict=True):
        expected = alone(base, None, text(1, length), sampling)
        assert equal(one.wait().generation(), expected)
        assert len(one.tokens) <= 64 - length + 1


def test_log_probabilities_are_those_of_one_straight_forward(base, engine, ask):
    running, x = engine(base), text(6, 12)
    sampling = Sampling(max_tokens=6, temperature=0.9, seed=2)
    quiet = ask(running, Request(token_ids=x, sampling=sampling))
    one = ask(running, Request(token_ids=x, sampling=sampling, logprobs=3)).wait()
    y = torch.tensor([token.id for token in one.tokens])
    with torch.no_grad():
        logits = base.model(input_ids=torch.cat([x, y])[None]).logits[0, 11:-1]
    logprobs = logits.log_softmax(-1)
    for at, token in enumerate(one.tokens):
        assert token.logprob == pytest.approx(float(logprobs[at, token.id]), abs=1e-4)
        values, ids = logprobs[at].topk(3)
        assert [entry[0] for entry in token.top] == ids.tolist()
        assert [entry[2] for entry in token.top] == pytest.approx(values.tolist(), abs=1e-4)
        before = one.generation().token_ids[:at]
        assert [entry[1] for entry in token.top] == added(base, before, ids.tolist())
    assert [token.logprob for token in quiet.wait().tokens] == [None] * len(quiet.tokens)
    assert quiet.generation().token_ids == y.tolist()


def test_what_is_read_is_the_cache_that_prefill_and_extend_make(base, make, engine, ask):
    running, prompts = engine(base, slice_tokens=4), begun(base, make, 70)
    busy = ask(running, Request(token_ids=text(1, 3), sampling=Sampling(max_tokens=40)))
    for cache, ids in prompts:
        with running.lock:
            expected = prefill(base, [ids])[0] if cache is None else extend(base, cache, ids)
        read = running.read(ids, cache)
        one = ask(running, Request(token_ids=ids, cache=cache, keep=True)).wait()
        for made in (read, one.ticket.cache()):
            assert torch.equal(made.token_ids, expected.token_ids)
            assert torch.equal(made.position_ids, expected.position_ids)
            assert made.followed == expected.followed
            torch.testing.assert_close(made.tip, expected.tip, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(made.last_hidden, expected.last_hidden, atol=1e-4, rtol=1e-4)
            layers = zip(
                (*made.keys, *made.values), (*expected.keys, *expected.values), strict=True
            )
            for ours, theirs in layers:
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    busy.wait()


def test_the_caches_given_are_left_as_they_were(llama, make, engine, ask):
    running = engine(llama)
    caches = [cache for cache, _ in begun(llama, make, 90) if cache is not None]
    before = [[layer.clone() for layer in (*cache.keys, *cache.values)] for cache in caches]
    asked = [ask(running, Request(token_ids=text(1, 3), cache=cache)) for cache in caches]
    asked += [ask(running, Request(token_ids=NOTHING, cache=cache)) for cache in caches]
    for one in asked:
        one.wait()
    for cache, layers in zip(caches, before, strict=True):
        assert all(map(torch.equal, (*cache.keys, *cache.values), layers))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"token_ids": NOTHING}, "token_ids must hold a token"),
        ({"sampling": Sampling(every=3)}, "every must be None, got 3"),
        ({"logprobs": 21}, "logprobs must be from -1 to 20, got 21"),
        ({"logprobs": -2}, "logprobs must be from -1 to 20, got -2"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        Request(**{"token_ids": text(1, 3), **fields})
