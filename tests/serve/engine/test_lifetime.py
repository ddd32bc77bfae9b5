"""Requests come, fail, are cancelled and end; the engine goes on, and gives back what it took."""

import gc
import threading
import time

import pytest
import torch

from deliberate.core.augment import prefill
from deliberate.core.batch import Batch
from deliberate.core.errors import TextError
from deliberate.core.generate import Sampling, generate
from deliberate.serve.engine import ClosedError, Engine, Request
from deliberate.serve.turns import AbandonedError, Turns


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


ENDLESS = 5
"""Seed of a text after which the tiny Llama does not end before its positions do."""


def request(seed: int = ENDLESS, length: int = 6, tokens: int = 40, **fields) -> Request:
    return Request(token_ids=text(seed, length), sampling=Sampling(max_tokens=tokens), **fields)


def settle(running: Engine) -> None:
    """Wait until nothing is in hand: an answer's last piece is told before its row is let go."""
    until = time.monotonic() + 60
    while running.running or running.waiting:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture
def endless(llama, monkeypatch):
    """The tiny Llama without an end token."""
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", -1)
    return llama


def test_cancelling_frees_the_row_before_the_next_token(endless, engine, ask):
    running, seen = engine(endless, rows=2), []  # running, waiting, the first one's pieces

    def at_third(_) -> None:
        if len(first.pieces) == 3:
            first.ticket.cancel()

    def count(_) -> None:
        seen.append((running.running, running.waiting, len(first.pieces)))

    ready = threading.Event()
    first = ask(running, request(), lambda piece: (ready.wait(60), at_third(piece)))
    second = ask(running, request(1, 4, 12), count)
    third = ask(running, request(2, 4, 3))
    ready.set()
    assert first.wait().finish == "cancelled"
    assert len(first.tokens) == 3
    assert third.wait().finish == "length"
    assert second.wait().finish == "length"
    # While it decodes its fourth token there is one row less, or the next one has it already.
    assert {(ran, waited) for ran, waited, pieces in seen if pieces == 4} == {(1, 0), (2, 0)}


def test_what_waits_can_be_cancelled_too(endless, engine, ask):
    running, hold = engine(endless, rows=1), threading.Event()
    first = ask(running, request(), lambda _: hold.wait(60))
    second, third = ask(running, request(1)), ask(running, request(2, tokens=2))
    second.ticket.cancel()
    first.ticket.cancel()
    second.ticket.cancel()
    hold.set()
    assert [one.wait().finish for one in (first, second, third)] == [
        "cancelled",
        "cancelled",
        "length",
    ]
    assert not second.tokens
    first.ticket.cancel()  # of no effect any more
    assert ask(running, request(3, tokens=2)).wait().finish == "length"
    assert first.finish == "cancelled"


def test_a_callback_that_raises_ends_its_answer_alone(endless, engine, ask, equal, caplog):
    running = engine(endless)

    def raises(piece) -> None:
        if len(bad.pieces) == 2:
            raise ConnectionError("the client is gone")

    good = ask(running, request(1, 7, 12))
    bad = ask(running, request(), raises)
    assert bad.wait().finish == "failed"
    assert "the client is gone" in str(bad.pieces[-1].error)
    expected = generate(endless, prefill(endless, [text(1, 7)]), Sampling(max_tokens=12))[0]
    assert equal(good.wait().generation(), expected)
    assert "telling of a piece failed" in caplog.text


def test_a_callback_that_always_raises_does_no_more_harm(endless, engine, ask, caplog):
    running, called = engine(endless), []

    def raises(piece) -> None:
        called.append(piece)
        raise ConnectionError("the client is gone")

    running.submit(request(), raises)
    assert ask(running, request(1, tokens=3)).wait().finish == "length"
    assert [piece.finish for piece in called] == [None, "failed"]


