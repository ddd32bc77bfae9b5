"""where latents helped and hurt most: the text before, and how probable each token ahead was."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.eval.report_folder.blocks import Example, Examples, Number, Section, Token
from deliberate.eval.report_folder.numbers import TIMES, plain, signed
from deliberate.eval.report_folder.words import runs_of, titled

SORTS = {"helped": "where latents helped most", "hurt": "where latents hurt most"}

STRONGEST = 4
"""Steps of a tint to each side."""

STEP = 2.0
"""How many times as probable a token is, for one more step of its tint."""

LEAST = 1e-12
"""Stands for a probability of 0, of which there is no logarithm."""


def examples(results: Mapping[str, Any]) -> list[Section]:
    """The section of examples."""
    blocks = []
    runs = runs_of(results, "perplexity")
    for name, report in runs:
        run = name if len(runs) > 1 else ""
        shown = report.get("examples") or {}
        for sort, heading in SORTS.items():
            if shown.get(sort):
                found = [_example(each) for each in shown[sort]]
                blocks.append(Examples(heading=titled(run, heading), examples=found))
    return [Section(name="examples", heading="Examples", blocks=blocks)]


def _example(found: Mapping[str, Any]) -> Example:
    where = f"document {found['document']}" if found.get("document") is not None else ""
    gain = f"{signed(found.get('gain_nats'))} nats"
    parts = [gain, str(found.get("domain") or ""), where]
    return Example(
        heading=" · ".join(part for part in parts if part),
        before=str(found.get("before", "")),
        tokens=_tokens(found.get("tokens") or []),
    )


def _tokens(found: Sequence[Mapping[str, Any]]) -> list[Token]:
    return [_token(str(each["text"]), each["base"], each["latents"]) for each in found]


def _token(text: str, base: Number, latents: Number) -> Token:
    ratio = max(latents, LEAST) / max(base, LEAST)
    steps = math.trunc(math.log(ratio) / math.log(STEP))
    return Token(
        text=text,
        base=base,
        latents=latents,
        tint=max(-STRONGEST, min(STRONGEST, steps)),
        times=f"{TIMES} {plain(ratio)}" if ratio >= 1 else f"÷ {plain(1 / ratio)}",
    )
