"""Claim: low-rank weights train at no fewer tokens/s than a full copy, in less memory.

A step is forward, backward and AdamW, as `deliberate train` takes it. Memory is what is needed
beside the base: weights, gradients, moments, and the peak of a step.

    python benchmarks/kinds.py --dtype bfloat16
"""

import argparse
from collections.abc import Callable

from planned import parsed, recipe_of, step_of
from ratio import Ratio, in_turn, report
from resident import asked, rise, rises

from deliberate.core import Base
from deliberate.train import Recipe
from deliberate.train.optimizer import make_optimizer

KINDS = ("lora", "full")
SPEED_TARGET, MEMORY_TARGET = 1.0, 0.9


def training(recipe: Recipe, base: Base) -> Callable[[], None]:
    """A whole step of training, on a coprocessor of its own."""
    objective, step = step_of(recipe, base)
    optimizer = make_optimizer(objective.coprocessor, recipe)

    def train() -> None:
        step()
        optimizer.step()
        optimizer.zero_grad()

    return train


def chosen(options: argparse.Namespace, kind: str) -> tuple[Recipe, Base]:
    """The recipe of a kind, and a base."""
    return recipe_of(options, f"coprocessor.kind={kind}")


def twice(recipe: Recipe, base: Base) -> None:
    """The second step finds the moments that the first one makes."""
    train = training(recipe, base)
    train()
    train()


def main() -> None:
    """Time the kinds in turn, measure each one's memory, and print the table and the line."""
    kind = asked()
    options = parsed(__doc__)
    if kind:
        small, base = recipe_of(options, "coprocessor.kind=soft", "train.batch=1")
        twice(small, base)  # loads what is loaded once
        recipe, base = chosen(options, kind)
        print(rise(lambda: twice(recipe, base)))
        return
    steps = {kind: training(*chosen(options, kind)) for kind in KINDS}
    seconds = in_turn(steps, repeats=options.repeats)
    tokens = options.batch * options.tokens
    speed = {kind: tokens / each for kind, each in seconds.items()}
    memory = rises(KINDS)
    print(f"{'':>6}  {'tokens/s':>9}  {'x full':>7}  {'MB':>8}  {'x full':>7}")
    for kind in KINDS:
        print(
            f"{kind:>6}  {speed[kind]:9.0f}  {speed[kind] / speed['full']:7.2f}  "
            f"{memory[kind] / 1e6:8.1f}  {memory[kind] / memory['full']:7.2f}"
        )
    report(
        "kinds",
        {
            "tokens/s": Ratio(
                value=speed["lora"] / speed["full"], target=SPEED_TARGET, at_least=True
            ),
            "memory": Ratio(
                value=memory["lora"] / memory["full"], target=MEMORY_TARGET, at_least=False
            ),
        },
    )


if __name__ == "__main__":
    main()
