"""`deliberate serve --engine vllm` as a process, a stand-in for vLLM, and OpenAI's own client.

One test for it all, since a process takes long to begin; its parts are the functions before it.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from deliberate.core import (
    Sampling,
    augment,
    generate,
    load_base,
    load_coprocessor,
    prefill,
    save_coprocessor,
    tokenize,
)

PATIENCE = 300.0
"""Seconds until a test gives up: a process loads torch, which takes long on a busy machine."""
ENTRY = "import sys; from deliberate.cli.main import main; sys.exit(main())"


@dataclass
class Gateway:
    """The process, and who asks."""

    base: Any
    coprocessor: Any
    client: openai.OpenAI
    log: Path

    def complete(self, prompt, mode, **options):
        """The text of an answer, and what became of its latents."""
        answer = self.client.completions.create(
            model="tiny", prompt=prompt, temperature=0, max_tokens=6,
            extra_body={"deliberate": mode}, **options,
        )  # fmt: skip
        if not options.get("stream"):
            return answer.choices[0].text, answer.model_extra["deliberate"]["latents"]
        events = list(answer)
        text = "".join(event.choices[0].text for event in events)
        return text, events[-1].model_extra["deliberate"]["latents"]

    def alone(self, prompt, *, latents):
        """The text of the answer without any server."""
        caches = prefill(self.base, [tokenize(self.base, prompt)])
        if latents:
            caches = augment(self.base, self.coprocessor, caches)
        [done] = generate(self.base, caches, Sampling(max_tokens=6))
        return done.text


@pytest.fixture
def start(llama_folder, make, tmp_path):
    """Starts the gateway to a vLLM server at an address."""
    base, folder = load_base(str(llama_folder)), tmp_path / "coprocessor"
    save_coprocessor(make(base, "paper"), folder, base=base)
    coprocessor = load_coprocessor(folder, base=base).coprocessor
    started = []

    def start(url):
        log = tmp_path / "log"
        command = [sys.executable, "-c", ENTRY, "serve", "--port", "0", "--name", "tiny"]
        command += ["--base", str(llama_folder), "--coprocessor", str(folder)]
        command += ["--store", str(tmp_path / "store"), "--thinker", "thread", "--device", "cpu"]
        command += ["--dtype", "float32", "--engine", "vllm", "--engine-url", url]
        settings = {"XDG_CACHE_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        with log.open("wb") as written:
            process = subprocess.Popen(command, stderr=written, env=os.environ | settings)
        started.append(process)
        until = time.monotonic() + PATIENCE
        while "is served at " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        where = log.read_text().partition("is served at ")[2].split()[0]
        client = openai.OpenAI(base_url=f"{where}/v1", api_key="any", max_retries=0)
        started.append(client)
        return Gateway(base, coprocessor, client, log)

    yield start
    process, client = started
    client.close()
    process.kill()
    process.wait()


def never_has_token_ids_decoded_there(gateway, vllm):
    expected = gateway.alone("no latents", latents=False)
    assert gateway.complete("no latents", "never") == (expected, "never")
    [(_, asked, _)] = vllm.asked
    assert asked["prompt"] == tokenize(gateway.base, "no latents").tolist()


def wait_has_embeddings_decoded_there(gateway, vllm):
    expected = gateway.alone("with latents", latents=True)
    assert expected != gateway.alone("with latents", latents=False)
    for stream in (False, True):
        assert gateway.complete("with latents", "wait", stream=stream) == (expected, "used")
        _, asked, _ = vllm.asked[-1]
        assert "prompt_embeds" in asked


def auto_is_plain_at_first_and_has_latents_later(gateway):
    plain = gateway.alone("in the background", latents=False)
    assert gateway.complete("in the background", "auto") == (plain, "not_ready")
    until = time.monotonic() + PATIENCE
    while (answer := gateway.complete("in the background", "auto"))[1] != "used":
        assert answer == (plain, "not_ready")
        assert time.monotonic() < until
    assert answer[0] == gateway.alone("in the background", latents=True)


def an_answer_that_breaks_off_is_told_to_have_failed(gateway, vllm):
    vllm.fails = "breaks"
    with pytest.raises(openai.InternalServerError, match="in the middle of this answer") as failed:
        gateway.complete("breaks off", "never")
    assert failed.value.status_code == 502
    with pytest.raises(openai.APIError, match="in the middle of this answer"):
        gateway.complete("breaks off", "never", stream=True)
    vllm.fails = ""


@pytest.mark.slow
def test_a_vllm_server_decodes_while_it_is_there(start, vllm_stand_in):
    with vllm_stand_in(None) as vllm:
        gateway, port = start(vllm.url), vllm.server_address[1]
        vllm.base = gateway.base
        never_has_token_ids_decoded_there(gateway, vllm)
        wait_has_embeddings_decoded_there(gateway, vllm)
        auto_is_plain_at_first_and_has_latents_later(gateway)
        an_answer_that_breaks_off_is_told_to_have_failed(gateway, vllm)
    expected = gateway.alone("with latents", latents=True)
    assert gateway.complete("with latents", "wait") == (expected, "used")
    assert f"127.0.0.1:{port}/v1/completions cannot be reached" in gateway.log.read_text()
    with vllm_stand_in(gateway.base, port) as again:
        assert gateway.complete("with latents", "wait") == (expected, "used")
        assert len(again.asked) == 1
