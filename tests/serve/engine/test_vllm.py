"""Answers that a stand-in for vLLM decodes are those that this engine gives itself."""

import base64
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from deliberate.core import load_base
from deliberate.core.augment import augment, extend, prefill
from deliberate.core.sampling import Sampling
from deliberate.serve.engine import Request
from deliberate.serve.settings import Settings
from deliberate.serve.vllm_engine import SCALES_ITSELF, VllmEngine

NOTHING = torch.empty(0, dtype=torch.long)


def text(seed: int, length: int) -> torch.Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


class Vllm(ThreadingHTTPServer):
    """Decodes greedily what it is asked, as vLLM documents it, or fails as it is told."""

    daemon_threads = True

    def __init__(self, base):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.base, self.asked, self.fails = base, [], ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def embeds(self, asked) -> torch.Tensor:
        weights = self.base.trunk.get_input_embeddings().weight
        scale = self.base.hidden**0.5 if self.base.model.config.model_type in SCALES_ITSELF else 1
        if "prompt" in asked:
            return self.base.embed(torch.tensor(asked["prompt"]))
        content = base64.b64decode(asked["prompt_embeds"], validate=True)
        embeds = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        assert embeds.dtype == weights.dtype
        assert embeds.shape[1:] == weights.shape[1:]
        return embeds * scale


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, asked, self.headers.get("authorization")))
        fails = self.server.fails
        if fails.isdigit():
            self.send_response(int(fails))
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "no prompt_embeds here"}}')
            return
        if fails == "slow":
            time.sleep(3)
        self.send_response(200)
        self.end_headers()
        self._decode(asked, fails)

    @torch.no_grad()
    def _decode(self, asked, fails):
        assert asked["stream"]
        assert asked["temperature"] == 0
        base, embeds = self.server.base, self.server.embeds(asked)
        for step in range(asked["max_tokens"]):
            if fails == "breaks" and step == 2:
                return
            logprobs = base.model(inputs_embeds=embeds[None]).logits[0, -1].log_softmax(-1)
            token = int(logprobs.argmax())
            top = logprobs.topk(max(1, asked["logprobs"]))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            end = token == 0 and not asked["ignore_eos"]
            last = step + 1 == asked["max_tokens"]
            choice = {
                "text": "x",
                "finish_reason": "stop" if end else "length" if last else None,
                "logprobs": {
                    "tokens": [f"token_id:{token}"],
                    "token_logprobs": [float(logprobs[token])],
                    "top_logprobs": [{f"token_id:{number}": value for number, value in pairs}],
                },
            }
            event = "nonsense" if fails == "nonsense" else json.dumps({"choices": [choice]})
            self.wfile.write(f"data: {event}\n\n".encode())
            if end:
                break
            embeds = torch.cat([embeds, base.embed(torch.tensor([token]))])
        self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def vllm():
    made = []

    def make(base) -> Vllm:
        made.append(Vllm(base))
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        return made[-1]

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


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
    assert "broke off" in asked.pieces[-1].error


def test_a_stop_text_ends_the_answer_here_and_there(llama, make, engine, remote, vllm, ask):
    server, cache = vllm(llama), caches(llama, make)[1]
    whole = ask(engine(llama), Request(token_ids=NOTHING, cache=cache)).wait().generation()
    stop = whole.text[2:4]
    request = Request(token_ids=NOTHING, cache=cache, sampling=Sampling(stop=(stop,)))
    got = ask(remote(llama, server.url), request).wait().generation()
    assert vars(got) == vars(ask(engine(llama), request).wait().generation())


def test_an_address_that_is_none_is_refused():
    for url in ("localhost:8000", "ftp://host", "http://", "x"):
        with pytest.raises(ValueError, match="engine_url"):
            Settings(engine_url=url)
