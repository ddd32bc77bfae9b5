"""Names and numbers that options of `deliberate eval` list, checked before anything is loaded.

What is known repeats what the packages define, for importing these takes seconds; a test holds the
two to be the same.
"""

from collections.abc import Sequence
from difflib import get_close_matches

CONTROLS = ("shuffled", "shuffled_but_last", "random", "zero", "reversed")
"""`deliberate.eval.controls.CONTROLS`."""

FAMILIES = ("symbols", "words", "comparison", "sorting", "variables")
"""`deliberate.core.problems.FAMILIES`."""

PAPER = "paper"
"""All benchmarks."""

BENCHMARKS = (
    "mmlu", "gsm8k", "drop", "arc_easy", "arc_challenge", "math", "winogrande", "piqa", "siqa",
    "hellaswag", "boolq", "mbpp", "agieval", "triviaqa", "nq_open", "humaneval", "bbh",
)  # fmt: skip
"""`deliberate.eval.bench.benchmarks.BENCHMARKS`."""

ALL = "all"
"""All families."""

MOST_STEPS = 12
"""`deliberate.core.problems.MOST_STEPS`."""

MOST_SEED = 2**32 - 1
"""`deliberate.eval.sample.MOST_SEED`."""

LIMITS: dict[str, tuple[int, int | None]] = {
    "texts": (1, None),
    "anchors": (1, None),
    "ahead": (1, None),
    "seed": (0, MOST_SEED),
    "count": (2, None),
    "shots": (0, None),
    "prompt_tokens": (1, None),
    "decoded_tokens": (1, None),
    "repeats": (1, None),
}
"""Least and most of options, as `Sample`, `ProblemSet` and `CostSetting` check them again."""

EMBEDDED_TEXTS = ("stdlib", "installed", "problems")
"""`deliberate.core.sources.EMBEDDED`."""

EMBEDDED_RUNS = ("nano", "nano-16", "nano-soft")
"""`deliberate.core.checkpoint.EMBEDDED_FOLDERS`."""

REPORT_FILE = "results.json"
"""`deliberate.eval.results.FILE`."""

BENCH_FILE = "bench.json"
"""`deliberate.eval.bench.benchmarks.RESULTS`."""


def unknown(what: str, name: str, nearest: str, known: Sequence[str]) -> str:
    """What is said of a name that is not known.

    Args:
        what: What it should have been the name of.
        name: As it was typed.
        nearest: The known one that it is most like.
        known: All of them.
    """
    return f"no {what} {name!r}, the nearest is {nearest!r}: known are {', '.join(known)}"


def listed(what: str, named: str) -> tuple[str, ...]:
    """Names with commas between them.

    Args:
        what: What each is the name of.
        named: As it was typed.

    Raises:
        ValueError: one of them is empty.
    """
    found = tuple(each.strip() for each in named.split(","))
    if not any(found):
        raise ValueError(f"{named!r} names nothing: name a {what}, or leave the option out")
    if not all(found):
        raise ValueError(f"{named!r} names nothing beside one of its commas: leave that comma out")
    return found


def families(named: str) -> tuple[str, ...]:
    """Families of problems with commas between them, or all.

    Raises:
        ValueError: one of them is not known.
    """
    also = "; or name a file of questions and answers"
    found = _known("family of problems", named, (*FAMILIES, ALL), also=also)
    return FAMILIES if ALL in found else found


def check_benchmarks(named: str) -> None:
    """See that benchmarks, with commas between them, are known.

    Raises:
        ValueError: one of them is not.
    """
    _known("benchmark", named, (PAPER, *BENCHMARKS))


def delays(named: str) -> tuple[int, ...]:
    """Numbers of tokens with commas between them.

    Raises:
        ValueError: one of them is none, or comes twice.
    """
    parts = [each.strip() for each in named.split(",")]
    found = tuple(int(each) for each in parts if each.isascii() and each.isdigit())
    if len(found) < len(parts) or len({*found}) < len(found):
        raise ValueError(
            f"delay must be a number of tokens, or several as 0,1,2,8, each once, got {named!r}"
        )
    return found


def check_number(name: str, value: int) -> None:
    """See that a number is within `LIMITS`.

    Args:
        name: Of its option, as Python writes it.
        value: As it was given.

    Raises:
        ValueError: it is not.
    """
    least, most = LIMITS[name]
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")


def steps(named: str) -> tuple[int, ...]:
    """`1-6`, `3` or `1,2,4`.

    Raises:
        ValueError: it is none of these, or has more steps than problems are made with.
    """
    parts = named.split("-") if "-" in named else named.split(",")
    try:
        numbers = [int(each) for each in parts]
    except ValueError:
        numbers = []
    wrong = [number for number in numbers if not 1 <= number <= MOST_STEPS]
    if wrong:
        raise ValueError(f"steps must be from 1 to {MOST_STEPS}, got {wrong[0]}")
    if "-" in named:
        numbers = [*range(numbers[0], numbers[1] + 1)] if len(numbers) == 2 else []
    if not numbers:
        raise ValueError(f"steps must be like 1-6, 3 or 1,2,4, got {named!r}")
    return tuple(numbers)


def _known(what: str, named: str, known: Sequence[str], *, also: str = "") -> tuple[str, ...]:
    found = listed(what, named)
    for name in found:
        if name not in known:
            (near,) = get_close_matches(name.lower(), known, n=1, cutoff=0.0)
            raise ValueError(unknown(what, name, near, known) + also)
    return found
