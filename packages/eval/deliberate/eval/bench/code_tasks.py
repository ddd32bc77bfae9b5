"""The tasks whose answers are programs, with our own way of running them.

The harness's own task files fetch a metric from the Hub when they are loaded, and that metric runs
the programs with nothing held back. Prompts, stops and filters stay the harness's.
"""

from typing import Any

from datasets import Dataset

from deliberate.eval.bench.sandbox import passes

_SHOWN = (2, 3, 4)  # task_ids of MBPP's three examples


def pass_at_1(references: list[str], predictions: list[Any]) -> float:
    """Whether the first program written for a question passes its tests.

    Args:
        references: The tests, one text.
        predictions: The program, or a list with the program.
    """
    program = predictions[0] if isinstance(predictions[0], str) else predictions[0][0]
    return float(passes(f"{program}\n{references[0]}"))


def overrides(task: str) -> dict[str, Any]:
    """What replaces every function of the harness's file for a task that runs code."""
    metric = {"metric": pass_at_1, "aggregation": "mean", "higher_is_better": True}
    changed: dict[str, Any] = {"metric_list": [metric]}
    if task == "humaneval":
        join = {"function": "custom", "filter_fn": _with_prompt}
        changed["filter_list"] = [{"name": "create_test", "filter": [join]}]
    else:
        changed["fewshot_config"] = {
            "sampler": "first_n",
            "split": "prompt",
            "process_docs": _shown,
        }
    return changed


def _with_prompt(responses: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """HumanEval's answers go on from the prompt."""
    pairs = zip(responses, docs, strict=True)
    return [[doc["prompt"] + text for text in texts] for texts, doc in pairs]


def _shown(rows: Dataset) -> list[dict[str, Any]]:
    """MBPP's examples, marked as such for the harness's template."""
    return [{**row, "is_fewshot": True} for row in rows if row["task_id"] in _SHOWN]
