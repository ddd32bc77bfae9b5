"""What every address of the server works with, in one place."""

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.gate import asks, entropy
from deliberate.serve.engine import Engine
from deliberate.serve.limits import Admission
from deliberate.serve.metrics import Metrics
from deliberate.serve.refusals import ApiError
from deliberate.serve.settings import Settings
from deliberate.serve.store import Store
from deliberate.serve.thinker import Thinker

Given = ParamSpec("Given")
Result = TypeVar("Result")

_SPARE_THREADS = 8


class Service:
    """Base, engine, store and thinker, with the limits and counters around them."""

    def __init__(
        self,
        base: Base,
        engine: Engine,
        *,
        store: Store,
        thinker: Thinker,
        settings: Settings,
    ) -> None:
        self.base, self.engine, self.store = base, engine, store
        self.thinker, self.settings = thinker, settings
        self.started = int(time.time())
        self.metrics = Metrics()
        self.admission = Admission(settings.max_concurrent, settings.max_queue)
        # A thread each for what blocks: reading a prompt, a file, a long text's tokens.
        self._threads = ThreadPoolExecutor(
            settings.max_concurrent + _SPARE_THREADS, thread_name_prefix="serve"
        )
        self._follow()

    async def blocking(
        self, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """Call what would hold up everybody else, in a thread."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def deadline(self) -> float:
        """When a request that comes now must have ended, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.timeout_seconds

    def thinker_state(self) -> str:
        """How the coprocessor's worker is; `absent` where there is none."""
        return self.thinker.state

    def entropy(self, cache: Cache) -> float:
        """How uncertain the base is of the token after a text, in nats; holds up decoding."""
        with self.engine.lock:
            return float(entropy(self.base, cache.last_hidden.to(self.base.device)))

    def take_up(self) -> None:
        """Serve files that came into the store's folder, and offer the thinker plain ones."""
        self.store.refresh()
        if not (self.admission.closing or self.thinker_state() == "absent"):
            plain = self.store.undecided(self.settings.max_thoughts)
            self.thinker.offer(plain, self._worthwhile)

    def _worthwhile(self, cache_id: str) -> bool:
        gate = self.settings.gate
        return not gate or asks(self.entropy(self.store.get(cache_id)), gate)

    def check_model(self, name: str | None) -> None:
        """Refuse another model's name; none means this one.

        Raises:
            ApiError: 404.
        """
        if name is not None and name != self.settings.name:
            raise ApiError(
                404,
                f"the model {name[:64]!r} is not here: this server has {self.settings.name!r}",
                param="model",
                code="model_not_found",
            )

    def close(self) -> None:
        """End what runs, once what is being stored is stored."""
        self.engine.close(0.0)
        self._threads.shutdown(wait=True)
        self.thinker.close()
        self.store.close()

    def _follow(self) -> None:
        follow, admission = self.metrics.follow, self.admission
        follow("requests_running", "Requests being answered.", lambda: admission.running)
        follow("requests_waiting", "Requests that wait for a turn.", lambda: admission.waiting)
        follow("engine_running", "Answers being decoded.", lambda: self.engine.running)
        follow("engine_waiting", "Answers that wait for a row.", lambda: self.engine.waiting)
        store, thinker = self.store, self.thinker
        follow("caches", "Caches in the store.", lambda: store.usage.caches)
        follow("caches_augmented", "Caches with latents.", lambda: store.usage.augmented)
        follow("caches_disk_bytes", "Files that the store wrote.", lambda: store.usage.disk_bytes)
        follow("caches_memory_bytes", "Caches in memory.", lambda: store.usage.memory_bytes)
        follow("caches_evicted", "Files removed to make room.", lambda: store.usage.evicted)
        follow("caches_unfit", "Files that are not served.", lambda: store.usage.unfit)
        follow("thinker_queued", "Caches to be thought over.", lambda: thinker.counts.queued)
        follow("thinker_lost", "Times the worker died or hung.", lambda: thinker.counts.lost)
        follow(
            "thinker_crowded", "Caches that too many waited for.", lambda: thinker.counts.crowded
        )
        self.metrics.follow_thinker(self.thinker_state)
