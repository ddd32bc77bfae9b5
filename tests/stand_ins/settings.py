"""Settings of a recipe as the command line takes them."""

from collections.abc import Mapping

SMALL_RUN = {
    "base.dtype": "float32",
    "coprocessor.latents": 2,
    "objective.ahead": 2,
    "objective.anchors": 2,
    "train.steps": 1,
    "train.batch": 2,
    "eval.texts": 2,
    "eval.anchors": 2,
    "eval.ahead": 2,
}
"""A run of one step, as little as can be."""


def set_all(settings: Mapping[str, object]) -> list[str]:
    """`--set` for each of them."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
