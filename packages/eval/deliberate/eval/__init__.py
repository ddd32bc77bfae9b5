"""Measuring a coprocessor: perplexity by token ahead, controls, intervals, the report."""

from typing import TYPE_CHECKING

from deliberate.core.lazy_names import lazily

if TYPE_CHECKING:
    from deliberate.eval.evaluate import evaluate, evaluate_together
    from deliberate.eval.report import Report
    from deliberate.eval.sample import Sample
    from deliberate.eval.subject import Subject

__all__ = ["Report", "Sample", "Subject", "evaluate", "evaluate_together"]

lazily(
    __name__,
    {
        "evaluate": "evaluate",
        "evaluate_together": "evaluate",
        "Report": "report",
        "Sample": "sample",
        "Subject": "subject",
    },
)
