"""What those who run the server see: health, metrics, logs, and its end."""

import io
import json
import logging
import re
import threading

import pytest

from deliberate.serve.logs import JsonLines

PROMPT = "secret words that no log may hold"


def numbers(server):
    page = server.http.get("/metrics").text
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_it_is_alive_and_ready(server):
    assert server.http.get("/health").json() == {"status": "alive"}
    ready = server.http.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["ready"]
    assert ready.json()["thinker"] in {"ready", "busy"}


def test_it_is_not_ready_once_it_stops(start):
    server = start()
    server.service.admission.closing = True
    response = server.http.get("/ready")
    assert response.status_code == 503
    assert not response.json()["accepting"]


def test_the_metrics_count_requests_tokens_times_caches_and_latents(start):
    server = start()
    decoded = [
        server.complete(PROMPT, deliberate=mode)["usage"]["completion_tokens"]
        for mode in ("wait", "wait", "never")
    ]
    server.refused("/v1/completions", 400)
    server.http.get("/what/ever/path")
    found = numbers(server)
    route = 'route="/v1/completions"'
    assert found[f'deliberate_requests_total{{{route},status="200"}}'] == 3
    assert found[f'deliberate_requests_total{{{route},status="400"}}'] == 1
    assert found['deliberate_requests_total{route="other",status="404"}'] == 1
    assert found["deliberate_prompt_tokens_total"] == 3 * len(PROMPT)
    assert found["deliberate_cached_tokens_total"] == 2 * len(PROMPT)
    assert found["deliberate_generated_tokens_total"] == sum(decoded)
    assert found["deliberate_time_to_first_token_seconds_count"] == 3
    assert found["deliberate_time_between_tokens_seconds_count"] == sum(decoded) - 3
    assert found['deliberate_latents_total{outcome="used"}'] == 2
    assert found['deliberate_latents_total{outcome="never"}'] == 1
    assert found['deliberate_latents_total{outcome="failed"}'] == 0
    assert found['deliberate_cache_lookups_total{tier="miss"}'] == 1
    assert found['deliberate_cache_lookups_total{tier="memory"}'] == 2
    assert found["deliberate_requests_running"] == 0
    assert found["deliberate_requests_waiting"] == 0
    assert found["deliberate_caches"] == found["deliberate_caches_augmented"] == 1
    states = {name: n for name, n in found.items() if name.startswith("deliberate_thinker{")}
    assert sum(states.values()) == 1


def test_a_prometheus_reader_reads_the_metrics(server):
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(server.http.get("/metrics").text))
    assert {family.name for family in families} >= {"deliberate_requests", "deliberate_latents"}
    assert all(family.documentation for family in families)


class TestLogs:
    @pytest.fixture
    def lines(self):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        logger = logging.getLogger("deliberate.serve")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
        logger.removeHandler(handler)
        logger.setLevel(level)

    def test_each_request_is_a_line_without_what_was_said(self, server, lines):
        body = {"prompt": PROMPT, "max_tokens": 4, "deliberate": "wait", "temperature": 0}
        headers = {"x-request-id": "mine-1", "authorization": "Bearer secret-key"}
        response = server.http.post("/v1/completions", json=body, headers=headers)
        assert response.headers["x-request-id"] == "mine-1"
        [line] = [line for line in lines() if line.get("request_id") == "mine-1"]
        assert line["event"] == "request"
        assert line["status"] == 200
        assert line["route"] == "/v1/completions"
        assert line["prompt_tokens"] == len(PROMPT)
        assert line["generated_tokens"] == 4
        assert line["latents"] == "used"
        assert line["seconds"] > 0
        said = json.dumps(lines())
        for secret in (PROMPT, response.json()["choices"][0]["text"], "secret-key"):
            assert secret not in said

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'a"}', "%0a"])
    def test_an_id_that_could_harm_a_log_is_replaced(self, server, given):
        response = server.http.get("/health", headers={"x-request-id": given})
        assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])

    def test_a_fault_of_ours_is_logged_and_told_without_its_details(
        self, start, lines, monkeypatch
    ):
        server = start()

        def broken(*_, **__):
            raise RuntimeError("internal detail")

        monkeypatch.setattr(server.service.engine, "reading", broken)
        error = server.refused("/v1/completions", 500, prompt="x")
        assert "internal detail" not in json.dumps(error)
        assert any("internal detail" in line.get("traceback", "") for line in lines())
        monkeypatch.undo()
        assert server.complete("x")


class TestTheEnd:
    def test_what_runs_is_finished_and_what_comes_is_refused(self, start, eventually, refusal_of):
        server = start()
        server.worker.hold()
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(server.complete(PROMPT, deliberate="wait"))
        )
        thread.start()
        eventually(lambda: server.service.admission.running and server.worker.asked)
        server.server.stop("test")
        eventually(lambda: server.service.admission.closing)
        response = server.post("/v1/completions", prompt="too late")
        assert refusal_of(response, 503)["code"] == "stopping"
        assert response.headers["retry-after"]
        server.worker.go()
        thread.join()
        assert answers[0]["deliberate"]["latents"] == "used"
        server.thread.join(30)
        assert not server.thread.is_alive()

    def test_what_is_not_finished_in_time_is_told_so(self, start, eventually, refusal_of):
        server = start(drain_seconds=0.3)
        server.worker.hold()
        responses = []
        thread = threading.Thread(
            target=lambda: responses.append(
                server.post("/v1/completions", prompt=PROMPT, deliberate="wait")
            )
        )
        thread.start()
        eventually(lambda: server.service.admission.running and server.worker.asked)
        server.server.stop("test")
        eventually(lambda: server.service.admission.closing)
        server.thread.join(30)
        assert not server.thread.is_alive()
        server.worker.go()
        thread.join()
