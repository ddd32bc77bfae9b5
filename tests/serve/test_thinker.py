"""The coprocessor at work in the background: in turn, once each, and harmless when it fails."""

import queue
import threading
import time

import pytest

from deliberate.core.checkpoint import Trained
from deliberate.serve.store_errors import NoSuchCacheError
from deliberate.serve.thinker import Thinker
from deliberate.serve.worker import BrokenWorkerError, ThoughtError, Worker, WorkerLostError
from deliberate.serve.worker_thread import ThreadWorker

PATIENCE = 60.0
"""Seconds until a test gives up on something that should come at once."""


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


@pytest.fixture
def told():
    """Collects the ids of what is done."""
    return queue.Queue()


@pytest.fixture
def begin():
    """Make thinkers, and close them at the end."""
    begun = []

    def begin(*arguments, **settings):
        begun.append(Thinker(*arguments, **settings))
        return begun[-1]

    yield begin
    for thinker in begun:
        thinker.close()


def take(told, count):
    return [told.get(timeout=PATIENCE) for _ in range(count)]


def test_what_is_asked_for_gets_latents_and_who_asked_is_told_once(
    open_store, read, think, begin, told, same
):
    store = open_store()
    ids = [store.put(read(0, token)) for token in range(5, 9)]
    thinker = begin(store, Scripted(think))
    for cache_id in ids:
        thinker.ask(cache_id, told.put)
        thinker.ask(cache_id, told.put)
    assert sorted(take(told, 8)) == sorted(ids * 2)
    for token, cache_id in enumerate(ids, 5):
        assert store.entry(cache_id).state == "augmented"
        assert same(store.get(cache_id), think(read(0, token)))
    thinker.ask(ids[0], told.put)  # it has them already
    assert take(told, 1) == ids[:1]
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
    take(told, 5)
    assert worker.order == [ids[0], ids[4], ids[3], ids[1], ids[2]]


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
    assert take(told, 1) == [ids[1]]
    assert store.entry(ids[1]).state == "plain"
    store.delete(ids[0])  # at work
    store.delete(ids[2])  # waiting
    worker.go_on.set()
    assert sorted(take(told, 3)) == sorted([ids[0], ids[2], ids[3]])
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
        take(told, 1)
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
    assert take(told, 2) == [bad, good]
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
    take(told, 1)
    while thinker.state != "ready":
        time.sleep(0.001)
    worker.alive = False
    thinker.ask(second, told.put)
    take(told, 1)
    assert store.entry(second).state == "augmented"
    assert worker.started == 2


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
    assert take(told, 4) == ids
    assert [store.entry(each).state for each in ids] == ["failed", "augmented", "failed", "plain"]
    assert thinker.state == "absent"
    assert thinker.reason == "it hung (2 times in a row)"
    assert worker.order == ids[:3]
    thinker.ask(ids[3], told.put)
    assert take(told, 1) == [ids[3]]
    assert same(store.find([0, 8])[1], read(0, 8))


def test_a_worker_that_cannot_begin_is_absent_at_once(open_store, read, think, begin, told):
    store = open_store()
    cache_id = store.put(read(0, 5))
    worker = Scripted(think, starts=[BrokenWorkerError("it serves another base")])
    thinker = begin(store, worker)
    thinker.ask(cache_id, told.put)
    take(told, 1)
    assert (thinker.state, thinker.reason) == ("absent", "it serves another base")
    assert store.entry(cache_id).state == "plain"
    assert worker.started == 1


def test_without_a_coprocessor_everything_else_is_as_it_was(open_store, read, begin, told):
    store = open_store(coprocessor="")
    cache_id = store.put(read(0, 5))
    thinker = begin(store, None)
    thinker.ask(cache_id, told.put)
    assert take(told, 1) == [cache_id]
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
    assert take(told, 1) == [cache_id]
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
    assert sorted(take(told, 3)) == sorted(ids)
    assert {entry.state for entry in store.entries()} == {"plain"}
    assert worker.stopped
    assert thinker.counts.failed == 0
    thinker.ask(ids[0], told.put)
    assert take(told, 1) == ids[:1]


@pytest.fixture
def trained(llama, make):
    return Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="c0ffee")


def test_a_thread_writes_what_core_writes_and_only_under_the_lock(
    open_store, read, think, begin, told, same, llama, trained
):
    store = open_store()
    cache_id = store.put(read(0, 5))
    lock = threading.Lock()
    thinker = begin(store, ThreadWorker(llama, trained, lock=lock, limit=PATIENCE))
    with lock:
        thinker.ask(cache_id, told.put)
        with pytest.raises(queue.Empty):
            told.get(timeout=0.2)
    take(told, 1)
    assert same(store.get(cache_id), think(read(0, 5)))


def test_a_thread_without_room_for_latents_says_so(open_store, read, begin, told, llama, make):
    store = open_store()
    cache_id = store.put(read(*range(62), 0))
    trained = Trained(coprocessor=make(llama, "paper"), id="tiny", fingerprint="c0ffee")
    thinker = begin(store, ThreadWorker(llama, trained, lock=threading.Lock(), limit=PATIENCE))
    thinker.ask(cache_id, told.put)
    take(told, 1)
    entry = store.entry(cache_id)
    assert entry.state == "failed"
    assert "no room for 3 latents" in entry.reason


def test_a_thread_that_hangs_is_not_waited_for_and_taken_back_when_it_ends(
    open_store, read, begin, told, llama, trained
):
    store = open_store()
    first, second = store.put(read(0, 5)), store.put(read(0, 6))
    lock = threading.Lock()
    worker = ThreadWorker(llama, trained, lock=lock, limit=0.3)
    thinker = begin(store, worker, restarts=200)
    with lock:
        thinker.ask(first, told.put)
        take(told, 1)
        assert store.entry(first).state == "failed"
        assert "within 0.3 s" in store.entry(first).reason
    thinker.ask(second, told.put)
    worker._limit = PATIENCE
    take(told, 1)
    assert store.entry(second).state == "augmented"
    assert store.entry(first).latents == 0


def test_an_error_in_the_thread_is_that_cache_s_alone(
    open_store, read, begin, told, llama, trained
):
    store = open_store()
    first, second = store.put(read(0, 5)), store.put(read(0, 6))

    class Lock:
        """Fails once, as a device without memory would."""

        used = 0

        def __enter__(self):
            self.used += 1
            if self.used == 1:
                raise MemoryError("no memory")

        def __exit__(self, *details):
            pass

    thinker = begin(store, ThreadWorker(llama, trained, lock=Lock(), limit=PATIENCE))
    for cache_id in (first, second):
        thinker.ask(cache_id, told.put)
    take(told, 2)
    assert store.entry(first).reason == "no memory"
    assert store.entry(second).state == "augmented"
