"""The coprocessor in a thread: on the base's own weights, under their lock."""

import queue
import threading

import pytest

from deliberate.core.checkpoint import Trained
from deliberate.serve.worker_thread import ThreadWorker

PATIENCE = 60.0
"""Seconds until a test gives up on something that should come at once."""


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
    told.take(1)
    assert same(store.get(cache_id), think(read(0, 5)))


def test_a_thread_without_room_for_latents_says_so(open_store, read, begin, told, llama, make):
    store = open_store()
    cache_id = store.put(read(*range(62), 0))
    trained = Trained(coprocessor=make(llama, "paper"), id="tiny", fingerprint="c0ffee")
    thinker = begin(store, ThreadWorker(llama, trained, lock=threading.Lock(), limit=PATIENCE))
    thinker.ask(cache_id, told.put)
    told.take(1)
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
        told.take(1)
        assert store.entry(first).state == "failed"
        assert "within 0.3 s" in store.entry(first).reason
    thinker.ask(second, told.put)
    worker._limit = PATIENCE
    told.take(1)
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
    told.take(2)
    assert store.entry(first).reason == "no memory"
    assert store.entry(second).state == "augmented"
