"""Writing a report's files into its folder.

results --sections--> report.html, report.md, one PNG a plot
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deliberate.core.atomic import write_bytes
from deliberate.eval.report_folder.blocks import Plot
from deliberate.eval.report_folder.document import heading, sections
from deliberate.eval.report_folder.extra import require_report

PAGE = "report.html"
MARKDOWN = "report.md"

PICTURE = re.compile(r"^!\[.*\]\(([\w-]+\.png)\)$", re.MULTILINE)
"""A plot in the Markdown."""


def render(folder: Path, results: Mapping[str, Any]) -> None:
    """Write a report of a results document, and remove plots that only the one before had.

    Args:
        folder: That it goes into.
        results: As `results.json` holds them. What is not known is passed over, and what is not
            there is not shown.

    Raises:
        DeliberateError: what draws it is not installed.
    """
    require_report()
    # Both are slow to import, and a process that draws nothing need not have them.
    from deliberate.eval.report_folder.draw import SOFTWARE, png
    from deliberate.eval.report_folder.markdown import markdown
    from deliberate.eval.report_folder.page import page

    found, above = sections(results), heading(results)
    plots = [block for each in found for block in each.blocks if isinstance(block, Plot)]
    drawn = {f"{plot.name}.png": png(plot) for plot in plots}
    stale = _named(folder / MARKDOWN) - set(drawn)
    for name, content in drawn.items():
        write_bytes(folder / name, content)
    write_bytes(folder / MARKDOWN, markdown(above, found).encode())
    write_bytes(folder / PAGE, page(above, found).encode())
    for path in (folder / name for name in stale):
        # Only what says that it was drawn here: the Markdown may be someone's own.
        if path.is_file() and SOFTWARE.encode() in path.read_bytes():
            path.unlink()


def _named(markdown: Path) -> set[str]:
    """The plots that a report names; of none there are none."""
    if not markdown.is_file():
        return set()
    return set(PICTURE.findall(markdown.read_text(encoding="utf-8", errors="replace")))
