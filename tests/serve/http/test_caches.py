"""Texts that are thought over before anyone asks about them."""

import errno
import os
import re
import time

import pytest
import torch

from deliberate.core import Sampling, augment, extend, generate, load_base, prefill, save, tokenize
from deliberate.serve import run
from deliberate.serve.compare import texts

DOCUMENT = "a document to be asked about. "
ADDRESS = "/v1/caches"


def kept(server, **body):
    response = server.post(ADDRESS, **body)
    assert response.status_code in {200, 201}, response.text
    return response.status_code, response.json()


def text_of(body):
    return body["choices"][0]["text"]


def after(server, document, question, *, latents):
    base = server.base
    cache = prefill(base, [tokenize(base, document)])[0]
    if latents:
        [cache] = augment(base, server.coprocessor, [cache])
    cache = extend(base, cache, tokenize(base, question, further=True))
    [done] = generate(base, [cache], Sampling(max_tokens=8))
    return done.text


def test_a_text_is_read_now_and_thought_over_in_the_background(start, eventually):
    server = start()
    server.worker.hold()
    status, found = kept(server, text=DOCUMENT)
    assert status == 201
    assert found["state"] == "augmenting"
    assert found["tokens"] == len(DOCUMENT)
    assert found["latents"] == 0
    assert found["bytes"] > 0
    address = f"{ADDRESS}/{found['id']}"
    assert server.http.get(address).json()["state"] == "augmenting"
    server.worker.go()
    eventually(lambda: server.http.get(address).json()["state"] == "augmented")
    assert server.http.get(address).json()["latents"] == 3
    status, again = kept(server, text=DOCUMENT)
    assert status == 200
    assert again["id"] == found["id"]
    assert again["deliberate"]["latents"] == "used"
    assert len(server.worker.asked) == 1
    assert [entry["id"] for entry in server.http.get(ADDRESS).json()["data"]] == [found["id"]]


def test_who_wants_to_may_wait_for_it(start):
    _, found = kept(start(), text=DOCUMENT, deliberate="wait")
    assert found["state"] == "augmented"
    assert found["deliberate"]["latents"] == "used"


def test_who_wants_no_latents_gets_none(start):
    server = start()
    _, found = kept(server, text=DOCUMENT, deliberate="never")
    assert found["state"] == "plain"
    assert not server.worker.asked


def test_one_that_failed_says_why_and_is_served_plain(start):
    server = start()
    server.worker.fails = "it broke"
    _, found = kept(server, text=DOCUMENT, deliberate="wait")
    assert (found["state"], found["reason"]) == ("failed", "it broke")
    body = server.complete("why", cache=found["id"], deliberate="wait")
    assert body["deliberate"]["latents"] == "failed"
    assert text_of(body) == after(server, DOCUMENT, "why", latents=False)
    server.worker.fails = ""
    assert kept(server, text=DOCUMENT, deliberate="wait")[1]["state"] == "failed"
    server.http.delete(f"{ADDRESS}/{found['id']}").raise_for_status()
    assert kept(server, text=DOCUMENT, deliberate="wait")[1]["state"] == "augmented"


def test_the_gate_is_asked_of_a_text_too(start):
    _, found = kept(start(gate=50.0), text=DOCUMENT, deliberate="wait")
    assert found["state"] == "plain"
    assert found["deliberate"]["latents"] == "skipped"


def test_a_question_follows_the_cache_that_it_names(start):
    server = start()
    _, found = kept(server, text=DOCUMENT, deliberate="wait")
    body = server.complete("why", cache=found["id"])
    assert body["deliberate"]["latents"] == "used"
    assert body["deliberate"]["cache"] == found["id"]
    assert text_of(body) == after(server, DOCUMENT, "why", latents=True)
    assert body["usage"]["prompt_tokens"] == len(DOCUMENT) + len("why")
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == len(DOCUMENT)
    plain = server.complete("why", cache=found["id"], deliberate="never")
    assert text_of(plain) == after(server, DOCUMENT, "why", latents=False)
    assert server.complete("", cache=found["id"])["usage"]["prompt_tokens"] == len(DOCUMENT)


