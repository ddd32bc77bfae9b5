"""What the page's numbers say of the paper's claims, and of those that others made of it.

results of some runs, intervals --> claim, the paper's number, ours, where it holds
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from page_parts import MISSING, Page

from deliberate.eval.report_folder.blocks import Block, Cell, Table
from deliberate.eval.report_folder.numbers import known, signed

TOKENS = ("1", "2", "4", "8", "16", "32")
LATER = TOKENS[1:]
"""Of what does not know the text and so can do nothing for token 1."""

LATENTS = {"4": "full-4", "8": "full-8", "16": "full-16", "32": "full-32"}
AHEAD = {"4": "full-4", "8": "ahead-8", "16": "ahead-16", "32": "ahead-32"}
"""Runs by number of latents, and by tokens ahead in training."""

NOT_TESTED = "not tested"
LEVEL = "not tested; nearly level in arXiv:2510.00494"
AGAINST = (
    ("What the latents say matters: they beat another text's",
     NOT_TESTED, "full-16", "controls-16", "shuffled"),
    ("The same, where the loss leaves token 1 out",
     NOT_TESTED, "full-4-behind", "controls-behind", "shuffled"),
    ("They beat a pause token",
     "perplexity 10.60 against 11.63 (table 3)", "full-16", "controls-16", "pause"),
    ("The same, where the pause token alone leaves token 1 out of its loss",
     NOT_TESTED, "full-4", "controls-behind", "pause"),
    ("They beat a soft embedding of as many latents",
     LEVEL, "full-16", "controls-16", "soft"),
    ("The same, where both leave token 1 out of their loss",
     LEVEL, "full-4-behind", "controls-behind", "soft"),
    ("The same, where the soft embedding alone leaves it out",
     LEVEL, "full-4", "controls-behind", "soft"),
)  # fmt: skip
"""Claim, what the paper has, run, measure, and what the latents are compared with."""

Changes = Mapping[str, Mapping[str, Any]]
"""By token ahead: `value`, `low`, `high`."""


def claims(page: Page) -> list[Block]:
    """A row a claim."""
    rows = [[Cell(text=part) for part in row] for row in _rows(page)]
    return [
        Table(
            caption="What holds at this scale",
            head=["Claim", "In the paper", "Here", "Holds here"],
            rows=rows,
            words=True,
            note="Changes of perplexity, latents against what the claim names, paired where it is "
            "not the base. It holds at the tokens named where the 95 % interval excludes zero. The "
            "paper's base is Gemma 2 2B, about 4,800 times as large, and it trained far longer.",
        )
    ]


def _rows(page: Page) -> Iterator[Sequence[str]]:
    central = _changed(page, "full-16")
    yield (
        "Latents lower perplexity",
        f"8 latents: {signed(-1.53)} % at token 1, {signed(-0.55)} % at 32 (table 1)",
        _said(central, ("1", "32"), "16 latents: "),
        _where(central, TOKENS),
    )
    yield (
        "More latents lower it more",
        f"8, 16, 32, 64: {', '.join(map(signed, (-1.53, -2.48, -3.28, -3.94)))} % at token 1",
        *_grown(page, LATENTS, ("1", "16")),
    )
    yield (
        "A longer look-ahead in training helps later tokens and hurts earlier ones",
        "said without numbers; GSM8K is best with 16 tokens (table 6)",
        *_grown(page, AHEAD, ("1", "32")),
    )
    for claim, paper, run, measure, other in AGAINST:
        found = page.result(run, measure)
        changes = found["latents_against"][other] if found else None
        yield claim, paper, _said(changes, ("2", "16"), f"{run}: "), _where(changes, LATER)
    continued = _changed(page, "continued")
    yield (
        "Training the base itself as long changes nothing",
        "negligible differences (ICML version)",
        _said(continued, ("1", "32"), "the base trained on: "),
        _contradicted(continued),
    )
    yield (
        "A base with as many weights as base and coprocessor does less than latents",
        NOT_TESTED,
        *_beside(page, "full-4", "bigger"),
    )
    yield (
        "Low-rank weights do less than a full copy",
        "GSM8K 23.4 and 24.0 to 26.8 % (table 5)",
        *_beside(page, "full-4", "lora-32"),
    )
    yield (
        "A network from scratch does less than a full copy",
        "GSM8K 25.8 to 26.8 % (table 5)",
        *_beside(page, "full-4", "scratch-4"),
    )
    yield (
        "Latents that arrive late still help",
        "GSM8K 21.4 alone, 31.4 at once, 27.2, 27.1, 26.9 % 1 to 3 tokens late (table 8)",
        *_late(page),
    )
    yield (
        "Latents beat a chain of thought",
        "GSM8K 26.8 to 23.2 % (table 4)",
        *_thought(page),
    )
    yield (
        "They solve as many problems as the base trained on as long",
        NOT_TESTED,
        *_trained_on(page),
    )
    yield (
        "Latents solve more problems, without training for the task",
        "GSM8K 21.4 to 31.4 % with 64 latents (table 2)",
        *_solved(page),
    )


def _changed(page: Page, run: str) -> Changes | None:
    found = page.result(run, "texts")
    return found["change_percent"]["latents"] if found else None


def _said(changes: Changes | None, tokens: Sequence[str], what: str = "") -> str:
    """Values at some tokens."""
    if changes is None:
        return MISSING
    each = [f"{signed(changes[token]['value'])} % at token {token}" for token in tokens]
    return what + ", ".join(each)


def _where(changes: Changes | None, tokens: Sequence[str]) -> str:
    """At which tokens a change is below zero with its interval, and at which above."""
    if changes is None:
        return MISSING
    there = {token: changes[token] for token in tokens if known(changes[token]["low"])}
    below = [token for token, each in there.items() if each["high"] < 0]
    above = [token for token, each in there.items() if each["low"] > 0]
    rest = [token for token in there if token not in (*below, *above)]
    if len(below) == len(there):
        return f"yes, at tokens {', '.join(below)}"
    parts = [(below, "yes at"), (rest, "no difference to be told at"), (above, "the contrary at")]
    return "; ".join(f"{word} {', '.join(some)}" for some, word in parts if some)


def _grown(page: Page, runs: Mapping[str, str], shown: Sequence[str]) -> tuple[str, str]:
    """Changes at two tokens along some runs, and at which tokens they fall with each."""
    found = {name: _changed(page, run) for name, run in runs.items()}
    there = {name: each for name, each in found.items() if each is not None}
    if len(there) < len(runs):
        return MISSING, MISSING
    said = "; ".join(
        f"{', '.join(signed(each[token]['value']) for each in there.values())} % at token {token}"
        for token in shown
    )
    falling = [
        token
        for token in TOKENS
        if all(a[token]["value"] > b[token]["value"] for a, b in pairwise(there.values()))
    ]
    fell = f"at {', '.join(falling)}" if falling else "at no token"
    return f"{', '.join(there)}: {said}", f"lower with each step {fell} (not paired)"


def _beside(page: Page, run: str, other: str) -> tuple[str, str]:
    """Two runs' changes, and where their intervals are apart."""
    first, second = _changed(page, run), _changed(page, other)
    if first is None or second is None:
        return MISSING, MISSING
    said = f"{_said(second, ('1', '16'), f'{other}: ')}; {_said(first, ('1', '16'), f'{run}: ')}"
    less = [token for token in TOKENS if second[token]["low"] > first[token]["high"]]
    more = [token for token in TOKENS if second[token]["high"] < first[token]["low"]]
    parts = [(less, "less at"), (more, "more at")]
    apart = "; ".join(f"{word} {', '.join(some)}" for some, word in parts if some)
    if len(less) + len(more) == len(TOKENS):
        return said, apart
    return said, f"{apart}; elsewhere intervals overlap" if apart else "intervals overlap"


