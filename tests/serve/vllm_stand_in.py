"""A stand-in for a vLLM server run with `--enable-prompt-embeds`, over loopback."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch


class Vllm(ThreadingHTTPServer):
    """Decodes greedily what it is asked, as vLLM documents it, or fails as it is told."""

    daemon_threads = True

    def __init__(self, base, port=0):
        super().__init__(("127.0.0.1", port), _Answers)
        self.base, self.asked, self.fails = base, [], ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def embeds(self, asked) -> torch.Tensor:
        weights = self.base.trunk.get_input_embeddings().weight
        if "prompt" in asked:
            return self.base.embed(torch.tensor(asked["prompt"]))
        content = base64.b64decode(asked["prompt_embeds"], validate=True)
        embeds = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        assert embeds.dtype == weights.dtype
        assert embeds.shape[1:] == weights.shape[1:]
        return embeds


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


@contextmanager
def vllm_stand_in(base, port=0) -> Iterator[Vllm]:
    """Run a stand-in while the block runs; with `port`, at that one."""
    server = Vllm(base, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
