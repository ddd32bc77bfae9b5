"""Every mode with every state of the coprocessor, by the clauses of the paper's sentence.

"... can operate offline and asynchronously, and the language model can function normally if the
coprocessor is unavailable or if a given cache is deemed not to require extra computation."
"""

import dataclasses
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from deliberate.core import Sampling, augment, extend, generate, prefill, save, tokenize
from deliberate.serve import run

PROMPT = "some words of a prompt"
GREEDY = Sampling(max_tokens=8)


def alone(base, prompt, **sampling):
    """The base's own answer, without any server."""
    plain = prefill(base, [tokenize(base, prompt)])
    [done] = generate(base, plain, dataclasses.replace(GREEDY, **sampling))
    return done


def thought(base, coprocessor, prompt, after="", **sampling):
    """The answer from latents at the prompt's end, without any server."""
    [cache] = augment(base, coprocessor, prefill(base, [tokenize(base, prompt)]))
    if after:
        cache = extend(base, cache, tokenize(base, after, further=True))
    [done] = generate(base, [cache], dataclasses.replace(GREEDY, **sampling))
    return done.text


def states(server):
    return [entry.state for entry in server.service.store.entries()]


def wait_until(true, seconds=20):
    """Wait for what happens in another thread."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def text_of(body):
    return body["choices"][0]["text"]


def outcome_of(body):
    [choice] = body["choices"]
    assert choice["deliberate"] == body["deliberate"]
    return body["deliberate"]


class TestOffline:
    def test_work_done_by_another_program_is_found_by_the_prompt(
        self, start, served_base, make, store_folder
    ):
        coprocessor = make(served_base, "warm")
        plain = prefill(served_base, [tokenize(served_base, PROMPT)])
        [done] = augment(
            served_base, coprocessor, plain, name="tiny", fingerprint="feedfeedfeedfeed"
        )
        store_folder.mkdir()
        save(done, store_folder / "made-elsewhere.st")
        server = start(thinker=False)  # the coprocessor itself is nowhere
        body = server.complete(PROMPT)
        assert outcome_of(body)["latents"] == "used"
        assert text_of(body) == thought(served_base, coprocessor, PROMPT)
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == len(PROMPT)

    def test_a_file_that_comes_while_the_server_runs_is_taken_up(
        self, start, served_base, make, store_folder, monkeypatch
    ):
        monkeypatch.setattr("deliberate.serve.run.REFRESH_TICKS", 1)
        server = start(thinker=False)
        save(prefill(served_base, [tokenize(served_base, PROMPT)])[0], store_folder / "late.st")
        wait_until(lambda: states(server) == ["plain"])
        assert server.complete(PROMPT)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


class TestAsynchronously:
    def test_an_answer_begins_at_once_while_the_coprocessor_works(self, start):
        server = start()
        server.worker.hold()
        body = server.complete(PROMPT)
        assert outcome_of(body)["latents"] == "not_ready"
        assert text_of(body) == alone(server.base, PROMPT).text
        wait_until(lambda: server.worker.asked)
        server.worker.go()  # too late for that answer, and in time for the next
        wait_until(lambda: states(server) == ["augmented"])
        assert outcome_of(server.complete(PROMPT))["latents"] == "used"

    def test_what_waits_for_latents_after_its_answer_is_held_by_the_store_alone(
        self, start, monkeypatch
    ):
        server, held = start(memory_bytes=0), []
        put = server.service.store.put

        def noted(cache):
            held.append(weakref.ref(cache))
            return put(cache)

        monkeypatch.setattr(server.service.store, "put", noted)
        server.worker.hold()
        assert outcome_of(server.complete(PROMPT))["latents"] == "not_ready"
        wait_until(lambda: server.worker.asked)
        wait_until(lambda: gc.collect() >= 0 and held[0]() is None)

    def test_latents_that_come_mid_answer_are_taken_up_there(self, start):
        server = start()
        server.worker.hold()
        server.worker.lock = nullcontext()  # the engine's own is held below
        events = server.client.completions.create(
            model="tiny",
            prompt=PROMPT,
            max_tokens=60,
            temperature=0,
            stream=True,
            extra_body={"return_token_ids": True},
        )
        tokens, outcome = [], None
        for event in events:
            if not tokens:
                wait_until(lambda: server.worker.asked)
                with server.service.engine.lock:  # decoding stands still
                    server.worker.go()
                    wait_until(lambda: states(server) == ["augmented"])
                    time.sleep(0.3)
            tokens += event.choices[0].model_extra["token_ids"]
            outcome = event.model_extra.get("deliberate", outcome)
        assert outcome["latents"] == "late"
        after = outcome["late_after"]
        assert 0 < after < 60
        assert tokens[:after] == alone(server.base, PROMPT, max_tokens=60).token_ids[:after]
        assert tokens != alone(server.base, PROMPT, max_tokens=60).token_ids


class TestUnavailable:
    @pytest.mark.parametrize("mode", ["auto", "wait", "never"])
    def test_without_a_coprocessor_the_answer_is_the_base_s_own(self, start, mode):
        server = start(thinker=False)
        body = server.complete(PROMPT, deliberate=mode)
        assert text_of(body) == alone(server.base, PROMPT).text
        assert outcome_of(body)["latents"] == ("never" if mode == "never" else "absent")

    def test_a_coprocessor_that_fails_changes_no_answer(self, start):
        server = start()
        server.worker.fails = "it broke"
        body = server.complete(PROMPT, deliberate="wait")
        assert text_of(body) == alone(server.base, PROMPT).text
        assert outcome_of(body)["latents"] == "failed"
        assert outcome_of(body)["reason"] == "it broke"
        assert outcome_of(server.complete(PROMPT))["latents"] == "failed"

    def test_the_log_probabilities_are_the_base_s_own_too(self, start):
        server = start(thinker=False)
        told = [
            server.complete(PROMPT, deliberate=mode, logprobs=3)["choices"][0]["logprobs"]
            for mode in ("never", "auto", "wait")
        ]
        assert told[0] == told[1] == told[2]

    def test_who_waits_for_latents_waits_only_so_long(self, start):
        server = start(wait_seconds=0.2)
        server.worker.hold()
        body = server.complete(PROMPT, deliberate="wait")
        assert outcome_of(body)["latents"] == "not_ready"
        assert outcome_of(body)["waited_seconds"] >= 0.19  # a timer may go off a little early
        assert text_of(body) == alone(server.base, PROMPT).text

    def test_who_waits_while_the_coprocessor_starts_is_told_so_and_has_latents_later(
        self, start, monkeypatch, worker_class
    ):
        loaded = threading.Event()
        monkeypatch.setattr(worker_class, "alive", property(lambda _: loaded.is_set()))
        monkeypatch.setattr(worker_class, "start", lambda _: loaded.wait(30))
        server = start(wait_seconds=0.2)
        ready = server.http.get("/ready")
        assert (ready.status_code, ready.json()["thinker"]) == (200, "starting")
        body = server.complete(PROMPT, deliberate="wait")
        assert outcome_of(body)["latents"] == "not_ready"
        assert outcome_of(body)["reason"].endswith("within 0.2 s: the coprocessor is starting")
        assert text_of(body) == alone(server.base, PROMPT).text
        loaded.set()
        wait_until(lambda: states(server) == ["augmented"])
        assert outcome_of(server.complete(PROMPT))["latents"] == "used"

    @pytest.mark.parametrize("named", [False, True])
    def test_who_waits_for_latents_has_time_left_for_the_answer(self, start, named):
        server = start(timeout_seconds=6, wait_seconds=30)
        server.worker.hold()
        body = {"prompt": PROMPT, "deliberate": "wait"}
        if named:
            kept = server.post("/v1/caches", text=PROMPT).json()
            body |= {"prompt": "", "cache": kept["id"]}
        outcome = outcome_of(answer := server.complete(**body))
        assert (outcome["latents"], outcome["timed_out"]) == ("not_ready", False)
        assert 0 < outcome["waited_seconds"] < 4
        assert outcome["reason"].startswith("they did not come within ")
        assert text_of(answer) == alone(server.base, PROMPT).text

    def test_a_document_that_is_waited_for_is_told_of_before_its_time_is_over(self, start):
        server = start(timeout_seconds=6, wait_seconds=30)
        server.worker.hold()
        kept = server.post("/v1/caches", text=PROMPT, deliberate="wait")
        assert kept.status_code == 201
        assert kept.json()["deliberate"]["latents"] == "not_ready"
        assert kept.json()["state"] == "augmenting"
        compared = server.post("/v1/compare", prompt=PROMPT, answer="an answer")
        assert compared.status_code == 200
        assert compared.json()["deliberate"]["latents"] == "not_ready"


class TestCrowded:
    @pytest.fixture
    def crowded(self, start, monkeypatch):
        """A server whose coprocessor is at work, with one text in its queue, which holds one."""
        monkeypatch.setattr(run, "REFRESH_TICKS", 10**9)  # nor takes up what finds no room
        server = start(max_thoughts=1)
        server.worker.hold()
        for text, queued in (("at work", 0), ("waiting", 1)):
            server.complete(text)
            wait_until(lambda: server.worker.asked)
            wait_until(lambda queued=queued: server.service.thinker.counts.queued == queued)
        return server

    def test_a_text_too_many_costs_no_answer_and_stays_plain(self, crowded):
        body = crowded.complete(PROMPT)
        assert outcome_of(body)["latents"] == "not_ready"
        assert text_of(body) == alone(crowded.base, PROMPT).text
        wait_until(lambda: crowded.service.thinker.counts.crowded == 1)
        assert sorted(states(crowded)) == ["augmenting", "augmenting", "plain"]

    def test_a_document_too_many_is_kept_and_asked_for_again(self, crowded):
        response = crowded.post("/v1/caches", text=PROMPT)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "queue_full"
        assert "as may, 1: come again later" in response.json()["error"]["message"]
        crowded.worker.go()
        wait_until(lambda: states(crowded).count("augmented") == 2)
        again = crowded.post("/v1/caches", text=PROMPT, deliberate="wait")
        assert again.status_code == 200  # its text was read the first time
        assert again.json()["state"] == "augmented"

    def test_who_waits_for_latents_comes_before_what_nobody_waits_for(self, crowded):
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(crowded.complete, PROMPT, deliberate="wait")
            wait_until(lambda: crowded.service.thinker.counts.crowded == 1)
            crowded.worker.go()
            assert outcome_of(call.result())["latents"] == "used"
        assert len(crowded.worker.asked) == 2
        assert sorted(states(crowded)) == ["augmented", "augmented", "plain"]


class TestNoRoom:
    """Latents after the text take positions, of which the last tokens leave too few."""

    @pytest.mark.parametrize("mode", ["auto", "wait", "never"])
    @pytest.mark.parametrize("left", [1, 3, 4])
    def test_a_prompt_near_the_end_is_answered_with_latents_or_without(self, start, mode, left):
        server = start(preset="paper")
        prompt = "x" * (server.base.positions - left)
        for _ in range(2):  # the second time, what was thought over is there
            outcome = outcome_of(body := server.complete(prompt, deliberate=mode))
            if outcome["latents"] == "used":
                room = left - len(server.coprocessor.soft_tokens)
                expected = thought(server.base, server.coprocessor, prompt, max_tokens=room)
                assert text_of(body) == expected
            elif outcome["latents"] != "late":
                assert text_of(body) == alone(server.base, prompt, max_tokens=left).text
        if mode == "wait":
            assert outcome["latents"] == {1: "failed", 3: "skipped", 4: "used"}[left]
            assert left == 4 or "no room" in outcome["reason"]

    def test_a_question_after_a_cache_leaves_room_for_latents_or_not(self, start):
        server = start(preset="paper")
        document = "x" * (server.base.positions - 20)
        for question, latents in (("y" * 16, "used"), ("y" * 17, "skipped")):
            kept = server.post("/v1/caches", text=document, deliberate="never").json()
            body = server.complete(question, cache=kept["id"], deliberate="wait")
            assert outcome_of(body)["latents"] == latents
            server.http.delete(f"/v1/caches/{kept['id']}").raise_for_status()


class TestDeemedNotToRequire:
    def test_a_gate_that_no_cache_passes_asks_for_no_latents(self, start):
        server = start(gate=50.0)
        body = server.complete(PROMPT, deliberate="wait")
        outcome = outcome_of(body)
        assert outcome["latents"] == "skipped"
        assert 0 < outcome["entropy"] < 50
        assert text_of(body) == alone(server.base, PROMPT).text
        assert not server.worker.asked

    def test_the_gate_parts_caches_by_the_next_token_s_entropy(self, start, served_base):
        texts = [f"text number {number}" for number in range(6)]
        caches = prefill(served_base, [tokenize(served_base, text) for text in texts])
        entropies = []
        for cache in caches:
            chances = served_base.logits(cache.last_hidden).softmax(-1)
            entropies.append(float(-(chances * chances.log()).sum()))
        gate = sorted(entropies)[3]
        server = start(gate=gate)
        for text, entropy in zip(texts, entropies, strict=True):
            outcome = outcome_of(server.complete(text, deliberate="wait"))
            assert outcome["entropy"] == pytest.approx(entropy, abs=1e-5)
            assert outcome["latents"] == ("used" if entropy >= gate else "skipped")

    def test_what_never_wants_latents_gets_none_though_they_are_there(self, server):
        assert outcome_of(server.complete(PROMPT, deliberate="wait"))["latents"] == "used"
        body = server.complete(PROMPT, deliberate="never")
        assert outcome_of(body)["latents"] == "never"
        assert text_of(body) == alone(server.base, PROMPT).text


class TestReady:
    def test_who_waits_gets_the_answer_that_latents_make(self, server):
        body = server.complete(PROMPT, deliberate="wait")
        assert outcome_of(body)["latents"] == "used"
        assert text_of(body) == thought(server.base, server.coprocessor, PROMPT)
        assert text_of(body) != alone(server.base, PROMPT).text

    def test_a_question_after_a_stored_text_follows_its_latents(self, server):
        server.complete("a document. ", deliberate="wait")
        body = server.complete("a document. a question")
        assert outcome_of(body)["latents"] == "used"
        assert text_of(body) == thought(
            server.base, server.coprocessor, "a document. ", after="a question"
        )
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == len("a document. ")

    def test_several_answers_begin_from_one_reading(self, start):
        server = start()
        body = server.complete(PROMPT, deliberate="wait", n=3, temperature=1, seed=5)
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
        assert {choice["deliberate"]["latents"] for choice in body["choices"]} == {"used"}
        assert body["usage"]["prompt_tokens"] == len(PROMPT)
        assert len(server.worker.asked) == 1

    def test_several_prompts_wait_side_by_side(self, start):
        server = start(wait_seconds=30)
        server.worker.hold()
        prompts = ["one prompt", "another one", "one prompt"]
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(server.complete, prompts, deliberate="wait")
            wait_until(lambda: server.worker.asked)
            wait_until(lambda: server.service.thinker.counts.queued == 1)  # and one at work
            server.worker.go()
            body = call.result()
        assert [choice["text"] for choice in body["choices"]] == [
            thought(server.base, server.worker.coprocessor, prompt) for prompt in prompts
        ]
        assert {choice["deliberate"]["latents"] for choice in body["choices"]} == {"used"}
        assert len(server.worker.asked) == 2

    def test_a_prompt_that_is_refused_ends_the_waiting_of_the_others(self, start):
        server = start(wait_seconds=30)
        server.worker.hold()
        began = time.monotonic()
        body = {"prompt": [PROMPT, "x" * 10_000], "deliberate": "wait", "max_tokens": 4}
        assert server.post("/v1/completions", **body).status_code == 400
        assert time.monotonic() - began < 20
        server.worker.go()

    def test_one_text_is_thought_over_once_however_many_ask(self, start):
        server = start(max_concurrent=8)
        server.worker.hold()
        with ThreadPoolExecutor(6) as threads:
            calls = [threads.submit(server.complete, PROMPT, deliberate="wait") for _ in range(6)]
            wait_until(lambda: server.service.admission.running == 6 and server.worker.asked)
            server.worker.go()
            outcomes = [outcome_of(call.result())["latents"] for call in calls]
        assert outcomes == ["used"] * 6
        assert len(server.worker.asked) == 1


def test_the_gate_is_not_asked_where_there_is_none(server):
    assert outcome_of(server.complete(PROMPT))["entropy"] is None
