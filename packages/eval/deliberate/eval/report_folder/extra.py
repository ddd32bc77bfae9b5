"""What draws a report is an extra, and is looked for before anything is measured."""

from importlib.util import find_spec

from deliberate.core.errors import DeliberateError

EXTRA = "pip install 'jinja2>=3.1' 'matplotlib>=3.9'"
"""How it is installed; on the package index this distribution's own name is another project's."""


def require_report() -> None:
    """See that what draws a report is installed.

    Raises:
        DeliberateError: it is not.
    """
    for module, what in {"jinja2": "Jinja2", "matplotlib": "matplotlib"}.items():
        if find_spec(module) is None:
            raise DeliberateError(f"a report needs {what}, which is not installed: {EXTRA}")
