"""Answers that a stand-in for vLLM decodes are those that this engine gives itself."""

import socket

import pytest
import torch

from deliberate.core import load_base
from deliberate.core.augment import augment, extend, prefill
from deliberate.core.sampling import Sampling
from deliberate.serve.engine import Request
from deliberate.serve.settings import Settings
from deliberate.serve.vllm_engine import VllmEngine

NOTHING = torch.empty(0, dtype=torch.long)


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def remote():
    made = []

    def make(base, url, **settings) -> VllmEngine:
        made.append(VllmEngine(base, url=url, model="served", **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close(0.0)


def caches(base, make) -> list:
    plain = prefill(base, [text(1, 9), text(2, 5)])
    thought = augment(base, make(base, "paper"), plain)
    return [plain[0], thought[0], extend(base, thought[1], text(3, 4))]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "granite"])
def test_answers_are_those_of_the_own_engine(family, save_base, make, engine, remote, vllm, ask):
    base = load_base(str(save_base(family)))
    server, here = vllm(base), engine(base)
    there = remote(base, server.url, key="secret")
    for cache in caches(base, make):
        for rest in (NOTHING, text(7, 3)):
            request = Request(
                token_ids=rest, cache=cache, sampling=Sampling(max_tokens=6), logprobs=2
            )
            wanted, got = ask(here, request).wait(), ask(there, request).wait()
            assert vars(got.generation()) == vars(wanted.generation())
            for one, other in zip(got.tokens, wanted.tokens, strict=True):
                assert one.text == other.text
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
                assert [each[:2] for each in one.top] == [each[:2] for each in other.top]
    assert len(server.asked) == 6, "and nothing was decoded here"
    path, asked, authorization = server.asked[-1]
    assert (path, asked["model"], authorization) == ("/v1/completions", "served", "Bearer secret")
    assert [("prompt_embeds" in asked) for _, asked, _ in server.asked] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("fails", ["400", "401", "500", "503", "nonsense", "slow", "down"])
def test_where_the_other_server_fails_the_answer_is_decoded_here(
    fails, llama, make, engine, remote, vllm, ask, caplog
):
    server = vllm(llama)
    server.fails, url = fails, server.url
    if fails == "down":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
    there = remote(llama, url, patience=1.0 if fails == "slow" else 60.0)
    request = Request(
        token_ids=NOTHING, cache=caches(llama, make)[1], sampling=Sampling(max_tokens=4)
    )
    wanted = ask(engine(llama), request).wait()
    assert vars(ask(there, request).wait().generation()) == vars(wanted.generation())
    [said] = [record.getMessage() for record in caplog.records]
    assert url in said
    assert "\n" not in said


def test_an_answer_that_breaks_off_ends_as_failed(llama, make, remote, vllm, ask):
    server = vllm(llama)
    server.fails = "breaks"
    sampling = Sampling(max_tokens=6, ignore_end=True)
    request = Request(token_ids=NOTHING, cache=caches(llama, make)[1], sampling=sampling)
    asked = ask(remote(llama, server.url), request).wait()
    assert (asked.finish, len(asked.tokens)) == ("failed", 2)
    assert "broke off" in str(asked.pieces[-1].error)


def test_a_stop_text_ends_the_answer_here_and_there(llama, make, engine, remote, vllm, ask):
    server, cache = vllm(llama), caches(llama, make)[1]
    whole = ask(engine(llama), Request(token_ids=NOTHING, cache=cache)).wait().generation()
    stop = whole.text[2:4]
    request = Request(token_ids=NOTHING, cache=cache, sampling=Sampling(stop=(stop,)))
    got = ask(remote(llama, server.url), request).wait().generation()
    assert vars(got) == vars(ask(engine(llama), request).wait().generation())


def test_an_address_that_is_none_is_refused():
    ports = ("http://h:abc", "http://h:70000", "http://h:0", "http://[::1")
    for url in ("localhost:8000", "ftp://host", "http://", "x", "http://h/#v1", *ports):
        with pytest.raises(ValueError, match="engine_url must be like http://host:8000, got"):
            Settings(engine_url=url)


def test_a_password_in_an_address_is_refused_and_not_shown():
    for url in ("http://me:mine@host:8000", "http://mine@host"):
        with pytest.raises(ValueError, match="must hold no user name or password") as refused:
            Settings(engine_url=url)
        assert "mine" not in str(refused.value)