@pytest.mark.parametrize("new", [1, 6], ids=["decoding", "prompt"])
def test_a_failed_forward_fails_its_requests_and_no_later_ones(
    endless, engine, ask, monkeypatch, caplog, new
):
    running, forward, failing = engine(endless), endless.trunk.forward, threading.Event()

    def fails(*args, **settings):
        fed = settings.get("inputs_embeds", settings.get("input_ids"))
        if failing.is_set() and fed.shape[1] == new:
            raise RuntimeError("out of memory")
        return forward(*args, **settings)

    monkeypatch.setattr(endless.trunk, "forward", fails)
    asked = []

    def then(_) -> None:
        failing.set()
        if not asked:
            asked.append(ask(running, request(2, 6, 9)))

    earlier = ask(running, request(1, 4, 30), then).wait()
    later = asked[0].wait()
    finishes = [earlier.finish, later.finish]
    assert finishes == (["failed", "failed"] if new == 1 else ["length", "failed"])
    assert repr(later.pieces[-1].error) == "RuntimeError('out of memory')"
    failing.clear()
    assert ask(running, request(3, 6, 4)).wait().finish == "length"
    settle(running)


def test_an_answer_that_cannot_be_let_go_of_leaves_an_engine_that_answers(
    endless, engine, ask, monkeypatch, caplog
):
    running = engine(endless)
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "leave", lambda *_: 1 / 0)
        first = ask(running, request(tokens=50), lambda _: time.sleep(0.01))
        second = ask(running, request(1, tokens=50), lambda _: first.ticket.cancel())
        assert [first.wait().finish, second.wait().finish] == ["failed", "failed"]
    assert ask(running, request(2, tokens=3)).wait().finish == "length"
    assert "letting go of answers failed" in caplog.text


def test_a_reading_that_fails_raises_for_whoever_waits(endless, engine, monkeypatch, caplog):
    running = engine(endless)
    with monkeypatch.context() as patch:
        patch.setattr(endless.trunk, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            running.read(text(1, 4))
    assert len(running.read(text(1, 4)).token_ids) == 4


def test_a_reading_that_is_cancelled_ends_before_its_next_slice(endless, engine, monkeypatch):
    running, forward, slices = engine(endless, slice_tokens=5), endless.trunk.forward, []
    begun, go_on = threading.Event(), threading.Event()

    def held(*args, **settings):
        slices.append(settings)
        begun.set()
        assert go_on.wait(60)
        return forward(*args, **settings)

    monkeypatch.setattr(endless.trunk, "forward", held)
    future = running.reading(text(1, 43))
    waiting = running.reading(text(2, 43))
    assert begun.wait(60)
    assert future.cancel()
    assert waiting.cancel()
    go_on.set()
    settle(running)
    assert len(slices) == 1
    assert len(running.read(text(1, 4)).token_ids) == 4


def test_closing_finishes_what_there_is(endless, ask):
    running = Engine(endless, rows=1)
    asked = [ask(running, request(seed, tokens=5)) for seed in range(3)]
    running.close(60.0)
    assert [one.finish for one in asked] == ["length"] * 3
    running.close(0.0)  # twice is once


def test_closing_without_time_cancels_what_there_is(endless, ask):
    running, begun = Engine(endless, rows=1), threading.Event()
    first = ask(running, request(), lambda _: (begun.set(), time.sleep(0.02)))
    second = ask(running, request(1))
    assert begun.wait(60)
    running.close(0.0)
    assert [first.finish, second.finish] == ["cancelled", "cancelled"]
    assert (running.running, running.waiting) == (0, 0)


def test_nothing_is_taken_after_closing(endless, ask):
    running = Engine(endless)
    running.close(0.0)
    with pytest.raises(ClosedError, match="the engine is closed"):
        running.submit(request(), print)
    with pytest.raises(ClosedError, match="the engine is closed"):
        running.read(text(1, 3))


def test_closing_ends_the_wait_for_a_reading(endless, ask):
    running, hold, begun = Engine(endless, rows=1), threading.Event(), threading.Event()
    ask(running, request(), lambda _: (begun.set(), hold.wait(60)))
    assert begun.wait(60)
    raised = []

    def read() -> None:
        try:
            running.read(text(1, 3))
        except ClosedError as error:
            raised.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while not running.waiting:
        time.sleep(0.001)
    closer = threading.Thread(target=running.close, args=(0.0,))
    closer.start()
    while not running._dropping:
        time.sleep(0.001)
    hold.set()
    closer.join()
    reader.join()
    assert len(raised) == 1


def test_the_engine_may_be_closed_from_a_callback(endless, ask):
    running = Engine(endless)
    one = ask(running, request(), lambda _: running.close(0.0))
    assert one.wait().finish == "cancelled"


def test_a_prompt_too_long_is_refused_at_once(llama, engine):
    running = engine(llama)
    with pytest.raises(TextError, match="the prompt has 64 tokens and needs one more"):
        running.submit(request(length=64), print)
    [cache] = prefill(llama, [text(1, 60)])
    with pytest.raises(TextError, match="4 tokens after the 60 positions of its cache"):
        running.submit(Request(token_ids=text(2, 4), cache=cache), print)
    assert len(running.read(text(2, 4), cache).token_ids) == 64
    with pytest.raises(TextError, match="reads at most 64"):
        running.read(text(2, 5), cache)
    with pytest.raises(ValueError, match="token_ids must hold a token"):
        running.read(text(2, 0))
    assert running.read(text(2, 0), cache) is cache
    with pytest.raises(ValueError, match="at least 1, got 0 and 256"):
        Engine(llama, rows=0)


def test_slices_of_a_long_prompt_take_turns_with_tokens(endless, engine, ask, monkeypatch):
    running, forward, fed = engine(endless, slice_tokens=5), endless.trunk.forward, []

    def counted(*args, **settings):
        given = settings.get("inputs_embeds", settings.get("input_ids"))
        fed.append(given.shape[1])
        return forward(*args, **settings)

    monkeypatch.setattr(endless.trunk, "forward", counted)
    asked = []

    def more(_) -> None:
        if not asked:
            asked.append(ask(running, request(1, 43, 2)))

    ask(running, request(2, 4, 30), more).wait()
    asked[0].wait()
    first, last = fed.index(5), len(fed) - fed[::-1].index(3)
    assert fed[first:last] == [5, 1] * 8 + [3]


def test_a_short_prompt_need_not_wait_for_a_long_one(endless, engine, ask):
    running, order, hold = engine(endless, slice_tokens=4, rows=3), [], threading.Event()
    first = ask(running, request(1, 3, 30), lambda _: hold.wait(60))
    long = ask(running, request(2, 50, 1), lambda _: order.append("long"))
    short = ask(running, request(3, 4, 1), lambda _: order.append("short"))
    hold.set()
    for one in (first, long, short):
        one.wait()
    assert order == ["short", "long"]


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.slow
def test_memory_returns_when_requests_have_ended(endless, make, engine, ask):
    running = engine(endless, rows=8)
    [cache] = prefill(endless, [text(1, 20)])
    counts = []
    for requests in (50, 950):
        asked = [
            ask(
                running,
                request(seed, 1 + seed % 7, 1 + seed % 2, cache=cache if seed % 2 else None),
            )
            for seed in range(requests)
        ]
        for one in asked:
            one.wait()
        settle(running)
        del asked, one
        counts.append(tensors())
    assert counts[1] <= counts[0]
    assert running._rows._batch is None


def test_turns_are_had_in_the_order_in_which_they_were_asked_for():
    turns, order, threads = Turns(), [], []

    def take(name: int) -> None:
        with turns:
            order.append(name)

    with turns:
        for name in range(5):
            threads.append(threading.Thread(target=take, args=(name,)))
            threads[-1].start()
            while len(turns._waiting) <= name:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(5))
    with turns:
        pass


