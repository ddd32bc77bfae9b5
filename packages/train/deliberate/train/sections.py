"""The sections of a recipe, each of which checks its own values."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from deliberate.core import plain_json
from deliberate.core.coprocessor import MAX_RANK
from deliberate.core.execution import Attention, Execution
from deliberate.core.pairs import SEPARATOR, TEMPLATE, PairFormat
from deliberate.core.sources import Source, sources
from deliberate.train.mixture import quotas

MAX_SEED = 2**42
"""The largest seed: the generators take 64 bits, and a seed is spread a million steps apart."""

MAX_RATE = 1e6
"""The largest rate and decay: beyond any use, and AdamW can still compute with it."""


MAX_COUNT = 2**53
"""The most of anything that is counted: beyond any use, and a plan can still compute with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSection:
    """The frozen model."""

    id: str = "nano"
    """`nano`, a folder or a Hub id."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    architecture: dict[str, Any] | None = None
    """Its configuration, `model_type` and what differs from that type's defaults; for a dry run
    and to see that a run fits before the model itself is at hand, and for nothing else."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which its weights are held while training; `bfloat16` also trains under autocast, and
    `auto` is the one in which the device multiplies faster when the run begins."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the architecture holds what the coprocessor's settings could not.
        """
        try:
            plain_json.parse(json.dumps(self.architecture))
        except (TypeError, ValueError) as error:  # the first of a date, the second of NaN
            raise ValueError(
                f"base.architecture must hold what JSON can, and {error}: write it as in the "
                "base's config.json"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """The texts."""

    train: str | tuple[Source, ...] = "stdlib"
    """`stdlib`, `installed`, `problems`, a text file, a JSONL or Parquet file, a folder of either,
    or the id of a dataset on the Hub; or several, each with `path` and what else a `Source` has."""

    validation: str | tuple[Source, ...] | None = None
    """Likewise. None: the held-out modules of `stdlib` and `installed`, the held-out `problems`, or
    a twentieth of the training texts."""

    field: str = "text"
    """The key or column of the text in files of rows."""

    streaming: bool = False
    """Whether training texts are read when they are needed: each process reads its share of them,
    and their rows are mixed within blocks. Otherwise they are read whole before the first step."""

    question: str | None = None
    """Column of the questions, where rows are questions and answers and not texts (`field` is then
    not heeded): the latents are written at each question's end, and the loss is on its answer."""

    answer: str | None = None
    """Column of the answers."""

    template: str = TEMPLATE
    """What the base reads before the latents, with `{question}` in it once."""

    separator: str = SEPARATOR
    """What the answer's tokens begin with, such as a space or a line end."""

    length: int = 512
    """Tokens in each packed row, or the most in a question and its answer together."""

    @property
    def pairs(self) -> PairFormat | None:
        """How rows are questions and answers, if they are.

        Raises:
            ValueError: the template has no place for the question, or the columns are one.
        """
        if self.question is None or self.answer is None:
            return None
        return PairFormat(
            question=self.question,
            answer=self.answer,
            template=self.template,
            separator=self.separator,
        )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        _check_counts(self, "data", "length")
        for name in ("train", "validation"):
            if getattr(self, name) == ():
                raise ValueError(f"data.{name} must name at least one source, got none")
        quotas([source.weight for source in sources(self.train)])
        if (self.question is None) != (self.answer is None):
            raise ValueError(
                f"data.question is {self.question!r} and data.answer is {self.answer!r}: name both "
                "columns, or none"
            )
        plain = (self.template, self.separator) == (TEMPLATE, SEPARATOR)
        if self.pairs is None and not plain:
            raise ValueError("data.template and data.separator go with data.question alone")
        if self.streaming and self.pairs is not None:
            raise ValueError("data.streaming goes with texts, and not with data.question")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """What is learned: the tokens after anchors."""

    ahead: int = 8
    """Tokens after each anchor that the loss is taken on (the paper's N_A)."""

    anchors: int = 64
    """Anchors drawn in each row (the paper draws 128 in 2,048 tokens)."""

    place: Literal["uniform", "every", "marker"] = "uniform"
    """Where anchors may be: anywhere, at every token that has room (`anchors` is not heeded), or
    at the last token of each marker. Questions have one, their last token, and none of these is
    heeded."""

    markers: tuple[str, ...] | None = None
    """For `place: marker`: strings such as the end of a question; a source may have its own."""

    marked: float = 1.0
    """For `place: marker`: share of a row's anchors at markers; the others are anywhere."""

    delay: int = 0
    """Tokens that the base decodes before the latents arrive; the loss is on later ones."""

    skip: int = 0
    """First ahead tokens that the loss leaves out: latents that do not know the text can do nothing
    for token 1, and would learn from little else."""

    thought: float = 0.0
    """Weight of a loss that draws latents to the input embeddings of the thought that stood at
    their anchor (`thought` of a source), or where none did of the last tokens of the text; 0 is
    none. Goes with `coprocessor.start` thought; kinds that see no text, or write no latents, have
    none."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range, or markers do not go with `place`.
        """
        _check_counts(self, "objective", "ahead", "anchors")
        if self.delay < 0:
            raise ValueError(f"objective.delay must be at least 0, got {self.delay}")
        if not 0 <= self.skip < self.ahead:
            raise ValueError(
                f"objective.skip must be at least 0 and below objective.ahead, got {self.skip} and "
                f"{self.ahead}"
            )
        if (self.place == "marker") != bool(self.markers):
            raise ValueError(
                f"objective.place is {self.place!r} and objective.markers is {self.markers}: "
                "markers, at least one, go with place marker and with no other"
            )
        if not 0 < self.marked <= 1:
            raise ValueError(
                f"objective.marked must be above 0 and at most 1, got {self.marked}: for no marker "
                "at all, objective.place uniform"
            )
        if self.marked < 1 and self.place != "marker":
            raise ValueError(
                f"objective.marked is {self.marked} and objective.place {self.place!r}: it goes "
                "with place marker and with no other"
            )
        if "" in (self.markers or ()):
            raise ValueError("objective.markers must not hold the empty text")
        if not 0 <= self.thought < math.inf:
            raise ValueError(f"objective.thought must be at least 0, got {self.thought}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """How it is learned."""

    steps: int = 300
    """Optimizer steps."""

    batch: int = 8
    """Rows in each forward and backward."""

    accumulate: int = 1
    """Forwards and backwards in each optimizer step."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` gives the network's matrices orthogonal steps, as large as AdamW's at the same rate;
    all else is AdamW's."""

    learning_rate: float = 2e-4
    """Peak rate of the network's weights."""

    soft_learning_rate: float | None = 1e-3
    """Peak rate of soft tokens and soft embeddings; none is that of the network."""

    warmup: int = 50
    """Steps over which the rate rises to its peak; it then falls as a cosine."""

    final_rate: float = 0.0
    """What the rate falls to, as a share of its peak: it would be there a step after the last."""

    weight_decay: float = 0.0
    """Of matrices; vectors and soft tokens have none."""

    beta2: float = 0.98
    """AdamW's second decay rate."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    spike: float | None = 2.0
    """Nats by which a step's loss may be above the median of the last 50; the run stops before a
    step that exceeds it. None: it never does."""

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

    init: str | None = None
    """A trained coprocessor to begin from: a run's folder, `nano` or a Hub id. The coprocessor's
    settings are then its."""

    adapt_rank: int | None = None
    """Rank of low-rank weights on that coprocessor's own trunk, which alone learn, with its soft
    tokens; at the end they are added to its weights. None: all weights learn."""

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
        _check_counts(self, "train", *counts)
        if self.shard == "full" and self.compile:
            raise ValueError("train.shard full does not go with train.compile: leave one of them")
        if self.shard == "full" and self.optimizer == "muon":
            raise ValueError(
                "train.optimizer muon does not go with train.shard full, where no process has a "
                "whole matrix: take adamw, or leave train.shard out"
            )
        if self.adapt_rank is not None:
            if not 1 <= self.adapt_rank <= MAX_RANK:
                raise ValueError(
                    f"train.adapt_rank must be from 1 to {MAX_RANK}, got {self.adapt_rank}"
                )
            if self.init is None:
                raise ValueError(
                    f"train.adapt_rank is {self.adapt_rank} and there is nothing to adapt: name a "
                    "trained coprocessor as train.init"
                )
            if self.shard == "full":
                raise ValueError(
                    "train.adapt_rank does not go with train.shard full: leave one out"
                )
        soft = self.soft_learning_rate
        for name, kept, rule in (
            ("learning_rate", 0 < self.learning_rate <= MAX_RATE, f"above 0, at most {MAX_RATE:g}"),
            (
                "soft_learning_rate",
                soft is None or 0 < soft <= MAX_RATE,
                f"above 0, at most {MAX_RATE:g}, or null",
            ),
            ("warmup", 0 <= self.warmup <= MAX_COUNT, f"from 0 to {MAX_COUNT}"),
            ("final_rate", 0 <= self.final_rate <= 1, "from 0 to 1"),
            ("weight_decay", 0 <= self.weight_decay <= MAX_RATE, f"from 0 to {MAX_RATE:g}"),
            ("beta2", 0 <= self.beta2 < 1, "at least 0 and below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("spike", self.spike is None or self.spike > 0, "above 0, or null"),
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
        _check_counts(self, "eval", "texts", "anchors", "ahead")


def _check_counts(section: Any, called: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value < 1:
            raise ValueError(f"{called}.{name} must be at least 1, got {value}")
        if value > MAX_COUNT:
            raise ValueError(f"{called}.{name} must be at most {MAX_COUNT}, got {value}")
