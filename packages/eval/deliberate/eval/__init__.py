"""Measuring a coprocessor: perplexity by token ahead, controls, intervals, the report."""

from deliberate.eval.evaluate import Subject, evaluate, evaluate_together
from deliberate.eval.report import Report
from deliberate.eval.sample import Sample

__all__ = ["Report", "Sample", "Subject", "evaluate", "evaluate_together"]
