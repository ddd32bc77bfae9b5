"""The folder that `deliberate eval -o` writes: one page, one Markdown file, plots."""

from deliberate.eval.report_folder.extra import require_report
from deliberate.eval.report_folder.folder import render

__all__ = ["render", "require_report"]
