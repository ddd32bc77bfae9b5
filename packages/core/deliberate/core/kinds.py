"""The kinds of coprocessor and baseline by name, for recipes and checkpoints."""

from collections.abc import Callable

from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig
from deliberate.core.full import FullCoprocessor
from deliberate.core.soft import SoftEmbedding

KINDS: dict[str, Callable[[CoprocessorConfig, Base], Coprocessor]] = {
    "full": FullCoprocessor,
    "soft": SoftEmbedding,
}
"""Each kind's class, made from a configuration and the base that it serves."""


def build(config: CoprocessorConfig, base: Base) -> Coprocessor:
    """Make an untrained coprocessor for a base.

    Raises:
        ValueError: the kind is unknown.
    """
    if config.kind not in KINDS:
        raise ValueError(f"coprocessor kind must be one of {', '.join(KINDS)}, got {config.kind!r}")
    return KINDS[config.kind](config, base)
