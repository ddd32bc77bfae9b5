"""Measuring a coprocessor: perplexity by token ahead, controls, intervals, the report."""

from deliberate.eval.evaluate import evaluate
from deliberate.eval.report import Report
from deliberate.eval.sample import Sample

__all__ = ["Report", "Sample", "evaluate"]
