"""The coprocessor at work in the background: in turn, once each, and harmless when it fails."""

import threading
import time

import pytest

from deliberate.serve.store_errors import NoSuchCacheError
from deliberate.serve.thinker import QueueFullError
from deliberate.serve.worker import BrokenWorkerError, ThoughtError, Worker, WorkerLostError

PATIENCE = 60.0
"""Seconds until a test gives up on something that should come at once."""


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Scripted(Worker):
    """A worker that does as it is told for each cache, and notes the order."""

    alive = False

    def __init__(self, think, script=None, starts=()):
        self.think, self.script, self.starts = think, script or {}, list(starts)
        self.order, self.started = [], 0
        self.at_work, self.go_on, self.stopped = threading.Event(), threading.Event(), False
        self.go_on.set()

    def start(self):
        self.started += 1
        failure = self.starts.pop(0) if self.starts else None
        if failure:
            raise failure
        self.alive = True

    def work(self, store, cache_id):
        self.order.append(cache_id)
        self.at_work.set()
        assert self.go_on.wait(PATIENCE)
        failure = self.script.get(cache_id)
        if failure:
            self.alive = not isinstance(failure, WorkerLostError)
            raise failure
        store.replace(cache_id, self.think(store.get(cache_id).text_part()))

    def stop(self):
        self.stopped = True
        self.go_on.set()


def test_what_is_asked_for_gets_latents_and_who_asked_is_told_once(
    open_store, read, think, begin, told, same
):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 9)]
    thinker = begin(store, Scripted(think))
    for cache_id in ids:
        thinker.ask(cache_id, told.put)
        thinker.ask(cache_id, told.put)
    assert sorted(told.take(8)) == sorted(ids * 2)
    for token, cache_id in enumerate(ids, 5):
        assert store.entry(cache_id).state == "augmented"
        assert same(store.get(cache_id), think(read(0, token)))
    thinker.ask(ids[0], told.put)  # it has them already
    assert told.take(1) == ids[:1]
    assert told.empty()
    assert thinker.counts.augmented == 4


def test_what_a_request_waits_for_comes_first_and_nothing_twice(
    open_store, read, think, begin, told
):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 10)]
    worker = Scripted(think)
    worker.go_on.clear()
    thinker = begin(store, worker)
    thinker.ask(ids[0], told.put)
    assert worker.at_work.wait(PATIENCE)
    assert thinker.state == "busy"
    for cache_id in ids[1:4]:
        thinker.ask(cache_id, told.put)
    thinker.ask(ids[4], told.put, urgent=True)
    thinker.ask(ids[3], urgent=True)
    thinker.ask(ids[0], urgent=True)
    assert thinker.counts.queued == 4
    assert {store.entry(cache_id).state for cache_id in ids} == {"augmenting"}
    worker.go_on.set()
    told.take(5)
    assert worker.order == [ids[0], ids[4], ids[3], ids[1], ids[2]]


@pytest.fixture
def busy(open_store, read, think, begin):
    """A store and a thinker that is at work on its first cache, until its worker may go on."""
    store = open_store()
    worker = Scripted(think)
    worker.go_on.clear()
    thinker = begin(store, worker, queue=2)
    thinker.ask(store.put(read(0, 4)))
    assert worker.at_work.wait(PATIENCE)
    return store, thinker, worker


def test_of_more_than_the_queue_holds_the_last_is_refused_and_stays_plain(busy, read, told):
    store, thinker, worker = busy
    ids = [store.put(read(0, token)) for token in range(5, 8)]
    for cache_id in ids[:2]:
        thinker.ask(cache_id, told.put)
    with pytest.raises(
        QueueFullError, match="as many texts wait for the coprocessor as may, 2: come"
    ):
        thinker.ask(ids[2], told.put)
    thinker.ask(ids[0], told.put)  # it waits already
    assert [store.entry(each).state for each in ids] == ["augmenting", "augmenting", "plain"]
    assert (thinker.counts.queued, thinker.counts.crowded) == (2, 1)
    worker.go_on.set()
    assert told.take(3) == [ids[0], ids[0], ids[1]]
    thinker.ask(ids[2], told.put)  # there is room again
    assert told.take(1) == [ids[2]]
    assert store.entry(ids[2]).state == "augmented"