def test_the_longest_of_several_beginnings_is_gone_on_from(start):
    server = start()
    for text in ("a document", DOCUMENT, "another"):
        kept(server, text=text, deliberate="wait")
    body = server.complete(f"{DOCUMENT}why")
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == len(DOCUMENT)
    assert text_of(body) == after(server, DOCUMENT, "why", latents=True)


def test_latents_that_are_not_ready_are_waited_for_by_who_names_the_cache(start, eventually):
    server = start()
    server.worker.hold()
    _, found = kept(server, text=DOCUMENT)
    body = server.complete("why", cache=found["id"])
    assert body["deliberate"]["latents"] == "not_ready"
    assert text_of(body) == after(server, DOCUMENT, "why", latents=False)
    server.worker.go()
    body = server.complete("why", cache=found["id"], deliberate="wait")
    assert body["deliberate"]["latents"] == "used"
    assert text_of(body) == after(server, DOCUMENT, "why", latents=True)


def test_a_conversation_goes_on_from_the_cache_of_its_beginning(start):
    server = start()
    system = {"role": "system", "content": "a long system prompt"}
    _, found = kept(server, messages=[system], deliberate="wait")
    turn = {"messages": [system, {"role": "user", "content": "hi"}], "max_tokens": 4}
    for named in ({}, {"cache": found["id"]}):
        body = server.post("/v1/chat/completions", **turn, **named).json()
        assert body["deliberate"]["latents"] == "used"
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == found["tokens"]
    other = {"messages": [{"role": "user", "content": "hi"}], "cache": found["id"]}
    error = server.refused("/v1/chat/completions", 400, **other)
    assert "is not how these messages begin" in error["message"]


def test_a_cache_that_is_deleted_is_gone(start):
    server = start()
    _, found = kept(server, text=DOCUMENT, deliberate="wait")
    address = f"{ADDRESS}/{found['id']}"
    assert server.http.delete(address).json() == {
        "id": found["id"],
        "object": "cache.deleted",
        "deleted": True,
    }
    assert server.http.get(address).status_code == 404
    server.refused("/v1/completions", 404, prompt="why", cache=found["id"])
    assert server.complete(DOCUMENT)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_cache_that_goes_between_two_looks_at_it_is_not_found(start, refusal_of, monkeypatch):
    server = start()
    _, found = kept(server, text=DOCUMENT, deliberate="never")
    store, thinker = server.service.store, server.service.thinker
    delete, ask = store.delete, thinker.ask

    def deleted_first(works):
        def called(name, *arguments, **settings):
            delete(name)
            return works(name, *arguments, **settings)

        return called

    monkeypatch.setattr(thinker, "ask", deleted_first(ask))
    error = server.refused(ADDRESS, 404, text="another text")
    assert error["code"] == "cache_not_found"
    monkeypatch.setattr(store, "delete", deleted_first(delete))
    error = refusal_of(server.http.delete(f"{ADDRESS}/{found['id']}"), 404)
    assert repr(found["id"]) in error["message"]
    assert error["code"] == "cache_not_found"


def test_a_cache_that_was_made_beforehand_is_not_deleted_and_its_file_is_named(
    start, store_folder, served_base, refusal_of
):
    store_folder.mkdir()
    [plain] = prefill(served_base, [torch.tensor([5, 6])])
    for name in ("mine.st", "copy.st"):
        save(plain, store_folder / name)
    server = start()
    [entry] = server.http.get(ADDRESS).json()["data"]
    error = refusal_of(server.http.delete(f"{ADDRESS}/{entry['id']}"), 409)
    assert "'mine.st'" in error["message"]
    assert "'copy.st'" in error["message"]
    assert str(store_folder) not in error["message"]
    assert (store_folder / "mine.st").exists()


def test_caches_are_there_again_after_a_restart(start, store_folder):
    first = start()
    _, found = kept(first, text=DOCUMENT, deliberate="wait")
    first.stop()
    second = start(thinker=False)
    body = second.complete("why", cache=found["id"])
    assert body["deliberate"]["latents"] == "used"
    assert text_of(body) == after(first, DOCUMENT, "why", latents=True)


