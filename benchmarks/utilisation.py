"""Claim: a training step uses at least half of the rate that matrix products reach.

FLOPs are those that `--dry-run` counts, the time is of forward and backward with the gradients
of every weight, and the rate is that of one large square product in the same dtype, in turn.

    python benchmarks/utilisation.py --dtype bfloat16
"""

import torch
from planned import parsed, recipe_of, step_of
from ratio import Ratio, in_turn, report

from deliberate.train.plan import plan

TARGET = 0.5
SIDE = 2048
SHOWN = 8
"""Lines of the profile."""


def main() -> None:
    """Time the step and the product in turn, print where the step's time goes, and the line."""
    options = parsed(__doc__)
    recipe, base = recipe_of(options)
    _, step = step_of(recipe, base)
    matrix = torch.randn(SIDE, SIDE, dtype=getattr(torch, options.dtype))
    runs = {"step": step, "product": lambda: torch.mm(matrix, matrix)}
    seconds = in_turn(runs, repeats=options.repeats)
    flops = plan(recipe).flops
    rate = sum(flops.values()) / seconds["step"]
    peak = 2 * SIDE**3 / seconds["product"]
    for part, count in flops.items():
        print(f"{part:>12}  {count / 1e9:8.1f} GFLOP")
    print(f"{'step':>12}  {seconds['step'] * 1e3:8.1f} ms  {rate / 1e9:6.0f} GFLOP/s")
    print(f"{'product':>12}  {seconds['product'] * 1e3:8.1f} ms  {peak / 1e9:6.0f} GFLOP/s")
    with torch.profiler.profile() as profile:
        step()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    for event in events[:SHOWN]:
        print(f"{event.self_cpu_time_total / whole:12.1%}  {event.key}")
    report("utilisation", {"ratio": Ratio(value=rate / peak, target=TARGET, at_least=True)})


if __name__ == "__main__":
    main()
