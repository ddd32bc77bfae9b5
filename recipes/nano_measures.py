"""What a model that is to be `nano` can do: its losses by part, and the problems that it solves.

rows of `pack_asked` --> losses, seen and held out
held-out problems --> percent answered at once
"""

from collections import defaultdict
from typing import Any

import torch
from nano_corpus import Mixture
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from deliberate.core.base import Base
from deliberate.eval.problem_set import ProblemSet
from deliberate.eval.solve import solve

MEASURED = 64
"""Rows of each part that a loss is measured on."""


def loss_of(model: LlamaForCausalLM, rows: Tensor, *, asked: float) -> Tensor:
    """The mean loss of rows of `pack_asked`, a question's tokens counted `asked` times."""
    token_ids = torch.where(rows < 0, ~rows, rows).long()
    logits = model(input_ids=token_ids).logits[:, :-1].flatten(0, 1)
    losses = functional.cross_entropy(logits, token_ids[:, 1:].flatten(), reduction="none")
    counts = torch.where(rows[:, 1:].flatten() < 0, asked, 1.0)
    return (losses * counts).sum() / counts.sum()


@torch.no_grad()
def losses(
    model: LlamaForCausalLM, corpus: dict[str, Any], mixture: Mixture
) -> dict[str, dict[str, float]]:
    """On rows that were read and on rows that were held out, by part and of the mixture."""
    found: dict[str, dict[str, float]] = {}
    whole = sum(mixture.weights.values())
    for split, parts in (("train", mixture.rows), ("validation", corpus["validation"])):
        each = {}
        for part, rows in parts.items():
            some = rows[:MEASURED].split(1)
            each[part] = sum(loss_of(model, row, asked=1.0).item() for row in some) / len(some)
        share = {part: loss * mixture.weights[part] / whole for part, loss in each.items()}
        found[split] = {**each, "mixture": sum(share.values())}
    found["gap_percent"] = {
        part: 100 * (found["validation"][part] / loss - 1) for part, loss in found["train"].items()
    }
    return found


def solved(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, count: int = 100, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Percent of held-out problems that are answered at once, by family and number of steps.

    Args:
        model: Can learn on afterwards.
        tokenizer: Its tokenizer.
        count: Problems of each family and number of steps.
        seed: Of the problems; 0 asks what `deliberate eval --problems` asks.
    """
    asked = ProblemSet(count=count, seed=seed).problems()
    base = Base(model=model, tokenizer=tokenizer, id="nano")
    right = solve(base, {}, asked, batch=64)["base"]
    model.requires_grad_(requires_grad=True).train()
    cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for problem, each in zip(asked, right, strict=True):
        for cell in ((problem.family, str(problem.steps)), (problem.family, "all"), ("all", "all")):
            cells[cell].append(each)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (family, steps), each in cells.items():
        found[family][steps] = round(100 * sum(each) / len(each), 1)
    return found