def test_what_is_plain_at_the_start_is_thought_over_though_nobody_asks(
    start, store_folder, eventually
):
    first = start()
    first.worker.hold()
    posted = kept(first, text=DOCUMENT)[1]["id"]
    first.stop()
    [made] = prefill(first.base, [tokenize(first.base, "made beforehand")])
    save(made, store_folder / "beforehand.st")
    second = start()
    eventually(lambda: second.service.store.usage.augmented == 2)
    assert posted in second.worker.asked
    assert len(second.worker.asked) == 2
    assert (store_folder / "beforehand.st").exists()


def test_a_file_that_comes_is_thought_over_within_seconds(
    start, store_folder, eventually, monkeypatch
):
    monkeypatch.setattr(run, "REFRESH_TICKS", 1)
    server = start()
    [made] = prefill(server.base, [tokenize(server.base, "made beforehand")])
    save(made, store_folder / "beforehand.st")
    eventually(lambda: server.service.store.usage.augmented == 1)


@pytest.mark.parametrize(("gate", "mode"), [(50.0, "auto"), (0.0, "never")])
def test_what_was_gated_or_done_without_stays_plain(start, monkeypatch, eventually, gate, mode):
    monkeypatch.setattr(run, "REFRESH_TICKS", 1)
    server = start(gate=gate)
    _, found = kept(server, text=DOCUMENT, deliberate=mode)
    assert not server.service.store.undecided(10)
    for _ in range(2):
        eventually(lambda: server.service.thinker.state == "ready")
        time.sleep(0.2)  # two looks at the folder
    assert server.http.get(f"{ADDRESS}/{found['id']}").json()["state"] == "plain"
    assert not server.worker.asked


def test_the_gate_is_asked_of_what_is_plain_at_the_start(start, eventually):
    first = start()
    first.worker.hold()
    kept(first, text=DOCUMENT)
    first.stop()
    second = start(gate=50.0)
    eventually(lambda: not second.service.store.undecided(10))
    eventually(lambda: second.service.thinker.state == "ready")
    assert not second.worker.asked


def test_the_list_of_caches_comes_in_parts(start, refusal_of):
    server = start()
    ids = [kept(server, text=f"text {number}", deliberate="never")[1]["id"] for number in range(5)]
    kept(server, text="text 0", deliberate="wait")  # the last used

    def listed(**query):
        return server.http.get(ADDRESS, params=query).json()

    whole = listed()
    assert [entry["id"] for entry in whole["data"]] == [ids[0], *reversed(ids[1:])]
    assert (whole["total"], whole["augmented"], whole["has_more"]) == (5, 1, False)
    first = listed(limit=2)
    assert (first["data"], first["has_more"]) == (whole["data"][:2], True)
    rest = listed(limit=3, after=first["data"][-1]["id"])
    assert (rest["data"], rest["has_more"]) == (whole["data"][2:], False)
    gone = ids[1]
    server.http.delete(f"{ADDRESS}/{gone}").raise_for_status()
    error = refusal_of(server.http.get(ADDRESS, params={"after": gone}), 400)
    assert repr(gone) in error["message"]
    assert "begin again without 'after'" in error["message"]
    assert (error["param"], error["code"]) == ("after", "cache_not_found")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.5", "", "9" * 5000])
def test_a_list_of_no_such_length_is_refused(server, refusal_of, limit):
    error = refusal_of(server.http.get(ADDRESS, params={"limit": limit}), 400)
    assert "limit must be from 1 to 1000" in error["message"]
    assert error["param"] == "limit"


@pytest.mark.parametrize("fault", ["damaged", "deleted"])
def test_a_file_that_was_damaged_or_deleted_under_the_server_is_never_served(
    start, store_folder, fault
):
    server = start(memory_bytes=0)
    _, found = kept(server, text=DOCUMENT, deliberate="wait")
    for path in store_folder.rglob("*.st"):
        content = bytearray(path.read_bytes())
        content[-4] ^= 1
        if fault == "damaged":
            path.write_bytes(content)
        else:
            path.unlink()
    body = server.complete(DOCUMENT, deliberate="never")
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    server.refused("/v1/completions", 404, prompt="why", cache=found["id"])


