"""The kinds of coprocessor and baseline by name, for recipes and checkpoints."""

from dataclasses import fields

from deliberate.core.base import Base
from deliberate.core.continued import ContinuedBase
from deliberate.core.coprocessor import OWN, Coprocessor, CoprocessorConfig
from deliberate.core.full import FullCoprocessor
from deliberate.core.hidden import HiddenCoprocessor
from deliberate.core.lora import LoraCoprocessor
from deliberate.core.pause import PauseToken
from deliberate.core.scratch import ScratchCoprocessor
from deliberate.core.soft import SoftEmbedding

KINDS: dict[str, type[Coprocessor]] = {
    "full": FullCoprocessor,
    "lora": LoraCoprocessor,
    "scratch": ScratchCoprocessor,
    "hidden": HiddenCoprocessor,
    "soft": SoftEmbedding,
    "pause": PauseToken,
    "continued": ContinuedBase,
}
"""Each kind's class, made from a configuration and the base that it serves."""


def check_kind(config: CoprocessorConfig) -> None:
    """See that a configuration names a kind, and no setting that means nothing to it.

    Raises:
        ValueError: it does not.
    """
    if config.kind not in KINDS:
        raise ValueError(f"coprocessor.kind must be one of {', '.join(KINDS)}, got {config.kind!r}")
    plain = {field.name: field.default for field in fields(CoprocessorConfig)}
    for name in OWN:
        value = getattr(config, name)
        if value != plain[name] and name not in KINDS[config.kind].uses:
            others = ", ".join(kind for kind, made in KINDS.items() if name in made.uses)
            raise ValueError(
                f"coprocessor.{name} is {value!r} and kind {config.kind!r} has no use for it: "
                f"leave it out, or choose a kind that has ({others})"
            )


def build(config: CoprocessorConfig, base: Base) -> Coprocessor:
    """Make an untrained coprocessor for a base.

    Raises:
        ValueError: the kind is unknown, or a setting means nothing to it.
    """
    check_kind(config)
    return KINDS[config.kind](config, base)