def test_what_a_request_waits_for_takes_the_place_of_what_nobody_waits_for(busy, read, told):
    store, thinker, worker = busy
    ids = [store.put(read(0, token)) for token in range(5, 10)]
    for cache_id in ids[:2]:
        thinker.ask(cache_id, told.put)
    thinker.ask(ids[2], told.put, urgent=True)
    assert told.take(1) == [ids[1]]  # the last one made way
    assert store.entry(ids[1]).state == "plain"
    thinker.ask(ids[3], told.put, urgent=True)
    assert told.take(1) == [ids[0]]
    with pytest.raises(QueueFullError):
        thinker.ask(ids[4], urgent=True)
    assert thinker.counts.queued == 2
    worker.go_on.set()
    assert told.take(2) == [ids[2], ids[3]]
    assert worker.order[1:] == [ids[2], ids[3]]


def test_what_is_offered_has_one_turn_once_nothing_is_asked_for(busy, read, told):
    store, thinker, worker = busy
    ids = [store.put(read(0, token)) for token in range(5, 12)]
    worth, unsure, done_without, gone, asked, full, late = ids
    store.decide(done_without)
    thinker.offer([worth, unsure, done_without, gone, late], lambda each: each != unsure)
    store.delete(gone)
    thinker.ask(asked, told.put)
    thinker.ask(full, told.put)  # what is offered takes no room in the queue
    thinker.ask(late, told.put, urgent=True)
    told.take(1)  # the last of the queue made way for it
    assert store.entry(worth).state == "plain"
    worker.go_on.set()
    assert told.take(2) == [late, asked]
    until(lambda: store.undecided(10) == [full])  # it was let go
    assert worker.order[1:] == [late, asked, worth]
    assert [store.entry(each).state for each in (worth, unsure, done_without)] == [
        "augmented",
        "plain",
        "plain",
    ]


def test_half_of_the_losses_are_left_to_what_is_asked_for(open_store, read, think, begin, told):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 10)]
    worker = Scripted(think, {each: WorkerLostError("it hung") for each in ids[:3]})
    thinker = begin(store, worker, restarts=3)
    thinker.offer(ids[:4], lambda _: True)
    until(lambda: thinker.counts.lost == 2 and thinker.state == "ready")
    assert worker.order == ids[:2]
    thinker.ask(ids[4], told.put)
    told.take(1)  # the worker is well, so the others have their turn
    until(lambda: store.entry(ids[3]).state == "augmented")
    assert worker.order == [*ids[:2], ids[4], *ids[2:4]]


def test_what_is_cancelled_or_deleted_is_not_thought_over(open_store, read, think, begin, told):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 9)]
    worker = Scripted(think)
    worker.go_on.clear()
    thinker = begin(store, worker)
    for cache_id in ids:
        thinker.ask(cache_id, told.put)
    assert worker.at_work.wait(PATIENCE)
    thinker.cancel(ids[1])
    assert told.take(1) == [ids[1]]
    assert store.entry(ids[1]).state == "plain"
    store.delete(ids[0])  # at work
    store.delete(ids[2])  # waiting
    worker.go_on.set()
    assert sorted(told.take(3)) == sorted([ids[0], ids[2], ids[3]])
    assert worker.order == [ids[0], ids[3]]
    assert {entry.id: entry.state for entry in store.entries()} == {
        ids[1]: "plain",
        ids[3]: "augmented",
    }
    assert thinker.counts.failed == 0
    with pytest.raises(NoSuchCacheError):
        thinker.ask(ids[0])


def test_a_cache_that_fails_says_why_stays_plain_and_is_not_asked_for_again(
    open_store, read, think, begin, told, same
):
    store = open_store()
    bad, good = store.put(read(0, 5)), store.put(read(0, 6))
    worker = Scripted(think, {bad: ThoughtError("no room for 3 latents")})
    thinker = begin(store, worker)
    for cache_id in (bad, bad, good):
        thinker.ask(cache_id, told.put)
        told.take(1)
    entry = store.entry(bad)
    assert (entry.state, entry.reason) == ("failed", "no room for 3 latents")
    assert same(store.get(bad), read(0, 5))
    assert store.entry(good).state == "augmented"
    assert worker.order == [bad, good]
    assert worker.started == 1


def test_a_worker_that_is_lost_is_started_again_and_works_on(open_store, read, think, begin, told):
    store = open_store()
    bad, good = store.put(read(0, 5)), store.put(read(0, 6))
    worker = Scripted(think, {bad: WorkerLostError("killed by SIGKILL")})
    thinker = begin(store, worker, restarts=1)
    thinker.ask(bad, told.put)
    thinker.ask(good, told.put)
    assert told.take(2) == [bad, good]
    assert store.entry(bad).reason == "killed by SIGKILL"
    assert store.entry(good).state == "augmented"
    assert (worker.started, thinker.counts.lost) == (2, 1)


