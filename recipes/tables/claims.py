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

NUMBERS = ("full-4", "full-8", "full-16", "full-32")

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
            note="Changes of perplexity, latents against what the claim names, paired where it is "
            "not the base. It holds at the tokens named where the 95 % interval excludes zero. The "
            "paper's base is Gemma 2 2B, about 4,800 times as large, and it trained far longer.",
        )
    ]


def _rows(page: Page) -> Iterator[Sequence[str]]:
    controls = page.result("full-16", "controls-16")
    against = controls["latents_against"] if controls else {}
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
        *_grown(page),
    )
    yield (
        "What the latents say matters: they beat another text's",
        "not tested",
        _said(against.get("shuffled"), ("2", "16")),
        _where(against.get("shuffled"), LATER),
    )
    yield (
        "They beat a pause token",
        "perplexity 10.60 against 11.63 (table 3)",
        _said(against.get("pause"), ("2", "16")),
        _where(against.get("pause"), LATER),
    )
    yield (
        "They beat a soft embedding of as many latents",
        "not tested; nearly level in arXiv:2510.00494",
        _said(against.get("soft"), ("2", "16")),
        _where(against.get("soft"), LATER),
    )
    continued = _changed(page, "continued")
    yield (
        "Training the base itself as long changes nothing",
        "negligible differences (ICML version)",
        _said(continued, ("1", "32"), "the base trained on: "),
        _contradicted(continued),
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


def _grown(page: Page) -> tuple[str, str]:
    """Changes at two tokens by number of latents, and at which tokens they fall with each."""
    found = [(run, _changed(page, run)) for run in NUMBERS]
    there = [(run.removeprefix("full-"), each) for run, each in found if each is not None]
    if len(there) < len(NUMBERS):
        return MISSING, MISSING
    said = "; ".join(
        f"{', '.join(signed(each[token]['value']) for _, each in there)} % at token {token}"
        for token in ("1", "16")
    )
    falling = [
        token
        for token in TOKENS
        if all(a[token]["value"] > b[token]["value"] for (_, a), (_, b) in pairwise(there))
    ]
    fell = f"at {', '.join(falling)}" if falling else "at no token"
    return f"{', '.join(name for name, _ in there)}: {said}", f"{fell}, by each step (not paired)"


def _contradicted(changes: Changes | None) -> str:
    if changes is None:
        return MISSING
    lower = all(changes[token]["high"] < 0 for token in TOKENS)
    return "no: it gains at every token" if lower else _where(changes, TOKENS)


def _solved(page: Page) -> tuple[str, str]:
    """Problems solved with 8 latents that learned such problems, and by which of them."""
    found = page.result("solve-8", "reasoning")
    if found is None:
        return MISSING, MISSING
    total = found["total"]
    gain, last = total["against_base"]["latents"], total["latents_against"]["shuffled_but_last"]
    share = {name: total["percent"][name]["value"] for name in ("base", "latents")}
    said = (
        f"made problems, latents trained on such: {share['base']:.1f} to {share['latents']:.1f} %; "
        f"against all but the last of another question {signed(last['value'])} points"
    )
    more = "more are solved" if gain["low"] > 0 else "no more are solved"
    which = "all latents count" if last["low"] > 0 else "the last latent does it"
    return said, f"not tested without training; {more}, and {which}"
