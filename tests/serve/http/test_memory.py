"""What an answer was made from is let go of at once, and its memory goes back to the system.

A process that has loaded torch holds so many objects that a full collection comes after thousands
of answers: whatever is in a reference cycle with a cache would fill the memory until then.
"""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from deliberate.core.cache import Cache
from deliberate.serve import run
from deliberate.serve.freed import give_back
from deliberate.serve.vllm_engine import VllmEngine

TIMES = 3


@pytest.fixture
def without_collections() -> Iterator[None]:
    """Python collects no cycles until the test ends."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> int:
    """How many caches there are in this process."""
    return sum(type(each) is Cache for each in gc.get_objects())


def plain(server, at):
    server.complete(f"plain {at}", deliberate="never")


def waited_for(server, at):
    assert server.complete(f"waited {at}", deliberate="wait")["deliberate"]["latents"] == "used"


def several_waited_for(server, at):
    server.complete([f"one of {at}", f"two of {at}"], deliberate="wait")


def one_of_several_refused(server, at):
    body = {"prompt": [f"refused {at}", "x" * 10_000], "deliberate": "wait"}
    assert server.post("/v1/completions", **body).status_code == 400


def thought_over_meanwhile(server, at):
    server.complete(f"meanwhile {at}", deliberate="auto")


def streamed(server, at):
    body = {"prompt": f"streamed {at}", "max_tokens": 4, "stream": True}
    assert "[DONE]" in server.post("/v1/completions", **body).text


def after_a_kept_cache(server, at):
    kept = server.post("/v1/caches", text=f"kept {at}", deliberate="wait").json()
    assert kept["state"] == "augmented"
    server.complete("after it", cache=kept["id"])


def left(server, at):
    body = {"prompt": f"left {at}", "max_tokens": 100, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())


def compared(server, at):
    body = {"prompt": f"compared {at}", "answer": "an answer", "deliberate": "wait"}
    assert server.post("/v1/compare", **body).status_code == 200


ALL = [
    plain,
    waited_for,
    several_waited_for,
    one_of_several_refused,
    thought_over_meanwhile,
    streamed,
    after_a_kept_cache,
    left,
    compared,
]


@pytest.mark.parametrize("ask", ALL, ids=lambda ask: ask.__name__)
def test_no_cache_outlives_its_answer(ask, start, eventually, without_collections):
    server = start(memory_bytes=0)
    before = held()
    for at in range(TIMES):
        ask(server, at)
    eventually(lambda: held() <= before)


@pytest.mark.parametrize("stream", [False, True])
def test_no_cache_outlives_an_answer_that_failed(
    stream, start, monkeypatch, eventually, without_collections
):
    server = start(memory_bytes=0)

    def fail(*_):
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(server.service.engine._rows, "step", fail)
    before = held()
    for at in range(TIMES):
        body = {"prompt": f"failed {at}", "stream": stream, "deliberate": "never"}
        assert server.post("/v1/completions", **body).status_code == 500
    eventually(lambda: held() <= before)


def test_no_cache_outlives_an_answer_decoded_elsewhere(
    served_base, start, vllm, eventually, without_collections
):
    server = start(memory_bytes=0)
    elsewhere = VllmEngine(served_base, url=vllm(served_base).url, model="served")
    server.service.engine.close(0.0)
    server.service.engine = elsewhere
    before = held()
    for at in range(TIMES):
        plain(server, at)
    eventually(lambda: held() <= before)


def resident() -> int:
    """Bytes that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's alone")
def test_what_is_freed_between_pieces_that_live_on_goes_back_to_the_system():
    pieces = [bytes(2000) for _ in range(50_000)]
    alive = pieces[::100]
    del pieces
    before = resident()
    give_back()
    assert resident() < before - 50_000_000
    assert len(alive) == 500


def test_a_server_gives_memory_back_again_and_again(start, eventually, monkeypatch):
    given = []
    monkeypatch.setattr(run, "GIVE_BACK_TICKS", 1)
    monkeypatch.setattr(run, "give_back", lambda: given.append(1))
    start()
    eventually(lambda: len(given) > 2)
