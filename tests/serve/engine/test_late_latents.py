"""Latents that come while an answer is decoded are read as design says, and predict the rest."""

import logging

import pytest
import torch

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.augment import augment, prefill
from deliberate.core.batch import Batch
from deliberate.core.cache import stack
from deliberate.core.generate import Sampling, generate
from deliberate.serve.engine import Latents, Request

TOLERANCE = 1e-4


@pytest.fixture
def base(unlike_base):
    return unlike_base


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def late(ask, asked):
    """Ask for an answer whose latents come when so many tokens are decoded."""

    def late(running, x, latents, *, after: int, sampling=None, behind: int = 0, positions):
        one, calls = asked(), []
        arrived = Latents(latents=latents, positions=positions, behind=behind)

        def poll():
            calls.append(len(one.tokens))
            return arrived if len(one.tokens) >= after else None

        sampling = sampling or Sampling(max_tokens=after + 6, temperature=1.0, seed=4)
        request = Request(token_ids=x, sampling=sampling, logprobs=0, late=poll)
        ask(running, request, asked=one)
        one.calls = calls
        return one

    return late


def thought(base, make, x, *, positions: str):
    """Latents over a text."""
    coprocessor = make(base, "warm", positions=positions)
    return augment(base, coprocessor, prefill(base, [x]))[0]


@pytest.mark.parametrize("positions", ["after", "over"])
@pytest.mark.parametrize("delay", [1, 4])
def test_late_latents_predict_what_the_loss_with_a_delay_measures(
    base, make, engine, ask, late, delay, positions
):
    running, x = engine(base, rows=3), text(5, 13)
    z = thought(base, make, x, positions=positions).latents
    others = [ask(running, Request(token_ids=text(seed, 4 * seed))) for seed in (1, 2)]
    one = late(running, x, z, after=delay, positions=positions).wait()
    y = torch.tensor([token.id for token in one.tokens])
    whole = prefill(base, [torch.cat([x, y])])
    ahead = len(y) - delay
    losses = ahead_losses(
        base,
        stack(whole, base.trunk),
        torch.tensor([[len(x) - 1]]),
        z[None, None],
        ahead=ahead,
        positions=positions,
        delay=delay,
    )[0, 0]
    told = torch.tensor([token.logprob for token in one.tokens])
    torch.testing.assert_close(-told[delay:], losses, atol=TOLERANCE, rtol=1e-4)
    plain = base.logits(base.read(whole[0].token_ids[None]).hidden[0]).log_softmax(-1)
    unaided = plain[len(x) - 1 : -1].gather(-1, y[:, None])[:, 0]
    torch.testing.assert_close(told[:delay], unaided[:delay], atol=TOLERANCE, rtol=1e-4)
    assert (told[delay:] - unaided[delay:]).abs().max() > 100 * TOLERANCE
    assert one.late_after == [delay]
    assert one.calls == list(range(delay + 1))  # and it is not asked again
    for other in others:
        other.wait()