def _late(page: Page) -> tuple[str, str]:
    """The first token after latents that arrive late, by delay."""
    found = page.result("late-2", "late")
    if found is None:
        return MISSING, MISSING
    first = {
        delay: each["change_percent"]["latents"]["1"] for delay, each in found["delays"].items()
    }
    late = {delay: each for delay, each in first.items() if delay != "0"}
    said = ", ".join(signed(each["value"]) for each in late.values())
    helped = [delay for delay, each in late.items() if each["high"] < 0]
    return (
        f"trained with a delay of 2: {said} % at the first token, {', '.join(late)} tokens late",
        f"yes, {', '.join(helped)} tokens late" if helped else "no",
    )


def _thought(page: Page) -> tuple[str, str]:
    """Latents against the base's own chain of thought of as many tokens."""
    found = page.result("solve-32", "chains")
    if found is None:
        return MISSING, MISSING
    total = found["total"]
    share = {name: total["percent"][name]["value"] for name in ("base", "latents", "cot")}
    apart = total["latents_against"]["cot"]
    return (
        f"made problems, 32 latents trained on such: {share['latents']:.1f} to {share['cot']:.1f} "
        f"% with as many tokens; the base at once {share['base']:.1f} %",
        "yes" if apart["low"] > 0 else "no difference to be told",
    )


def _contradicted(changes: Changes | None) -> str:
    if changes is None:
        return MISSING
    lower = all(changes[token]["high"] < 0 for token in TOKENS)
    return "no: it gains at every token" if lower else _where(changes, TOKENS)


def _trained_on(page: Page) -> tuple[str, str]:
    """Problems solved with latents, and by the base itself trained on the same."""
    found, other = page.result("solve-8", "reasoning"), page.result("solve-continued", "answers")
    if found is None or other is None:
        return MISSING, MISSING
    ours, theirs = (each["total"]["against_base"]["latents"] for each in (found, other))
    said = (
        f"made problems, both trained on such: {signed(ours['value'])} and "
        f"{signed(theirs['value'])} points"
    )
    return said, "no" if theirs["low"] > ours["high"] else "intervals overlap"


def _solved(page: Page) -> tuple[str, str]:
    """Problems solved with 8 latents that learned such problems, and by which of them."""
    found = [page.result(run, "reasoning") for run in ("solve-8", "solve-8-longer")]
    said, holds = ["made problems, latents trained on such"], ["not tested without training"]
    for steps, each in zip((1500, 6000), found, strict=True):
        if each is None:
            return MISSING, MISSING
        total = each["total"]
        gain, last = total["against_base"]["latents"], total["latents_against"]["shuffled_but_last"]
        share = {name: total["percent"][name]["value"] for name in ("base", "latents")}
        said.append(
            f"{share['base']:.1f} to {share['latents']:.1f} % after {steps:,} steps, against all "
            f"but the last of another question {signed(last['value'])} points"
        )
        more = "more are solved" if gain["low"] > 0 else "no more are solved"
        which = "other latents count too" if last["low"] > 0 else "the last latent does it"
        holds.append(f"after {steps:,} steps {more}, and {which}")
    return f"{said[0]}: {'; '.join(said[1:])}", "; ".join(holds)
