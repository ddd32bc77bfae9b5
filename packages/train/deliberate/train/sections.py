"""The sections of a recipe, each of which checks its own values."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from deliberate.core.execution import Attention, Execution

MAX_SEED = 2**42
"""The largest seed: the generators take 64 bits, and a seed is spread a million steps apart."""

MAX_RATE = 1e6
"""The largest rate and decay: beyond any use, and AdamW can still compute with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSection:
    """The frozen model."""

    id: str = "nano"
    """`nano`, a folder or a Hub id."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    architecture: dict[str, Any] | None = None
    """Its configuration, `model_type` and what differs from that type's defaults; for a dry run
    where the model itself is not at hand, and for nothing else."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which its weights are held while training; `bfloat16` also trains under autocast, and
    `auto` is the one in which the device multiplies faster when the run begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """The texts."""

    train: str = "stdlib"
    """`stdlib`, `installed`, a text file, a JSONL or Parquet file, or a folder of texts."""

    validation: str | None = None
    """Likewise. None: the held-out modules of `stdlib` and `installed`, or the last rows of
    the training texts."""

    field: str = "text"
    """The key or column of the text in JSONL and Parquet files."""

    length: int = 512
    """Tokens in each packed row."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        _at_least_one(self, "data", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """What is learned: the tokens after anchors."""

    ahead: int = 8
    """Tokens after each anchor that the loss is taken on (the paper's N_A)."""

    anchors: int = 64
    """Anchors drawn in each row (the paper draws 128 in 2,048 tokens)."""

    place: Literal["uniform", "every", "marker"] = "uniform"
    """Where anchors may be: anywhere, at every token that has room (`anchors` is not heeded), or
    at the last token of each marker."""

    markers: tuple[str, ...] | None = None
    """For `place: marker`: strings such as the end of a question."""

    delay: int = 0
    """Tokens that the base decodes before the latents arrive; the loss is on later ones."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range, or markers do not go with `place`.
        """
        _at_least_one(self, "objective", "ahead", "anchors")
        if self.delay < 0:
            raise ValueError(f"objective.delay must be at least 0, got {self.delay}")
        if (self.place == "marker") != bool(self.markers):
            raise ValueError(
                f"objective.place is {self.place!r} and objective.markers is {self.markers}: "
                "markers, at least one, go with place marker and with no other"
            )
        if "" in (self.markers or ()):
            raise ValueError("objective.markers must not hold the empty text")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """How it is learned."""

    steps: int = 300
    """Optimizer steps."""

    batch: int = 8
    """Rows in each forward and backward."""

    accumulate: int = 1
    """Forwards and backwards in each optimizer step."""

    learning_rate: float = 2e-4
    """Peak rate of the network's weights."""

    soft_learning_rate: float | None = 1e-3
    """Peak rate of soft tokens and soft embeddings; none is that of the network."""

    warmup: int = 50
    """Steps over which the rate rises to its peak; it then falls as a cosine."""

    final_rate: float = 0.0
    """The rate at the last step, as a share of its peak."""

    weight_decay: float = 0.0
    """Of matrices; vectors and soft tokens have none."""

    beta2: float = 0.98
    """AdamW's second decay rate."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    seed: int = 0
    """Of initialisation, the order of rows and the anchors."""

    checkpoint_every: int = 250
    """Steps between checkpoints."""

    keep: int = 2
    """Checkpoints kept."""

    validate_every: int = 250
    """Steps between validations; the last step is always validated."""

    recompute: bool = False
    """Whether the backward runs layers again: less memory, about a third more time."""

    compile: bool = False
    """Whether layers are compiled: faster steps, after minutes; needs a C++ compiler."""

    attention: Attention = "parts"
    """Form of grouped attention: `parts` on any device, `flex` for CUDA."""

    shard: Literal["none", "full"] = "none"
    """`full`: of several processes each holds its share of the base, the coprocessor, gradients
    and optimizer state, for what does not fit one device; `none`: each holds them whole."""

    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the finished coprocessor's weights are written."""

    @property
    def execution(self) -> Execution:
        """How groups go through a decoder."""
        return Execution(recompute=self.recompute, compile=self.compile, attention=self.attention)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        counts = ("steps", "batch", "accumulate", "checkpoint_every", "keep", "validate_every")
        _at_least_one(self, "train", *counts)
        if self.shard == "full" and self.compile:
            raise ValueError("train.shard full does not go with train.compile: leave one of them")
        soft = self.soft_learning_rate
        for name, kept, rule in (
            ("learning_rate", 0 < self.learning_rate <= MAX_RATE, f"above 0, at most {MAX_RATE:g}"),
            (
                "soft_learning_rate",
                soft is None or 0 < soft <= MAX_RATE,
                f"above 0, at most {MAX_RATE:g}, or null",
            ),
            ("warmup", self.warmup >= 0, "at least 0"),
            ("final_rate", 0 <= self.final_rate <= 1, "from 0 to 1"),
            ("weight_decay", 0 <= self.weight_decay <= MAX_RATE, f"from 0 to {MAX_RATE:g}"),
            ("beta2", 0 <= self.beta2 < 1, "at least 0 and below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("seed", abs(self.seed) <= MAX_SEED, f"from {-MAX_SEED} to {MAX_SEED}"),
        ):
            value = getattr(self, name)
            if value in (math.inf, -math.inf):
                raise ValueError(f"train.{name} must be finite, got {value}")
            if not kept:  # so is not-a-number, which no comparison holds for
                raise ValueError(f"train.{name} must be {rule}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSection:
    """How validation and `deliberate eval` measure."""

    texts: int = 64
    """Passages of held-out text; each has at most `data.length` tokens."""

    anchors: int = 32
    """Anchors in each passage."""

    ahead: int = 32
    """Tokens after each anchor."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        _at_least_one(self, "eval", "texts", "anchors", "ahead")


def _at_least_one(section: Any, called: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value < 1:
            raise ValueError(f"{called}.{name} must be at least 1, got {value}")