def test_a_full_disk_costs_latents_and_no_answer(start):
    server = start(disk_bytes=1000)
    body = server.complete(DOCUMENT, deliberate="wait")
    assert body["deliberate"]["latents"] == "failed"
    assert "does not fit" in body["deliberate"]["reason"]
    [done] = generate(
        server.base,
        prefill(server.base, [tokenize(server.base, DOCUMENT)]),
        Sampling(max_tokens=8),
    )
    assert text_of(body) == done.text
    error = server.refused(ADDRESS, 507, text=DOCUMENT)
    assert re.fullmatch(
        "the cache cannot be stored: a cache of [0-9]{4,} bytes does not fit into the store's "
        r"1000 bytes: give it more \(--disk-budget\)",
        error["message"],
    )


def test_a_disk_that_is_full_is_told_by_the_system_s_words_without_a_path(
    start, store_folder, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store_folder))

    server = start()
    monkeypatch.setattr("deliberate.serve.store.save", full)
    error = server.refused(ADDRESS, 507, text=DOCUMENT)
    assert error["message"] == "the cache cannot be stored: No space left on device"


@pytest.mark.parametrize(
    ("body", "param", "what"),
    [
        ({}, "text", "give either 'text' or 'messages'"),
        ({"text": ""}, "text", "the text is empty"),
        ({"text": "x", "messages": [{"role": "user", "content": "x"}]}, "text", "give either"),
        ({"text": 5}, "text", "string"),
        ({"text": "x" * 300}, "text", "the text has 300 tokens"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "messages", "the conversation"),
        ({"messages": []}, "messages", "give at least one"),
        ({"text": "x", "deliberate": "later"}, "deliberate", "'wait'"),
    ],
)
def test_what_is_no_text_is_refused(server, body, param, what):
    error = server.refused(ADDRESS, 400, **body)
    assert error["param"] == param
    assert what in error["message"]


class TestCompare:
    def test_the_same_tokens_are_scored_with_and_without_latents(self, server):
        answer = "scored"
        body = server.post("/v1/compare", prompt=DOCUMENT, answer=answer).json()
        base = server.base
        plain = prefill(base, [tokenize(base, DOCUMENT)])[0]
        [thought] = augment(base, server.coprocessor, [plain])
        ids = tokenize(base, answer, further=True)
        for name, cache in (("without", plain), ("with", thought)):
            for at, token in enumerate(ids):
                tip = extend(base, cache, ids[:at]).tip  # one at a time, from the start
                chance = base.logits(tip).log_softmax(-1)[token].item()
                assert body["tokens"][at][name] == pytest.approx(chance, abs=1e-4)
        text = "".join(token["text"] for token in body["tokens"])
        assert text == base.tokenizer.decode(ids)
        assert body["deliberate"]["latents"] == "used"

    def test_a_long_answer_is_scored_in_slices(self, server, monkeypatch):
        whole = server.post("/v1/compare", prompt=DOCUMENT, answer="scored").json()["tokens"]
        monkeypatch.setattr("deliberate.serve.compare._SLICE", 2)
        for answer in ("scored", "score", "s"):
            sliced = server.post("/v1/compare", prompt=DOCUMENT, answer=answer).json()["tokens"]
            for one, other in zip(sliced, whole, strict=False):
                for name in ("with", "without"):
                    assert one[name] == pytest.approx(other[name], abs=1e-4)

    def test_a_character_of_several_tokens_comes_with_its_last(self):
        base = load_base("nano")
        ids = tokenize(base, "a 'é€' b", further=True).tolist()
        found = texts(base, ids)
        assert "".join(found) == "a 'é€' b"
        assert "" in found
        assert "\ufffd" not in found

    def test_without_a_coprocessor_one_side_is_missing(self, start):
        body = start(thinker=False).post("/v1/compare", prompt="x", answer="ab").json()
        assert body["deliberate"]["latents"] == "absent"
        assert [token["with"] for token in body["tokens"]] == [None, None]

    @pytest.mark.parametrize("answer", ["", [], [999], None, "x" * 300])
    def test_an_answer_that_is_none_is_refused(self, server, answer):
        assert server.refused("/v1/compare", 400, prompt="x", answer=answer)["param"] == "answer"
