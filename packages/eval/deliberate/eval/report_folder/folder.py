"""Writing a report's files into its folder.

results --sections--> report.html, report.md, one PNG a plot
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deliberate.core.atomic import write_bytes
from deliberate.eval.report_folder.blocks import Plot
from deliberate.eval.report_folder.document import heading, sections
from deliberate.eval.report_folder.extra import require_report

PAGE = "report.html"
MARKDOWN = "report.md"


def render(folder: Path, results: Mapping[str, Any]) -> None:
    """Write a report of a results document.

    Args:
        folder: That it goes into.
        results: As `results.json` holds them. What is not known is passed over, and what is not
            there is not shown.

    Raises:
        DeliberateError: what draws it is not installed.
    """
    require_report()
    # Both are slow to import, and a process that draws nothing need not have them.
    from deliberate.eval.report_folder.draw import png
    from deliberate.eval.report_folder.markdown import markdown
    from deliberate.eval.report_folder.page import page

    found, above = sections(results), heading(results)
    plots = [block for each in found for block in each.blocks if isinstance(block, Plot)]
    for plot in plots:
        write_bytes(folder / f"{plot.name}.png", png(plot))
    write_bytes(folder / MARKDOWN, markdown(above, found).encode())
    write_bytes(folder / PAGE, page(above, found).encode())
