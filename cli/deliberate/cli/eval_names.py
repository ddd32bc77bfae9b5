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


def unknown(what: str, name: str, nearest: str, known: Sequence[str]) -> str:
    """What is said of a name that is not known.

    Args:
        what: What it should have been the name of.
        name: As it was typed.
        nearest: The known one that it is most like.
        known: All of them.
    """
    return f"no {what} {name!r}, the nearest is {nearest!r}: known are {', '.join(known)}"


def families(named: str) -> tuple[str, ...]:
    """Families of problems with commas between them, or all.

    Raises:
        ValueError: one of them is not known.
    """
    found = _known("family of problems", named, (*FAMILIES, ALL))
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


def steps(named: str) -> tuple[int, ...]:
    """`1-6`, `3` or `1,2,4`.

    Raises:
        ValueError: it is none of these.
    """
    first, dash, last = named.partition("-")
    try:
        if dash:
            found = tuple(range(int(first), int(last) + 1))
        else:
            found = tuple(int(each) for each in named.split(","))
    except ValueError:
        found = ()
    if not found:
        raise ValueError(f"steps must be like 1-6, 3 or 1,2,4, got {named!r}")
    return found


def _known(what: str, named: str, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(each.strip() for each in named.split(","))
    for name in found:
        if name not in known:
            (near,) = get_close_matches(name.lower(), known, n=1, cutoff=0.0)
            raise ValueError(unknown(what, name, near, known))
    return found
