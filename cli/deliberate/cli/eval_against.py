"""What latents are compared with, as `deliberate eval --against` names it; imports nothing heavy.

"shuffled,soft:RUN,every:8,cot:64" --parsed--> controls, baselines, asking again, chains of thought
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from deliberate.cli.eval_names import CONTROLS, listed, unknown

if TYPE_CHECKING:
    from deliberate.eval import Sample

BASELINES = ("soft", "pause")
"""Trained latents that do not depend on the text, each followed by its run."""

EVERY = "every"
"""Latents asked for again, followed by the tokens from one asking to the next."""

CHAIN = "cot"
"""The base's own chain of thought, of as many tokens as there are latents, or as follow."""

LATENCY = f"{CHAIN}:latency"
"""The same of as many tokens as the base decodes in the time that the latents take."""

NOTHING = "none"
"""No latents at all: the base alone, which every table has anyway."""

KNOWN = (
    *CONTROLS,
    *(f"{name}:RUN" for name in BASELINES),
    f"{EVERY}:TOKENS",
    CHAIN,
    f"{CHAIN}:TOKENS",
    LATENCY,
    NOTHING,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What latents are compared with, besides the base alone."""

    controls: tuple[str, ...] | None = None
    """Names of `CONTROLS`; none are those that are always there."""

    baselines: Mapping[str, str] = field(default_factory=dict)
    """A run's folder, `nano-soft` or a Hub id, by name of `BASELINES`."""

    every: tuple[int, ...] = ()
    """Tokens after which latents are asked for again."""

    chains: tuple[str, ...] = ()
    """`cot`, `cot:TOKENS` and `cot:latency`."""

    lenient: bool = False
    """Whether what there cannot be is left out and not refused, since nobody asked for it."""

    def fitting(self, sample: "Sample") -> "Against":
        """Without asking again where a sample of texts has no use for it."""
        there = [each for each in self.every if 0 in sample.delays and each < sample.ahead]
        return replace(self, every=tuple(there))

    def check(self, *, ahead: int, delays: Sequence[int] | None) -> None:
        """See that it can be compared with on texts.

        Args:
            ahead: Tokens after each anchor.
            delays: Tokens decoded before the latents arrive; none is what the run learned with.

        Raises:
            ValueError: texts have no questions to think about, or are too few tokens to ask for
                latents again; or the latents come late.
        """
        if self.chains:
            raise ValueError(
                f"against {self.chains[0]!r} is for questions with an answer to find, and texts "
                "have none: add --problems all, or leave it out"
            )
        for every in self.every:
            if delays is not None and 0 not in delays:
                late = ",".join(map(str, delays))
                raise ValueError(
                    f"against 'every:{every}' is for latents that arrive at once, and the delay is "
                    f"{late}: say --delay 0, or leave it out"
                )
            if every >= ahead:
                raise ValueError(
                    f"against 'every:{every}' asks again after {every} tokens, and "
                    f"{ahead} are measured: name fewer, or give a larger --ahead"
                )


def parsed(named: str) -> Against:
    """Read what `--against` names.

    Args:
        named: Names as in `KNOWN`, with commas between them.

    Raises:
        ValueError: there is nothing of such a name, a baseline has no run, or comes twice, or a
            number is none; `none` stands beside others.
    """
    controls: dict[str, None] = {}
    every: dict[int, None] = {}
    chains: dict[str, None] = {}
    baselines: dict[str, str] = {}
    names = listed("control", named)
    if NOTHING in names and len(names) > 1:
        raise ValueError(
            f"against {named!r} names {NOTHING!r} beside others, and it stands alone: leave out "
            "it or them"
        )
    for each in names:
        name, colon, rest = each.partition(":")
        if name in BASELINES:
            _add_baseline(baselines, each, name, rest)
        elif name == EVERY:
            every[_tokens(each, rest, f"{EVERY}:8")] = None
        elif each in (CHAIN, LATENCY):
            chains[each] = None
        elif name == CHAIN:
            chains[f"{CHAIN}:{_tokens(each, rest, f'{CHAIN}:64 or {LATENCY}')}"] = None
        elif colon or name not in (*CONTROLS, NOTHING):
            raise ValueError(unknown("control", each, _nearest(name), KNOWN))
        elif name != NOTHING:
            controls[name] = None
    return Against(
        controls=tuple(controls), baselines=baselines, every=tuple(every), chains=tuple(chains)
    )


def _add_baseline(baselines: dict[str, str], each: str, name: str, run: str) -> None:
    """Take one more.

    Raises:
        ValueError: it has no run, or comes twice.
    """
    if not run:
        raise ValueError(f"against {each!r} names no run: say {name}:RUN")
    if name in baselines:
        raise ValueError(
            f"against has {name!r} twice, {baselines[name]!r} and {run!r}: measure the "
            "second in another run of eval"
        )
    baselines[name] = run


def _tokens(each: str, number: str, example: str) -> int:
    """A number of tokens.

    Raises:
        ValueError: it is none.
    """
    if not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise ValueError(f"against {each!r} must name a number of tokens, at least 1, as {example}")
    return int(number)


def _nearest(name: str) -> str:
    (near,) = get_close_matches(name, [word.partition(":")[0] for word in KNOWN], n=1, cutoff=0.0)
    return next(word for word in KNOWN if word.partition(":")[0] == near)