def test_a_worker_that_died_while_idle_costs_no_cache_its_latents(
    open_store, read, think, begin, told
):
    store = open_store()
    first, second = store.put(read(0, 5)), store.put(read(0, 6))
    worker = Scripted(think)
    thinker = begin(store, worker)
    thinker.ask(first, told.put)
    told.take(1)
    until(lambda: thinker.state == "ready")
    worker.alive = False
    thinker.ask(second, told.put)
    told.take(1)
    assert store.entry(second).state == "augmented"
    assert worker.started == 2


def test_a_worker_that_dies_while_nobody_asks_is_noticed_and_started_again(
    open_store, think, begin
):
    worker = Scripted(think)
    thinker = begin(open_store(), worker)
    until(lambda: thinker.state == "ready")
    worker.alive = False
    until(lambda: thinker.counts.lost == 1 and thinker.state == "ready")
    assert worker.started == 2
    assert thinker.reason == "the coprocessor's process died while idle"


def test_a_worker_that_dies_whenever_it_is_ready_is_given_up(open_store, think, begin):
    class Dying(Scripted):
        @property
        def alive(self):
            return False

        @alive.setter
        def alive(self, _):
            pass

    worker = Dying(think)
    thinker = begin(open_store(), worker, restarts=2)
    until(lambda: thinker.state == "absent")
    assert thinker.reason == "the coprocessor's process died while idle (3 times in a row)"
    assert (worker.started, thinker.counts.lost) == (3, 3)


def test_a_worker_that_is_lost_too_often_in_a_row_is_absent_and_the_caches_are_plain(
    open_store, read, think, begin, told, same
):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 9)]
    lost = WorkerLostError("it hung")
    worker = Scripted(think, {ids[0]: lost, ids[2]: lost}, starts=[None, None, lost])
    worker.go_on.clear()
    thinker = begin(store, worker, restarts=1)
    for cache_id in ids:
        thinker.ask(cache_id, told.put)
    worker.go_on.set()
    assert told.take(4) == ids
    assert [store.entry(each).state for each in ids] == ["failed", "augmented", "failed", "plain"]
    assert thinker.state == "absent"
    assert thinker.reason == "it hung (2 times in a row)"
    assert worker.order == ids[:3]
    assert worker.started == 3
    thinker.ask(ids[3], told.put)
    assert told.take(1) == [ids[3]]
    assert same(store.find([0, 8])[1], read(0, 8))


def test_a_worker_that_cannot_begin_is_absent_at_once(open_store, read, think, begin, told):
    store = open_store()
    cache_id = store.put(read(0, 5))
    worker = Scripted(think, starts=[BrokenWorkerError("it serves another base")])
    thinker = begin(store, worker)
    thinker.ask(cache_id, told.put)
    told.take(1)
    assert (thinker.state, thinker.reason) == ("absent", "it serves another base")
    assert store.entry(cache_id).state == "plain"
    assert worker.started == 1


def test_without_a_coprocessor_everything_else_is_as_it_was(open_store, read, begin, told):
    store = open_store(coprocessor="")
    cache_id = store.put(read(0, 5))
    thinker = begin(store, None)
    thinker.ask(cache_id, told.put)
    assert told.take(1) == [cache_id]
    assert (thinker.state, thinker.reason) == ("absent", "no coprocessor is served")
    assert store.entry(cache_id).state == "plain"


def test_one_who_asks_and_fails_does_not_stop_the_others(open_store, read, think, begin, told):
    store = open_store()
    cache_id = store.put(read(0, 5))

    def fail(cache_id):
        raise RuntimeError(cache_id)

    worker = Scripted(think)
    worker.go_on.clear()
    thinker = begin(store, worker)
    thinker.ask(cache_id, fail)
    thinker.ask(cache_id, told.put)
    worker.go_on.set()
    assert told.take(1) == [cache_id]
    assert thinker.state != "absent"


def test_closing_tells_who_waits_and_leaves_the_caches_plain(open_store, read, think, begin, told):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 8)]
    worker = Scripted(think, {each: WorkerLostError("stopped") for each in ids})
    worker.go_on.clear()
    thinker = begin(store, worker)
    for cache_id in ids:
        thinker.ask(cache_id, told.put)
    assert worker.at_work.wait(PATIENCE)
    thinker.close()
    assert sorted(told.take(3)) == sorted(ids)
    assert {entry.state for entry in store.entries()} == {"plain"}
    assert worker.stopped
    assert thinker.counts.failed == 0
    thinker.ask(ids[0], told.put)
    assert told.take(1) == ids[:1]