@pytest.mark.parametrize("positions", ["after", "over"])
def test_late_latents_are_one_straight_forward(base, make, engine, late, positions):
    running, x, delay = engine(base), text(8, 9), 3
    z = thought(base, make, x, positions=positions).latents
    one = late(running, x, z, after=delay, positions=positions).wait()
    y = torch.tensor([token.id for token in one.tokens])
    last, count = len(x) + delay - 2, len(z)  # position of the last token read before them
    over = positions == "over"
    at = [max(0, last + 1 + i - count * over) for i in range(count)]
    rest = [last + 1 + i + count * (not over) for i in range(len(y) - delay + 1)]
    embeds = torch.cat([base.embed(x), base.embed(y[: delay - 1]), z, base.embed(y[delay - 1 :])])
    with torch.no_grad():
        logits = base.model(
            inputs_embeds=embeds[None],
            position_ids=torch.tensor([[*range(last + 1), *at, *rest]]),
            attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
            use_cache=False,
        ).logits[0]
    straight = logits[last + 1 + count : -1].log_softmax(-1).gather(-1, y[delay:, None])[:, 0]
    told = torch.tensor([token.logprob for token in one.tokens[delay:]])
    torch.testing.assert_close(told, straight, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("positions", ["after", "over"])
def test_latents_there_before_the_first_token_make_an_augmented_cache(
    base, make, engine, ask, late, equal, positions
):
    running, x, sampling = engine(base, rows=3), text(7, 12), Sampling(max_tokens=9)
    augmented = thought(base, make, x, positions=positions)
    other = ask(running, Request(token_ids=text(1, 5), sampling=Sampling(max_tokens=30)))
    one = late(running, x, augmented.latents, after=0, sampling=sampling, positions=positions)
    assert equal(one.wait().generation(), generate(base, [augmented], sampling)[0])
    assert one.late_after == [0]
    other.wait()


def test_latents_over_less_than_the_prompt_wait_for_the_first_token(llama, make, engine, late):
    running, x = engine(llama), text(7, 12)
    z = thought(llama, make, x[:8], positions="over").latents
    one = late(running, x, z, after=0, behind=4, positions="over").wait()
    assert one.late_after == [1]


def test_latents_without_room_are_left_out(base, make, engine, late, equal, caplog):
    running, x, sampling = engine(base), text(7, 58), Sampling(max_tokens=30)
    z = thought(base, make, x, positions="after").latents
    one = late(running, x, z, after=4, sampling=sampling, positions="after").wait()
    expected = generate(base, prefill(base, [x]), sampling)[0]
    assert len(expected.token_ids) > 4
    assert equal(one.generation(), expected)
    assert one.late_after == []
    assert "beyond the base's 64 positions" in caplog.text


@pytest.mark.parametrize("what", ["raises", "misshapen", "unreadable"])
def test_latents_that_fail_change_no_answer(
    llama, make, engine, ask, equal, caplog, monkeypatch, what
):
    running, x, sampling = engine(llama), text(7, 9), Sampling(max_tokens=12)
    expected = generate(llama, prefill(llama, [x]), sampling)[0]
    z = thought(llama, make, x, positions="over").latents
    forward = llama.trunk.forward

    def poll():
        if what == "raises":
            raise OSError("the coprocessor is gone")
        return Latents(latents=z[:, :5] if what == "misshapen" else z, positions="over")

    def fails(**settings):
        embeds = settings.get("inputs_embeds")  # a prompt is read by its token ids
        if embeds is not None and embeds.shape[1] == len(z):
            raise RuntimeError("out of memory")
        return forward(**settings)

    if what == "unreadable":
        monkeypatch.setattr(llama.trunk, "forward", fails)
    with caplog.at_level(logging.WARNING, logger="deliberate.serve"):
        one = ask(running, Request(token_ids=x, sampling=sampling, late=poll)).wait()
    assert equal(one.generation(), expected)
    assert one.late_after == []
    assert "latents" in caplog.text


def test_several_rows_take_up_latents_at_once(llama, make, engine, late):
    running = engine(llama, rows=6)
    # Made before: a coprocessor that is made listens to a pass of the base, whoever's it is.
    texts = [text(seed, 6 + seed) for seed in range(4)]
    thoughts = [thought(llama, make, x, positions="after").latents for x in texts]
    together = [
        late(running, x, z, after=2, positions="after")
        for x, z in zip(texts, thoughts, strict=True)
    ]
    for x, z, one in zip(texts, thoughts, together, strict=True):
        ids = one.wait().generation().token_ids
        alone = late(running, x, z, after=2, positions="after").wait()
        assert ids == alone.generation().token_ids
        assert one.late_after == [2]


@pytest.mark.parametrize(("fails", "others"), [("part", "length"), ("leave", "failed")])
def test_where_taking_an_answer_apart_fails_every_answer_still_ends(
    llama, make, engine, ask, asked, monkeypatch, fails, others
):
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", -1)
    z = thought(llama, make, text(7, 9), positions="over").latents
    works, calls, ones = getattr(Batch, fails), [], [asked() for _ in range(3)]

    def second_fails(batch, row):
        calls.append(row)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return works(batch, row)

    def poll():  # ready for two answers between the same two tokens
        together = all(len(one.tokens) > 1 for one in ones)
        return Latents(latents=z, positions="over") if together else None

    monkeypatch.setattr(Batch, fails, second_fails)
    running, sampling = engine(llama), Sampling(max_tokens=30)
    for seed, (one, late) in enumerate(zip(ones, (poll, poll, None), strict=True)):
        ask(running, Request(token_ids=text(seed, 9), sampling=sampling, late=late), asked=one)
    assert [one.wait().finish for one in ones] == ["length", others, others]
    assert [len(one.late_after) for one in ones] == [1, 0, 0]
    monkeypatch.undo()
    assert ask(running, Request(token_ids=text(4, 5), sampling=sampling)).wait().finish
