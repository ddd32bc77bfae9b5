"""Too much at once, too late, or for nobody: each request ends, and gives its turn back."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import Future

import openai
import pytest

from deliberate.serve import connection
from deliberate.serve.limits import Admission
from deliberate.serve.refusals import SOON, ApiError, ClientGone

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
TURN = [{"role": "user", "content": "x"}]
ASKED = [
    (COMPLETIONS, {"prompt": "x"}),
    (COMPLETIONS, {"prompt": "x", "stream": True}),
    (CHAT, {"messages": TURN}),
    ("/v1/caches", {"text": "x"}),
    ("/v1/compare", {"prompt": "x", "answer": "y"}),
]
"""What has a text read, of every kind."""


class TestLimits:
    def busy(self, server, count):
        """Requests that are answered when the worker goes."""
        server.worker.hold()
        threads = [
            threading.Thread(
                target=server.complete, args=(f"busy {number}",), kwargs={"deliberate": "wait"}
            )
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    def test_more_than_the_queue_holds_is_told_to_come_again(self, start, eventually):
        server = start(max_concurrent=1, max_queue=1)
        threads = self.busy(server, 2)
        eventually(lambda: server.service.admission.waiting == 1)
        response = server.post(COMPLETIONS, prompt="one more")
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            server.client.completions.create(model="tiny", prompt="and another")
        server.worker.go()
        for thread in threads:
            thread.join()
        assert server.complete("later")

    def test_who_comes_again_when_told_to_finds_the_connection_open(self, server):
        with socket.create_connection(server.server.servers[0].sockets[0].getsockname()) as line:
            reader = line.makefile("rb")
            for wait in (0, SOON + 1):
                time.sleep(wait)
                line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
                length = 0
                while header := reader.readline().strip().lower():
                    name, _, value = header.partition(b": ")
                    length = int(value) if name == b"content-length" else length
                reader.read(length)

    def test_one_whose_turn_does_not_come_in_time_is_told_so(self):
        async def both() -> None:
            admission, now = Admission(1, 5), asyncio.get_running_loop().time
            async with admission.admitted(now() + 60):
                with pytest.raises(ApiError, match="before its turn came") as refused:
                    async with admission.admitted(now() + 0.01):
                        pass
            assert refused.value.status == 504
            assert admission.idle
            async with admission.admitted(now() + 60):
                assert admission.running == 1

        asyncio.run(both())

    @pytest.mark.parametrize(("path", "body"), ASKED)
    def test_one_that_is_not_begun_in_time_has_no_answer(self, start, path, body):
        server = start(timeout_seconds=0.5)
        with server.service.engine.lock:  # nothing is read
            error = server.refused(path, 504, **body)
        assert "the time of this request was over while its" in error["message"]
        assert error["type"] == "timeout_error"

    def test_no_text_is_looked_into_before_its_turn(self, start, eventually, monkeypatch):
        server = start(max_concurrent=1, max_queue=1)
        threads = self.busy(server, 2)
        eventually(lambda: server.service.admission.waiting == 1)
        looked = []
        monkeypatch.setattr("deliberate.serve.prompts.encode", lambda *_, **__: looked.append(1))
        for path, body in ASKED:
            assert server.post(path, **body).status_code == 429
        assert not looked
        monkeypatch.undo()
        server.worker.go()
        for thread in threads:
            thread.join()

    def test_one_that_takes_too_long_ends_where_it_is(self, start, eventually):
        server = start(timeout_seconds=2.0)
        events = server.client.completions.create(
            model="tiny", prompt="x", max_tokens=250, stream=True,
            extra_body={"deliberate": "never"}, seed=1, logprobs=0,
        )  # fmt: skip
        first = next(events)
        assert first.choices
        with server.service.engine.lock:
            *_, last = events
        assert last.choices[0].finish_reason == "length"
        assert last.model_extra["deliberate"]["timed_out"]
        assert 'deliberate_latents_total{outcome="never"} 1.0' in server.http.get("/metrics").text
        eventually(lambda: server.service.engine.running == 0)


def sent(server, path, **body):
    """A connection on which a request was sent; the client leaves with it."""
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    client.sendall(
        b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )
    return client


class TestGone:
    @pytest.mark.parametrize(("path", "body"), ASKED)
    def test_the_prompt_of_a_client_that_left_is_read_no_further(
        self, start, eventually, monkeypatch, path, body
    ):
        server, reading = start(), Future()
        asked = threading.Event()
        monkeypatch.setattr(server.service.engine, "reading", lambda *_: (asked.set(), reading)[1])
        with sent(server, path, **body):
            assert asked.wait(30)
        eventually(reading.cancelled)
        eventually(lambda: server.service.admission.idle)

    @pytest.mark.parametrize("stream", [True, False])
    def test_the_work_for_a_client_that_left_is_stopped(
        self, start, eventually, stream, monkeypatch
    ):
        # No seed is given: an answer might end by itself at its first token.
        monkeypatch.setattr("deliberate.serve.row.end_tokens", lambda _: frozenset())
        server = start()
        slow = SlowLock(server.service.engine)
        body = {"prompt": "x", "max_tokens": 250, "stream": stream, "deliberate": "never"}
        with sent(server, COMPLETIONS, **body):
            eventually(lambda: server.service.engine.decoded > 2)
        eventually(lambda: server.service.engine.running == 0)
        assert server.service.engine.decoded < 200
        eventually(lambda: server.service.admission.running == 0)
        slow.undo()
        assert server.complete("next")


class TestSlow:
    def test_a_body_that_does_not_come_is_not_waited_for_for_ever(self, start):
        server = start(timeout_seconds=0.3)
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            )
            client.settimeout(30)
            said = client.recv(4096)
        assert said.startswith(b"HTTP/1.1 408")
        assert b"did not come within 0.3 s" in said

    def test_a_client_that_does_not_read_does_not_hold_its_turn(self, monkeypatch):
        monkeypatch.setattr(connection, "_LAST_WORDS", 0.2)
        sent, ended = [], []

        async def events():
            try:
                while True:
                    yield {}
            finally:
                ended.append("events")

        async def never() -> None:
            await asyncio.Event().wait()

        async def send(message) -> None:
            sent.append(message)
            if len(sent) == 4:
                await never()

        async def read() -> None:
            now = asyncio.get_running_loop().time()
            stream = connection.EventStream(events(), {}, deadline=now)
            with pytest.raises(ClientGone):
                await stream({"type": "http"}, never, send)

        asyncio.run(asyncio.wait_for(read(), 30))
        assert len(sent) == 4
        assert ended == ["events"]


class SlowLock:
    """Makes each of an engine's steps take a while."""

    def __init__(self, engine):
        self.engine, self.real = engine, engine._rows.step
        engine._rows.step = self.step

    def step(self):
        time.sleep(0.02)
        self.real()

    def undo(self):
        self.engine._rows.step = self.real
