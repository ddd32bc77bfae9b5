"""Checks every annotated shape at run time, in every test."""

from pathlib import Path

import jaxtyping

_PACKAGES = Path(__file__).parent / "packages"


def _modules() -> list[str]:
    """Those that annotate shapes; checks of the others would only take their time."""
    found = []
    for folder in _PACKAGES.iterdir():
        for file in sorted(folder.rglob("*.py")):
            if "jaxtyping" in file.read_text(encoding="utf-8"):
                found.append(".".join(file.relative_to(folder).with_suffix("").parts))
    return found


jaxtyping.install_import_hook(_modules(), "beartype.beartype")
