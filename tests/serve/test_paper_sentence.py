"""The paper's sentence, clause by clause, of `deliberate serve` as it is started: nano, a process.

"... can operate offline and asynchronously, and the language model can function normally if the
coprocessor is unavailable or if a given cache is deemed not to require extra computation."

Source: arXiv:2412.17747, abstract. Every mode with every state: `http/test_deliberation.py`.
"""

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deliberate.cli.main import main
from deliberate.core import (
    Base,
    Generation,
    Sampling,
    Trained,
    augment,
    generate,
    load_base,
    load_coprocessor,
    prefill,
    tokenize,
)

ROOT = Path(__file__).parents[2]
SENTENCE = (
    "can operate offline and asynchronously, and the language model can function normally if the "
    "coprocessor is unavailable or if a given cache is deemed not to require extra computation"
)
DOCUMENT = "import os\n\n\ndef main"
TOKENS = 12
PATIENCE = 300.0
"""Seconds until a test gives up: a process loads torch, which takes long on a busy machine."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Nano:
    """What nano says without any server."""

    base: Base
    trained: Trained

    def says(self, prompt: str, *, latents: bool) -> Generation:
        caches = prefill(self.base, [tokenize(self.base, prompt)])
        if latents:
            caches = augment(self.base, self.trained.coprocessor, caches)
        [answer] = generate(self.base, caches, Sampling(max_tokens=TOKENS))
        return answer


@dataclass(frozen=True)
class Server:
    """A server, and how to ask it."""

    url: str
    pid: int

    def complete(self, prompt: str, mode: str, **fields: Any) -> dict[str, Any]:
        """A greedy answer."""
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "deliberate": mode}
        response = httpx2.post(
            f"{self.url}/v1/completions",
            json={**body, "return_token_ids": True, **fields},
            timeout=PATIENCE,
            trust_env=False,
        )
        assert response.status_code == 200, response.text
        return response.json()

    def wait_for(self, state: str) -> None:
        """Wait until the coprocessor's process is in a state."""

        def found() -> bool:
            ready = httpx2.get(f"{self.url}/ready", timeout=PATIENCE, trust_env=False)
            return ready.json()["thinker"] == state

        wait_until(found)

    def coprocessor(self) -> int:
        """The id of the coprocessor's process, once it is ready."""
        self.wait_for("ready")
        [found] = [pid for pid, parent in processes() if parent == self.pid]
        return found


def processes() -> Iterator[tuple[int, int]]:
    """Processes that another Python program has made, with that program's id."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if b"spawn_main" in (entry / "cmdline").read_bytes():
                stat = (entry / "stat").read_text().rpartition(")")[2]
                yield int(entry.name), int(stat.split()[1])


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def latents_of(body: dict[str, Any]) -> str:
    return body["deliberate"]["latents"]


def ids_of(body: dict[str, Any]) -> list[int]:
    return body["choices"][0]["token_ids"]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own, for the servers too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def nano() -> Nano:
    base = load_base()
    return Nano(base, load_coprocessor("nano", base=base))


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts servers, on folders of caches that were made beforehand."""
    spec = importlib.util.spec_from_file_location("served", ROOT / "benchmarks" / "served.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def serve(*options: str) -> Any:
        folder = tmp_path_factory.mktemp("served")
        (folder / "store").mkdir()
        plain, made = folder / "document.st", folder / "store" / "made.st"
        assert main(["prefill", "--text", DOCUMENT, "--dtype", "float32", "-o", str(plain)]) == 0
        assert main(["augment", str(plain), "-o", str(made)]) == 0
        limits = ("--wait-limit", "250", "--think-limit", "250", "--dtype", "float32")
        return module.served(folder, *limits, *options)

    return serve


@pytest.fixture(scope="module")
def server(serve) -> Iterator[Server]:
    with serve() as found:
        yield Server(found.url, found.process.pid)


class TestThePaper:
    def test_can_operate_offline(self, server, nano):
        coprocessor = server.coprocessor()
        os.kill(coprocessor, signal.SIGSTOP)  # it has no part in this
        try:
            body = server.complete(DOCUMENT, "auto")
        finally:
            os.kill(coprocessor, signal.SIGCONT)
        assert latents_of(body) == "used"
        assert ids_of(body) == nano.says(DOCUMENT, latents=True).token_ids
        read = body["usage"]["prompt_tokens"]
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == read

    def test_and_asynchronously(self, server, nano):
        prompt = "class Stack:\n    def push"
        own, with_latents = (nano.says(prompt, latents=each).token_ids for each in (False, True))
        coprocessor = server.coprocessor()
        os.kill(coprocessor, signal.SIGSTOP)
        try:
            body = server.complete(prompt, "auto")
            assert latents_of(body) == "not_ready"
            assert ids_of(body) == own
            server.wait_for("busy")
        finally:
            os.kill(coprocessor, signal.SIGCONT)
        server.wait_for("ready")
        body = server.complete(prompt, "auto")
        assert latents_of(body) == "used"
        assert ids_of(body) == with_latents

    def test_and_the_language_model_can_function_normally_if_the_coprocessor_is_unavailable(
        self, server, nano
    ):
        prompt = "for line in lines:\n    "
        coprocessor = server.coprocessor()
        os.kill(coprocessor, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(server.complete, prompt, "wait", logprobs=3)
            try:
                server.wait_for("busy")
            finally:
                os.kill(coprocessor, signal.SIGKILL)  # in the middle of its work
            killed = answer.result()
        assert latents_of(killed) == "failed"
        assert killed["deliberate"]["reason"].endswith("was killed by SIGKILL")
        assert ids_of(killed) == nano.says(prompt, latents=False).token_ids
        never = server.complete(prompt, "never", logprobs=3)
        assert ids_of(never) == ids_of(killed)
        assert never["choices"][0]["logprobs"] == killed["choices"][0]["logprobs"]

    def test_or_if_a_given_cache_is_deemed_not_to_require_extra_computation(self, serve, nano):
        prompt = "try:\n    import"
        with serve("--gate", "50", "--thinker", "thread") as found:
            server = Server(found.url, found.process.pid)
            body = server.complete(prompt, "wait")
            listed = httpx2.get(f"{server.url}/v1/caches", trust_env=False).json()
        assert latents_of(body) == "skipped"
        assert 0 < body["deliberate"]["entropy"] < 50
        assert ids_of(body) == nano.says(prompt, latents=False).token_ids
        assert listed["total"] == 1  # the document, made beforehand


def test_the_clauses_make_the_sentence_that_the_page_quotes():
    names = [name.removeprefix("test_") for name in vars(TestThePaper) if name[:5] == "test_"]
    assert " ".join(names).replace("_", " ") == SENTENCE.replace(",", "")
    assert SENTENCE in " ".join((ROOT / "docs" / "serving.md").read_text().split())
