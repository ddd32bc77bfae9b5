"""One coprocessor, one base, one held-out corpus: what do the latents buy?

    passages --base, latents, controls, baseline--> losses --bootstrap--> Report

Source: arXiv:2412.17747, section 3.1 and table 1; the controls and intervals are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import AHEAD_REPORTED, Condition, Losses, measure, passages
from deliberate.core.texts import documents, hold_out
from deliberate.eval.bootstrap import Change, changes, resampled_unit
from deliberate.eval.controls import shuffled, shuffled_but_last


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured; `to_dict` is its JSON."""

    base: Base
    trained: Trained
    soft: Trained | None
    losses: Losses
    data: str
    length: int
    tokens: list[int]
    """The tokens after the anchor that are reported."""

    @property
    def conditions(self) -> list[str]:
        """Rows of the table below the base."""
        return [name for name in self.losses.sums if name != "base"]

    def perplexity(self) -> dict[str, dict[str, float]]:
        """Perplexity of the base and each condition by token ahead."""
        values = {name: self.losses.perplexity(name) for name in self.losses.sums}
        return {name: {str(t): row[t - 1] for t in self.tokens} for name, row in values.items()}

    def changes(self) -> dict[str, dict[str, Change]]:
        """Change against the base of each condition by token ahead, with its interval."""
        rows = {name: changes(self.losses, name) for name in self.conditions}
        return {name: {str(t): row[t - 1] for t in self.tokens} for name, row in rows.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        settings = self.trained.coprocessor.describe()
        return {
            "perplexity": self.perplexity(),
            "change_percent": {
                name: {
                    token: {"value": change.value, "low": change.low, "high": change.high}
                    for token, change in row.items()
                }
                for name, row in self.changes().items()
            },
            "anchors": int(self.losses.anchors.sum()),
            "passages": len(self.losses.anchors),
            "documents": len(self.losses.documents.unique()),
            "resampled": resampled_unit(self.losses),
            "data": self.data,
            "length": self.length,
            "parameters": {
                "base": self.base.num_parameters,
                "latents": self.trained.coprocessor.num_parameters,
                **({"soft": self.soft.coprocessor.num_parameters} if self.soft else {}),
            },
            "setting": settings,
            "fingerprints": {
                "base": self.base.fingerprint,
                "latents": self.trained.fingerprint,
                **({"soft": self.soft.fingerprint} if self.soft else {}),
            },
        }


def evaluate(
    base: Base,
    trained: Trained,
    *,
    soft: Trained | None = None,
    data: str | None = None,
    field: str = "text",
    texts: int = 256,
    anchors: int = 32,
    ahead: int = 32,
    length: int = 512,
    seed: int = 0,
    on_passages: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Measure a coprocessor against its base, controls and a baseline on held-out text.

    Args:
        base: The frozen model.
        trained: The coprocessor.
        soft: A soft embedding with as many latents, as the baseline.
        data: A source as in `deliberate.core.texts`, read whole; none is what the coprocessor's
            own recipe held out.
        field: The key of the text in JSONL files.
        texts: Most passages.
        anchors: Anchors in each passage.
        ahead: Tokens after each anchor.
        length: Most tokens in a passage.
        seed: Of the passages and anchors.
        on_passages: Told of the passages done and to do.

    Raises:
        TextError: the texts cannot be read, or are too short.
        ValueError: a count is below 1, or there is one passage alone, so none to shuffle with.
    """
    for name, value in {"texts": texts, "anchors": anchors, "ahead": ahead}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if base.positions is not None:
        length = min(length, base.positions)
    source, held_out = _held_out(trained, data, field)
    chosen = passages(
        held_out, base.tokenizer, length=length, least=ahead + 2, limit=texts, seed=seed
    )
    if len(chosen) < 2:
        raise ValueError(
            f"{source!r} gives one passage of {length} tokens and another text's latents need two: "
            "give more text, or a smaller length"
        )
    conditions = {
        "latents": Condition(writer=trained.coprocessor),
        "shuffled": Condition(writer=trained.coprocessor, change=shuffled),
    }
    if trained.coprocessor.config.latents > 1:
        conditions["shuffled_but_last"] = Condition(
            writer=trained.coprocessor, change=shuffled_but_last
        )
    if soft is not None:
        conditions["soft"] = Condition(writer=soft.coprocessor)
    losses = measure(
        base,
        conditions,
        chosen,
        anchors=anchors,
        ahead=ahead,
        seed=seed,
        on_batch=lambda done: on_passages(done, len(chosen)),
    )
    return Report(
        base=base,
        trained=trained,
        soft=soft,
        losses=losses,
        data=source,
        length=length,
        tokens=[token for token in AHEAD_REPORTED if token <= ahead],
    )


def _held_out(trained: Trained, data: str | None, field: str) -> tuple[str, Any]:
    """The source's name and its documents."""
    if data is not None:
        return data, documents(data, split="validation", field=field)
    recipe = trained.recipe.get("data", {})
    source, field = recipe.get("train", "stdlib"), recipe.get("field", "text")
    if recipe.get("validation"):
        return recipe["validation"], documents(
            recipe["validation"], split="validation", field=field
        )
    texts = documents(source, split="train", field=field)
    return f"{source} (held out)", hold_out(texts, source, field=field)[1]
