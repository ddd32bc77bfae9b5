"""Measuring a coprocessor: perplexity by token ahead, controls, intervals, the report."""

from deliberate.eval.evaluate import Report, evaluate

__all__ = ["Report", "evaluate"]
