"""A server on the loopback interface, on tiny models, with a coprocessor that obeys the test."""

import copy
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deliberate.core import augment, build, coprocessor_config
from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor
from deliberate.serve.engine import Engine
from deliberate.serve.listening import listen
from deliberate.serve.run import Server
from deliberate.serve.service import Service
from deliberate.serve.settings import Settings
from deliberate.serve.store import Store
from deliberate.serve.thinker import Thinker
from deliberate.serve.worker import ThoughtError, Worker

FINGERPRINT = "feedfeedfeedfeed"
POSITIONS = 256
TEMPLATE = (
    "{% for message in messages %}{% if message.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('no such role') }}{% endif %}"
    "{{ message.role }} {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


class Obedient(Worker):
    """Writes latents when it is told to, and fails when it is told to."""

    def __init__(self, base: Base, coprocessor: Coprocessor) -> None:
        self.base, self.coprocessor = base, coprocessor
        self.fails = ""
        self.asked: list[str] = []
        self.lock: Any = None
        self._may = threading.Event()
        self._may.set()

    @property
    def alive(self) -> bool:
        return True

    def hold(self) -> None:
        """Think of nothing until `go`."""
        self._may.clear()

    def go(self) -> None:
        """Think over what was asked."""
        self._may.set()

    def start(self) -> None:
        pass

    def work(self, store: Store, cache_id: str) -> None:
        self.asked.append(cache_id)
        assert self._may.wait(30)
        if self.fails:
            raise ThoughtError(self.fails)
        with self.lock:
            [thought] = augment(
                self.base,
                self.coprocessor,
                [store.get(cache_id)],
                name="tiny",
                fingerprint=FINGERPRINT,
            )
        store.replace(cache_id, thought)

    def stop(self) -> None:
        self._may.set()


@dataclass
class Running:
    """A server that runs, and how to ask it."""

    url: str
    service: Service
    server: Server
    worker: Obedient | None
    base: Base
    coprocessor: Coprocessor
    thread: threading.Thread
    client: openai.OpenAI = field(init=False)
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)
        self.http = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)

    def stop(self) -> None:
        """End the server, and have its store closed."""
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.service.close()

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.http.post(path, json=body)

    def complete(self, prompt: Any, **body: Any) -> dict[str, Any]:
        """A greedy completion, which must not be refused."""
        wanted = {"prompt": prompt, "temperature": 0, "max_tokens": 8, **body}
        response = self.http.post("/v1/completions", json=wanted)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, status: int, **body: Any) -> dict[str, Any]:
        """The error object of a request that must be refused."""
        response = self.http.post(path, json=body)
        return refusal(response, status)


def refusal(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The error object of a response, which must be whole: one sentence, OpenAI's fields."""
    assert response.status_code == status, response.text
    [(name, error)] = response.json().items()
    assert name == "error"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    return error


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits for what happens in another thread."""

    def eventually(true: Callable[[], Any], seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, "it did not happen"
            time.sleep(0.01)

    return eventually


@pytest.fixture
def worker_class() -> type[Obedient]:
    """What the servers' coprocessors are, for tests that have them begin otherwise."""
    return Obedient


@pytest.fixture(scope="session")
def opened_server() -> Callable[..., Any]:
    """Opens a server, for fixtures that outlive a test."""
    return opened


@pytest.fixture
def refusal_of() -> Callable[[httpx2.Response, int], dict[str, Any]]:
    """Reads the error object of a response."""
    return refusal


@contextmanager
def running(service: Service, worker: Obedient | None, coprocessor: Coprocessor) -> Any:
    """A service's server in a thread, until the block ends."""
    listening = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(service, on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    assert ready.wait(30)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    found = Running(url, service, server, worker, service.base, coprocessor, thread)
    try:
        yield found
    finally:
        found.client.close()
        found.http.close()
        found.stop()
        listening.close()


Start = Callable[..., Running]


def opened(
    base: Base, folder: Path, *, thinker: bool = True, preset: str = "warm", **settings: Any
) -> Running:
    """A service of a tiny base and a random coprocessor, not yet behind a port."""
    chosen = Settings(**{"name": "tiny", **settings})
    torch.manual_seed(2)
    coprocessor = build(coprocessor_config(start=preset, kind="full", latents=3), base)
    with torch.no_grad():
        for parameter in coprocessor.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    worker = Obedient(base, coprocessor) if thinker else None
    store = Store(
        folder,
        dataclasses.replace(base.origin, coprocessor_fingerprint=FINGERPRINT),
        dtype=base.model.dtype,
        disk_bytes=chosen.disk_bytes,
        memory_bytes=chosen.memory_bytes,
    )
    engine = Engine(base)
    if worker is not None:
        worker.lock = engine.lock
    service = Service(
        base,
        engine,
        store=store,
        thinker=Thinker(store, worker, queue=chosen.max_thoughts),
        settings=chosen,
    )
    return running(service, worker, coprocessor)


@pytest.fixture(scope="session")
def served_base(llama: Base) -> Base:
    """The tiny Llama, of positions enough for conversations, with a chat template."""
    torch.manual_seed(3)
    settings = {**llama.model.config.to_dict(), "max_position_embeddings": POSITIONS}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return dataclasses.replace(llama, model=model, tokenizer=tokenizer)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """Where servers of a test keep their caches."""
    return tmp_path / "store"


@pytest.fixture
def start(served_base: Base, store_folder: Path) -> Iterator[Start]:
    """Starts servers, which end with the test."""
    with ExitStack() as stack:

        def start(*, base: Base = served_base, **settings: Any) -> Running:
            return stack.enter_context(opened(base, store_folder, **settings))

        yield start


@pytest.fixture(scope="module")
def server(served_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose coprocessor thinks at once, for a whole file."""
    with opened(served_base, tmp_path_factory.mktemp("server") / "store") as found:
        yield found
