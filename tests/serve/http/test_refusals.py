"""Every refusal is OpenAI's error object with one sentence, and changes nothing."""

import socket
import threading

import openai
import pytest
from starlette.datastructures import Headers

from deliberate.serve.body import read_json
from deliberate.serve.limits import check_host
from deliberate.serve.refusals import ApiError
from deliberate.serve.settings import Settings
from deliberate.serve.wire import (
    CacheRequest,
    ChatRequest,
    CompareRequest,
    CompletionRequest,
    parse,
)

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
    ("kind", "body", "what"),
    [
        (
            CompletionRequest,
            {"prompt": "x", "stop": list("abcde")},
            "'stop' must be a text or at most 4, none of them empty, got ['a', 'b', 'c', 'd', 'e']",
        ),
        (
            CompletionRequest,
            {"prompt": "x", "stop": ""},
            "'stop' must be a text or at most 4, none of them empty, got ''",
        ),
        (
            CompletionRequest,
            {"prompt": 5},
            "'prompt' must be a text, a list of texts, a list of token ids, or a list of such "
            "lists, got 5",
        ),
        (
            CompareRequest,
            {"prompt": "x", "answer": []},
            "'answer' must be a text or a list of at least one token id, got []",
        ),
        (ChatRequest, {"messages": []}, "'messages' is an empty list: give at least one"),
    ],
)
def test_a_field_of_many_kinds_is_told_its_rule(kind, body, what):
    with pytest.raises(ApiError) as refused:
        parse(kind, body)
    assert str(refused.value) == what


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, {"prompt": [1] * 1000 + ["a"] * 1000}),
        (CompletionRequest, {"prompt": [["a"] * 1000] * 1000}),
        (CompletionRequest, {"prompt": "x", "stop": [1] * 1000}),
        (ChatRequest, {"messages": [{}] * 1000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 1000}]}),
        (CacheRequest, {"messages": [{}] * 1000}),
        (CompareRequest, {"prompt": ["a"] * 1000, "answer": "x"}),
        (CompareRequest, {"prompt": "x", "answer": ["a"] * 1000}),
    ],
)
def test_a_list_is_wrong_with_its_first_wrong_item(kind, body):
    with pytest.raises(ApiError) as refused:
        parse(kind, body)
    assert refused.value.__cause__.error_count() < 10  # and not one each, in gigabytes


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
    assert server.refused(CHAT, 400, **body)["param"] in {"messages", "top_logprobs", "logprobs"}


@pytest.mark.parametrize(
    ("name", "value"), [("tool_calls", [{"id": "1"}]), ("function_call", {"name": "f"})]
)
def test_what_a_message_would_lose_is_refused_by_name(server, name, value):
    message = {"role": "assistant", "content": "x"}
    for path in (CHAT, "/v1/caches"):
        error = server.refused(path, 400, messages=[*TURN, {**message, name: value}])
        assert error["message"] == f"{name!r} in 'messages' is not supported here: leave it out"
        assert (error["param"], error["code"]) == ("messages", "unsupported_parameter")
    unused = {**message, "tool_calls": None, "function_call": None}
    assert server.post(CHAT, messages=[*TURN, unused], max_tokens=1).status_code == 200


def test_a_message_without_its_role_is_told_so(server):
    error = server.refused(CHAT, 400, messages=[{"content": "x"}])
    assert error["message"] == "'role' is missing in 'messages'"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": ""}),
        (CHAT, {"messages": []}),
        ("/v1/caches", {}),
        ("/v1/compare", {"prompt": "x"}),
    ],
)
def test_no_body_is_taken_apart_where_the_streams_are_written(server, monkeypatch, path, body):
    threads = []

    def seen(content):
        threads.append(threading.current_thread().name)
        return read_json(content)

    monkeypatch.setattr("deliberate.serve.body.read_json", seen)
    server.refused(path, 400, **body)
    [name] = threads
    assert name.startswith("serve")


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


def test_too_many_answers_are_refused_before_a_prompt_is_looked_into(server, monkeypatch):
    monkeypatch.delattr("deliberate.serve.prompts.encode")
    error = server.refused(COMPLETIONS, 400, prompt=["a", "b"], n=9)
    assert error["message"].startswith("2 prompts with n=9 would have 18 answers")
    assert "at most 16" in error["message"]
    error = server.refused(COMPLETIONS, 400, prompt="a", n=10000)
    assert error["message"].startswith("1 prompt with n=10000 would have 10000 answers")
    assert "17 answers" in server.refused(COMPLETIONS, 400, prompt=[[1]] * 17)["message"]


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


OTHER_NAMES = ["evil.example", "evil.example:8000", "localhost.evil.example", "192.0.2.1", "", "["]


class TestHost:
    @pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/v1/caches"])
    @pytest.mark.parametrize("name", OTHER_NAMES)
    def test_another_name_is_refused_where_no_key_is_asked_for(
        self, server, refusal_of, path, name
    ):
        error = refusal_of(server.http.get(path, headers={"host": name}), 403)
        assert "ask it at localhost, or start it with --api-key" in error["message"]
        assert error["type"] == "permission_error"

    @pytest.mark.parametrize(
        "name", ["localhost", "LocalHost:1", "127.9.9.9:80", "[::1]", "[::1]:9"]
    )
    def test_this_machine_s_own_names_are_taken(self, server, name):
        assert server.http.get("/health", headers={"host": name}).status_code == 200

    def test_a_request_of_an_old_program_needs_no_name(self, server):
        address = server.server.servers[0].sockets[0].getsockname()
        with socket.create_connection(address) as line:
            line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert line.makefile("rb").readline().split()[1] == b"200"

    def test_with_a_key_any_name_will_do(self, locked):
        assert locked.http.get("/health", headers={"host": "a.example"}).status_code == 200

    def test_at_another_address_any_name_will_do(self):
        check_host(Headers({"host": "a.example"}), Settings(host="0.0.0.0"))


def test_other_sites_pages_may_not_ask(server):
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    preflight = server.http.options(COMPLETIONS, headers=headers)
    assert preflight.status_code == 405
    answered = server.http.get("/health", headers=headers)
    for response in (preflight, answered):
        assert not [name for name in response.headers if name.startswith("access-control")]
