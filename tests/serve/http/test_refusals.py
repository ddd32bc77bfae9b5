"""Every refusal is OpenAI's error object with one sentence, and changes nothing."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import Future

import openai
import pytest

from deliberate.serve.limits import Admission
from deliberate.serve.refusals import ApiError

JSON = {"content-type": "application/json"}
COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
TURN = [{"role": "user", "content": "x"}]

UNSUPPORTED = {
    "suffix": "after",
    "echo": True,
    "best_of": 2,
    "presence_penalty": 0.5,
    "frequency_penalty": 1,
    "logit_bias": {"5": 1},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "functions": [{}],
    "top_k": 5,
    "min_p": 0.1,
}
WRONG = {
    "temperature": (-0.1, 2.5, "hot", True),
    "top_p": (0, 1.1),
    "max_tokens": (0, -1, 1.5, "5"),
    "n": (0, 1.5, "x"),
    "stop": (["a", "b", "c", "d", "e"], 5, [1], "", [""]),
    "seed": (1.5, 2**63, "x"),
    "logprobs": (-1, 21),
    "stream": ("yes",),
    "deliberate": ("maybe", 1),
    "cache": (5,),
    "prompt": (5, {"a": 1}, [1.5], [[1, "a"]], [], [None]),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_would_change_the_answer_and_is_not_done_here_is_refused_by_name(server, name):
    body = {"prompt": "x", "messages": TURN, name: UNSUPPORTED[name]}
    for path in (COMPLETIONS, CHAT):
        error = server.refused(path, 400, **body)
        assert error["param"] == name
        assert error["code"] == "unsupported_parameter"
        assert repr(name) in error["message"]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_a_wrong_value_is_refused_by_name_and_value(server, name, value):
    error = server.refused(COMPLETIONS, 400, **{"prompt": "x", name: value})
    assert error["type"] == "invalid_request_error"
    assert error["param"] == name


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object, got list"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 12"),
        (b'{"prompt": "x", "temperature": NaN}', "NaN"),
        (b'{"prompt": "x", "temperature": -Infinity}', "-Infinity"),
        (b'{"prompt": "x", "temperature": 1e999}', "1e999, which is too large"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "a number too long"),
        (b'{"prompt": ' + b"[" * 100_000 + b"}", "nested too deep"),
        (b'{"prompt": "\\ud800"}', "not Unicode"),
        (b'{"prompt": ""}', "empty"),
        (b'{"prompt": [67]}', "67 is no token of this model"),
        (b'{"prompt": [-1]}', "-1 is no token of this model"),
        (b"{}", "'prompt' is missing"),
        (b'{"prompt": null}', "'prompt' is missing"),
    ],
)
def test_what_is_no_request_is_refused(server, refusal_of, body, what):
    error = refusal_of(server.http.post(COMPLETIONS, content=body, headers=JSON), 400)
    assert what in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": TURN, "top_logprobs": 2},
        {"messages": TURN, "logprobs": 5},
    ],
)
def test_a_conversation_that_is_none_is_refused(server, body):
    server.refused(CHAT, 400, **body)


def test_a_text_that_is_not_said_to_be_json_is_refused(server, refusal_of):
    response = server.http.post(COMPLETIONS, content=b'{"prompt": "x"}')
    assert "must be 'application/json'" in refusal_of(response, 415)["message"]


def test_a_prompt_too_long_is_refused_with_both_numbers(server):
    length = server.base.positions
    error = server.refused(COMPLETIONS, 400, prompt="x" * length)
    assert str(length) in error["message"]
    assert str(length - 1) in error["message"]
    assert error["code"] == "context_length_exceeded"


def test_a_prompt_of_ten_megabytes_is_refused_and_the_client_reads_why(server):
    with pytest.raises(openai.APIStatusError, match="the most that this server takes") as error:
        server.client.completions.create(model="tiny", prompt="x" * 10 * 2**20)
    assert error.value.status_code == 413
    assert server.complete("x")


def test_too_many_answers_are_refused(server):
    error = server.refused(COMPLETIONS, 400, prompt=["a", "b"], n=9)
    assert "18 answers" in error["message"]
    assert "at most 16" in error["message"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/../../etc/passwd", "/v1/caches/x/y"])
def test_nothing_is_found_at_other_addresses(server, refusal_of, path):
    response = server.http.post(path, json={})
    refusal_of(response, 405 if path == "/" else 404)


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "nothing", "%00", "a" * 300, "*"])
def test_a_cache_s_name_is_looked_up_and_never_a_path(server, refusal_of, name):
    for method in ("GET", "DELETE"):
        refusal_of(server.http.request(method, f"/v1/caches/{name}"), 404)
    error = server.refused(COMPLETIONS, 404, prompt="x", cache=name)
    assert error["param"] == "cache"


@pytest.fixture(scope="module")
def locked(served_base, tmp_path_factory, opened_server):
    """A server that asks for a key."""
    folder = tmp_path_factory.mktemp("locked") / "store"
    with opened_server(served_base, folder, api_key="secret") as found:
        yield found


class TestKey:
    @pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic secret", "secret", "Bearer"])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", COMPLETIONS),
            ("POST", CHAT),
            ("GET", "/v1/models"),
            ("GET", "/v1/caches"),
            ("GET", "/metrics"),
            ("GET", "/nothing"),
        ],
    )
    def test_without_the_key_nothing_is_told(self, locked, refusal_of, given, method, path):
        headers = {} if given is None else {"authorization": given}
        response = locked.http.request(method, path, headers=headers)
        assert refusal_of(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"

    def test_with_the_key_all_is_answered(self, locked):
        client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="secret", max_retries=0)
        with client:
            assert client.completions.create(model="tiny", prompt="x").choices

    @pytest.mark.parametrize("path", ["/", "/health", "/ready"])
    def test_some_addresses_are_open(self, locked, path):
        assert locked.http.get(path).status_code == 200


def test_other_sites_pages_may_not_ask(server):
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    preflight = server.http.options(COMPLETIONS, headers=headers)
    assert preflight.status_code == 405
    answered = server.http.get("/health", headers=headers)
    for response in (preflight, answered):
        assert not [name for name in response.headers if name.startswith("access-control")]


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

    def test_one_that_is_not_begun_in_time_has_no_answer(self, start):
        server = start(timeout_seconds=0.5)
        with server.service.engine.lock:  # nothing is read
            error = server.refused(COMPLETIONS, 504, prompt="x")
        assert "while its prompt was read" in error["message"]

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
        eventually(lambda: server.service.engine.running == 0)


def sent(server, path, **body):
    """A connection on which a request was sent; the client leaves with it."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    connection.sendall(
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )
    return connection


class TestGone:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (COMPLETIONS, {"prompt": "x"}),
            (COMPLETIONS, {"prompt": "x", "stream": True}),
            (CHAT, {"messages": TURN}),
            ("/v1/caches", {"text": "x"}),
            ("/v1/compare", {"prompt": "x", "answer": "y"}),
        ],
    )
    def test_the_prompt_of_a_client_that_left_is_read_no_further(
        self, start, eventually, monkeypatch, path, body
    ):
        server, reading = start(), Future()
        asked = threading.Event()
        monkeypatch.setattr(
            server.service.engine, "reading", lambda *_: (asked.set(), reading)[1]
        )
        with sent(server, path, **body):
            assert asked.wait(30)
        eventually(reading.cancelled)
        eventually(lambda: server.service.admission.idle)

    @pytest.mark.parametrize("stream", [True, False])
    def test_the_work_for_a_client_that_left_is_stopped(self, start, eventually, stream):
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
