"""How the server behaves: every number that someone who runs it may want to change."""

import math
from dataclasses import dataclass, field, fields

from deliberate.serve.vllm_url import checked_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Addresses, limits and times of a server."""

    name: str = "nano"
    """What requests call the model."""

    host: str = "127.0.0.1"
    """Address to listen at."""

    port: int = 8000
    """Port to listen at; 0 takes a free one."""

    api_key: str = field(default="", repr=False)
    """What requests must bring as `Authorization: Bearer …`; empty asks for nothing."""

    gate: float = 0.0
    """Latents are asked for only where the next token's entropy is at least this many nats."""

    wait_seconds: float = 30.0
    """How long a request that waits for latents waits at most."""

    think_seconds: float = 60.0
    """How long the coprocessor may take for one text; then it is started anew."""

    timeout_seconds: float = 300.0
    """How long one request may take, its time in the queue included."""

    drain_seconds: float = 30.0
    """How long running requests may go on once the server was told to stop."""

    max_concurrent: int = 16
    """Requests answered at the same time."""

    max_queue: int = 64
    """Requests that wait for their turn; more are refused."""

    max_thoughts: int = 256
    """Texts that wait for the coprocessor; more stay plain for now."""

    max_choices: int = 16
    """Answers that one request may ask for, over all its prompts."""

    max_body_bytes: int = 4 * 2**20
    """Size of the largest request."""

    disk_bytes: int = 10 * 10**9
    """The most that caches written by the server take on disk."""

    memory_bytes: int = 10**9
    """The most of them that is kept in memory too."""

    engine_url: str = ""
    """A vLLM server that decodes answers; empty decodes them here."""

    engine_model: str = ""
    """What that server calls the base; empty is the base's own name."""

    engine_key: str = field(default="", repr=False)
    """What that server asks for, if anything."""

    engine_seconds: float = 60.0
    """Without a token for so long, that server counts as failed."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.startswith("max_") and each.name != "max_queue" and value < 1:
                raise ValueError(f"{each.name} must be at least 1, got {value}")
            if each.name.endswith("_bytes") and value < 0:
                raise ValueError(f"{each.name} must be at least 0, got {value}")
            if each.name.endswith("_seconds") and not 0 < value < math.inf:
                raise ValueError(f"{each.name} must be above 0 and finite, got {value}")
        if self.max_queue < 0:
            raise ValueError(f"max_queue must be at least 0, got {self.max_queue}")
        if not 0 <= self.gate < math.inf:
            raise ValueError(f"gate must be at least 0 nats and finite, got {self.gate}")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port must be from 0 to {2**16 - 1}, got {self.port}")
        if self.engine_url:
            checked_url(self.engine_url)
        if not self.name:
            raise ValueError("name must not be empty")
        for name in ("api_key", "engine_key"):
            if not getattr(self, name).isascii():
                raise ValueError(f"{name} must be of ASCII characters: headers hold no others")
