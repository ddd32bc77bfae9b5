"""Claim: losses through the head take a twentieth of all logits' memory, in as good as their time.

    ours   `token_losses`: a chunk of logits at a time, its gradient taken at once
    torch  `torch.nn.functional.linear_cross_entropy`, in the chunks that it chooses
    plain  one matrix of logits, `cross_entropy`, and autograd's backward: the peer

Forward and backward to the last hidden states of a frozen head. torch's function is shown for
comparison: it takes a plain matrix alone, and neither softcap nor scale.

    python benchmarks/head.py --vocabulary 256000 --dtype bfloat16 --repeats 2
"""

import argparse
from collections.abc import Callable

import torch
from random_base import random_base
from ratio import Ratio, in_turn, report
from resident import asked, rise, rises
from torch import Tensor
from torch.nn.functional import cross_entropy, linear_cross_entropy

from deliberate.core import Base
from deliberate.core.ahead_loss import token_losses

TIME_TARGET, MEMORY_TARGET = 1.1, 0.05
FEW = 33
"""Targets of a first run, which loads what is loaded once."""


def plain(base: Base, hidden: Tensor, targets: Tensor) -> Tensor:
    """From one matrix of logits."""
    return cross_entropy(base.logits(hidden).float(), targets, reduction="none")


def fused(base: Base, hidden: Tensor, targets: Tensor) -> Tensor:
    """By torch's own chunks."""
    weight = base.model.get_output_embeddings().weight
    chunks = torch.nn.LinearCrossEntropyOptions()
    return linear_cross_entropy(hidden, weight, targets, reduction="none", options=chunks)


WAYS = {"ours": token_losses, "torch": fused, "plain": plain}


def made(options: argparse.Namespace) -> tuple[Base, Tensor, Tensor]:
    """A base of one layer, last hidden states and targets."""
    dtype = getattr(torch, options.dtype)
    base = random_base(
        hidden=options.hidden, layers=1, vocabulary=options.vocabulary, positions=8, dtype=dtype
    )
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(options.targets, options.hidden, generator=generator).to(dtype)
    targets = torch.randint(options.vocabulary, (options.targets,), generator=generator)
    return base, hidden.requires_grad_(), targets


def ran(
    way: Callable[[Base, Tensor, Tensor], Tensor], base: Base, hidden: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses, and their sum's gradient."""
    losses = way(base, hidden, targets)
    return losses.detach(), torch.autograd.grad(losses.sum(), hidden)[0]


def main() -> None:
    """Compare the ways, time them in turn, measure each one's memory, print table and line."""
    way = asked()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--targets", type=int, default=2048)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    options = parser.parse_args()
    if way:
        base, *rows = made(options)
        ran(WAYS[way], base, *(each[:FEW] for each in rows))
        print(rise(lambda: ran(WAYS[way], base, *rows)))
        return
    memory = rises(WAYS)
    inputs = made(options)
    results = {name: ran(each, *inputs) for name, each in WAYS.items()}
    seconds = in_turn(
        {name: lambda each=each: ran(each, *inputs) for name, each in WAYS.items()},
        repeats=options.repeats,
    )
    wanted_losses, wanted = (each.float() for each in results["plain"])
    print(f"{'':>6}  {'ms':>9}  {'x plain':>8}  {'MB':>8}  {'x plain':>8}  loss off, gradient off")
    for name, (losses, gradient) in results.items():
        off = float((losses.float() - wanted_losses).abs().max())
        bent = float((gradient.float() - wanted).norm() / wanted.norm())
        print(
            f"{name:>6}  {seconds[name] * 1e3:9.1f}  {seconds[name] / seconds['plain']:8.2f}  "
            f"{memory[name] / 1e6:8.1f}  {memory[name] / memory['plain']:8.3f}  "
            f"{off:.0e}, {bent:.0e}"
        )
    parts = {"time": (seconds, TIME_TARGET), "memory": (memory, MEMORY_TARGET)}
    report(
        "head",
        {
            part: Ratio(value=found["ours"] / found["plain"], target=target, at_least=False)
            for part, (found, target) in parts.items()
        },
    )


if __name__ == "__main__":
    main()
