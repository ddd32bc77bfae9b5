"""The coprocessor in a process of its own: killed, hanging or unable to begin, it harms nothing."""

import dataclasses
import os
import queue
import signal
import threading
import time
from multiprocessing import Pipe

import pytest
import torch

from deliberate.core import augment, load_base, load_coprocessor, prefill, save_coprocessor
from deliberate.serve.store import Store
from deliberate.serve.thinker import Thinker
from deliberate.serve.worker_main import Models, answer
from deliberate.serve.worker_process import ProcessWorker

PATIENCE = 300.0
"""Seconds until a test gives up: a process loads torch, which takes long on a busy machine."""


@pytest.fixture
def base(llama_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return load_base(str(llama_folder))


@pytest.fixture
def trained(base, make, tmp_path):
    save_coprocessor(make(base, "warm"), tmp_path / "coprocessor", base=base)
    return load_coprocessor(tmp_path / "coprocessor", base=base)


@pytest.fixture
def models(base, trained):
    return Models(
        base=base.id,
        revision="",
        base_fingerprint=base.fingerprint,
        coprocessor=trained.id,
        coprocessor_fingerprint=trained.fingerprint,
        dtype=torch.float32,
        threads=1,
    )


@pytest.fixture
def store(base, trained, folder):
    origin = dataclasses.replace(base.origin, coprocessor_fingerprint=trained.fingerprint)
    store = Store(folder, origin, dtype=torch.float32, disk_bytes=10**9, memory_bytes=10**9)
    yield store
    store.close()


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def nice_of(pid):
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.mark.slow
def test_it_writes_what_core_writes_and_survives_being_killed_and_hanging(
    store, base, trained, models, same
):
    texts = [torch.tensor([0, token]) for token in range(5, 9)]
    ids = [store.put(cache) for cache in prefill(base, texts)]
    plain = [store.get(cache_id) for cache_id in ids]
    told = queue.Queue()
    worker = ProcessWorker(models, limit=PATIENCE)
    thinker = Thinker(store, worker, restarts=1)
    try:
        thinker.ask(ids[0], told.put)
        assert told.get(timeout=PATIENCE) == ids[0]
        names = {"name": trained.id, "fingerprint": trained.fingerprint}
        [expected] = augment(base, trained.coprocessor, plain[:1], **names)
        assert same(store.get(ids[0]), expected)
        assert nice_of(worker.pid) == min(nice_of(os.getpid()) + 10, 19)

        killed = worker.pid
        os.kill(killed, signal.SIGSTOP)  # in the middle of its work, for as long as we like
        thinker.ask(ids[1], told.put)
        until(lambda: thinker.state == "busy")
        half = store.work_path(ids[1])
        os.kill(killed, signal.SIGKILL)
        assert told.get(timeout=PATIENCE) == ids[1]
        assert store.entry(ids[1]).state == "failed"
        assert store.entry(ids[1]).reason.endswith("was killed by SIGKILL")
        assert same(store.get(ids[1]), plain[1])
        assert not list(half.parent.iterdir())

        until(lambda: thinker.state == "ready")
        assert worker.pid != killed
        os.kill(worker.pid, signal.SIGSTOP)
        worker._limit = 0.3
        worker._start_limit = 0.1  # the next one will not be ready in time
        thinker.ask(ids[2], told.put)
        thinker.ask(ids[3], told.put)
        assert [told.get(timeout=PATIENCE) for _ in range(2)] == ids[2:]
        assert store.entry(ids[2]).reason == (
            "the coprocessor did not answer within 0.3 s and was killed"
        )
        assert thinker.state == "absent"
        assert store.entry(ids[3]).state == "plain"
        assert same(store.get(ids[2]), plain[2])
        assert not worker.alive
    finally:
        thinker.close()


@pytest.mark.slow
def test_one_that_is_killed_while_idle_is_reaped_and_started_again(store, models):
    worker = ProcessWorker(dataclasses.replace(models, nice=0), limit=PATIENCE)
    thinker = Thinker(store, worker)
    try:
        until(lambda: thinker.state == "ready")
        killed = worker.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: thinker.counts.lost == 1 and thinker.state == "ready")
        assert worker.pid != killed
        with pytest.raises(ProcessLookupError):  # it would be there still as a zombie
            os.kill(killed, 0)
    finally:
        thinker.close()


def conversation(models):
    """Let `answer` run in a thread of this process, and talk to it."""
    ours, theirs = Pipe()
    thread = threading.Thread(target=answer, args=(theirs, models))
    thread.start()
    return ours, thread


def test_it_answers_for_each_file_alone_and_ends_when_nobody_asks_any_more(
    store, base, models, tmp_path
):
    [cache_id] = [store.put(cache) for cache in prefill(base, [torch.tensor([0, 5])])]
    source, target = store.path(cache_id), store.work_path(cache_id)
    damaged = tmp_path / "damaged.st"
    damaged.write_bytes(source.read_bytes()[:-1] + b"x")
    connection, thread = conversation(models)
    assert connection.recv() == ""
    failures = {
        tmp_path / "missing.st": "No such file",
        damaged: "does not match its checksum",
        tmp_path: "Is a directory",
    }
    for wrong, reason in failures.items():
        connection.send((str(wrong), str(target)))
        assert reason in connection.recv()
    connection.send((str(source), str(tmp_path / "nowhere" / "a.st")))
    assert "No such file" in connection.recv()
    connection.send((str(source), str(target)))
    assert connection.recv() == ""
    store.adopt(cache_id, target)
    assert store.entry(cache_id).state == "augmented"
    connection.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base": "/nowhere/base"}, "/nowhere/base"),
        ({"coprocessor": "/nowhere/coprocessor"}, "/nowhere/coprocessor"),
        ({"base_fingerprint": "other"}, "start the server again"),
        ({"coprocessor_fingerprint": "other"}, "start the server again"),
        ({"device": "cuda:77"}, ""),
    ],
)
def test_models_that_cannot_be_loaded_are_said_to_be(models, change, reason):
    connection, thread = conversation(dataclasses.replace(models, **change))
    assert connection.poll(PATIENCE)
    said = connection.recv()
    assert said
    assert reason in said
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_damaged_file_is_not_taken_over_and_the_plain_one_stays(store, base, trained, same):
    from deliberate.core import save
    from deliberate.core.errors import CacheError

    [cache] = prefill(base, [torch.tensor([0, 5])])
    cache_id = store.put(cache)
    names = {"name": trained.id, "fingerprint": trained.fingerprint}
    [thought] = augment(base, trained.coprocessor, [cache], **names)
    path = store.work_path(cache_id)
    save(thought, path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CacheError, match="checksum"):
        store.adopt(cache_id, path)
    assert not path.exists()
    assert same(store.get(cache_id), cache)
    assert store.entry(cache_id).state == "plain"
