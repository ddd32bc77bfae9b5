"""What the server counts, for Prometheus, in a registry of its own.

requests, tokens, times, latents --counted--> GET /metrics
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_TO_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_WHOLE = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

LATENTS = ("used", "late", "not_ready", "skipped", "absent", "failed", "never")
"""What may have become of an answer's latents."""

THINKER = ("starting", "ready", "busy", "absent")
"""How the coprocessor's worker may be."""


class Metrics:
    """The server's counters."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "deliberate_requests", "Requests answered or refused.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "deliberate_request_seconds", "Time of a request.", ["route"],
            buckets=_WHOLE, registry=registry,
        )  # fmt: skip
        self.prompt_tokens = _counter(registry, "prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = _counter(
            registry, "cached_tokens", "Tokens of prompts that were in a cache and not read again."
        )
        self.generated_tokens = _counter(registry, "generated_tokens", "Tokens decoded.")
        self.to_first = Histogram(
            "deliberate_time_to_first_token_seconds",
            "From the request to its first token, the queue included.",
            buckets=_TO_FIRST, registry=registry,
        )  # fmt: skip
        self.between = Histogram(
            "deliberate_time_between_tokens_seconds", "Between two tokens of one answer.",
            buckets=_BETWEEN, registry=registry,
        )  # fmt: skip
        self.lookups = Counter(
            "deliberate_cache_lookups", "Caches looked up, by where they were.", ["tier"],
            registry=registry,
        )  # fmt: skip
        self.latents = Counter(
            "deliberate_latents", "Answers, by what became of their latents.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in LATENTS:
            self.latents.labels(outcome)
        for tier in ("memory", "disk", "miss"):
            self.lookups.labels(tier)

    def follow(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when the page is."""
        gauge = Gauge(f"deliberate_{name}", help_text, registry=self._registry)
        gauge.set_function(value)

    def follow_thinker(self, state: Callable[[], str]) -> None:
        """Show how the coprocessor's worker is: 1 at its state, 0 at the others."""
        gauge = Gauge(
            "deliberate_thinker", "The coprocessor's worker: 1 at its state.", ["state"],
            registry=self._registry,
        )  # fmt: skip
        for name in THINKER:
            gauge.labels(name).set_function(lambda name=name: float(state() == name))

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


def _counter(registry: CollectorRegistry, name: str, help_text: str) -> Counter:
    return Counter(f"deliberate_{name}", help_text, registry=registry)