def test_who_waits_for_a_turn_is_told_that_there_are_none_any_more():
    turns, raised = Turns(), []

    def take() -> None:
        try:
            with turns:
                raise AssertionError("it had a turn")
        except AbandonedError as error:
            raised.append(str(error))

    with turns:
        waiting = threading.Thread(target=take)
        waiting.start()
        while not turns._waiting:
            time.sleep(0.001)
        turns.abandon()
        waiting.join(60)
        assert len(raised) == 1
        take()
    take()
    assert "nobody may use the base's weights any more" in raised[2]


def test_closing_leaves_behind_whoever_holds_the_weights_for_ever(
    endless, ask, monkeypatch, caplog
):
    monkeypatch.setattr("deliberate.serve.engine._LAST_PASS", 0.05)
    running, begun, hold = Engine(endless), threading.Event(), threading.Event()

    def hang() -> None:
        with running.lock:
            begun.set()
            hold.wait(60)

    hanging = threading.Thread(target=hang)
    hanging.start()
    try:
        assert begun.wait(60)
        asked, read = ask(running, request()), running.reading(text(1, 3))
        while not running.lock._waiting:
            time.sleep(0.001)
        running.close(0.0)
        assert asked.wait().finish in {"failed", "cancelled"}
        assert read.exception(60) is not None
        assert "held by something that hangs: left behind" in caplog.text
    finally:
        hold.set()
        hanging.join()
