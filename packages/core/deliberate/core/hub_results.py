"""Benchmark results in the Hub's own form, `.eval_results/NAME.yaml`.

bench.json --entries--> one file a benchmark whose data set keeps a table of results on the Hub

Source: https://huggingface.co/docs/hub/eval-results
"""

from typing import Any

FOLDER = ".eval_results"

KEPT = {"gsm8k": ("openai/gsm8k", "gsm8k")}
"""Of our benchmarks those that the Hub keeps results of: the data set, and the task within it."""


def entries(bench: dict[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """What can be told in the Hub's form, by file name.

    What was asked of a part of the questions, or of files of one's own, is not comparable with
    what others have measured, and left out.

    Args:
        bench: As `bench.json` holds it.
    """
    settings = {} if bench is None else bench["settings"]
    if bench is None or settings.get("data") != "Hub" or settings.get("limit") is not None:
        return {}
    return {
        f"{FOLDER}/{name}.yaml": [
            {
                "dataset": {"id": KEPT[name][0], "task_id": KEPT[name][1]},
                "value": round(one["latents"], 2),
                "notes": (
                    f"percent, {one['score']} ({one.get('filter')}), {one['shots']} shots, with "
                    f"latents; the base alone has {one['base']:.2f}; lm-evaluation-harness "
                    f"{settings['harness']}"
                ),
            }
        ]
        for name, one in bench["sets"].items()
        if name in KEPT
    }
