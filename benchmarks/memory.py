"""Claim: a training step's peak memory is within 15 % of what `--dry-run` says.

A process of its own makes the models, takes a small step so that every library is loaded, and
then the step that is measured: how far its resident memory rises, against the parts that the
step adds (text, activations, logits, casts of weights, gradients). The process gives memory back
as soon as it is freed, so that what is measured is what was needed and not what was held.

    python benchmarks/memory.py --dtype bfloat16
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

from planned import parsed, recipe_of, step_of
from ratio import Ratio, report

from deliberate.train.plan import plan
from deliberate.train.shape import shape_of

TARGET = 1.15
CHILD = "MEASURE_IN_THIS_PROCESS"
GIVING_BACK = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc's settings."""
WAYS = {"kept": (), "recomputed": ("train.recompute=true",)}


def resident() -> int:
    """Bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Measure each way in a process of its own, and print the table and the line."""
    way = sys.argv.pop() if len(sys.argv) > 2 and sys.argv[-2] == CHILD else ""
    if way:
        sys.argv.pop()
    options = parsed(__doc__, batch=8)
    if way:
        _measure(options, WAYS[way])
        return
    ratios = {}
    for name, changes in WAYS.items():
        recipe, _ = recipe_of(options, *changes)
        shape, memory = shape_of(recipe), plan(recipe).memory
        casts = 0 if options.dtype == "float32" else 2 * shape.trained_trunk
        said = casts + 4 * shape.trained
        said += sum(memory[part] for part in memory if part not in {"base", _WEIGHTS})
        command = [sys.executable, *sys.argv, CHILD, name]
        done = subprocess.run(command, env=GIVING_BACK, capture_output=True, text=True, check=True)
        found = int(done.stdout)
        print(f"{name:>12}  {found / 1e6:8.1f} MB measured, {said / 1e6:8.1f} said")
        ratios[name] = Ratio(value=found / said, target=TARGET, at_least=False)
    report("memory", ratios)


_WEIGHTS = "coprocessor and optimizer"


def _measure(options: object, changes: tuple[str, ...]) -> None:
    """Print how far resident memory rises in a step."""
    small, base = recipe_of(options, *changes, "train.batch=1", "objective.anchors=1")
    step_of(small, base)[1]()
    recipe, base = recipe_of(options, *changes)
    _, step = step_of(recipe, base)
    before = resident()
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


if __name__ == "__main__":
    main()
