"""Claim: a training step's peak memory is within 15 % of what `--dry-run` says.

A process of its own makes the models, takes a small step so that every library is loaded, and
then the step that is measured: how far its resident memory rises, against the parts that the
step adds (text, activations, logits, casts of weights, gradients).

    python benchmarks/memory.py --dtype bfloat16
"""

from planned import parsed, recipe_of, step_of
from ratio import Ratio, report
from resident import asked, rise, rises

from deliberate.train.plan import plan
from deliberate.train.shape import shape_of

TARGET = 1.15
WAYS = {"kept": (), "recomputed": ("train.recompute=true",)}


def main() -> None:
    """Measure each way in a process of its own, and print the table and the line."""
    way = asked()
    options = parsed(__doc__, batch=8)
    if way:
        _measure(options, WAYS[way])
        return
    ratios = {}
    for name, found in rises(WAYS).items():
        recipe, _ = recipe_of(options, *WAYS[name])
        shape, memory = shape_of(recipe), plan(recipe).memory
        casts = 0 if options.dtype == "float32" else 2 * shape.trained_trunk
        said = casts + 4 * shape.trained
        said += sum(memory[part] for part in memory if part not in _WEIGHTS)
        print(f"{name:>12}  {found / 1e6:8.1f} MB measured, {said / 1e6:8.1f} said")
        ratios[name] = Ratio(value=found / said, target=TARGET, at_least=False)
    report("memory", ratios)


_WEIGHTS = {"base", "coprocessor", "optimizer"}


def _measure(options: object, changes: tuple[str, ...]) -> None:
    """Print how far resident memory rises in a step."""
    small, base = recipe_of(options, *changes, "train.batch=1", "objective.anchors=1")
    step_of(small, base)[1]()
    recipe, base = recipe_of(options, *changes)
    _, step = step_of(recipe, base)
    print(rise(step))


if __name__ == "__main__":
    main()
