"""Promises of the layout: who may import whom, and what must not be there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("packages/*/deliberate/**/*.py"), *ROOT.glob("cli/deliberate/**/*.py")]
# Who each package may import of the others, besides itself.
ALLOWED = {
    "core": set(),
    "train": {"core"},
    "eval": {"core"},
    "serve": {"core"},
    "cli": {"core", "train", "eval", "serve"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(path: Path) -> str:
    return path.parts[path.parts.index("deliberate", len(ROOT.parts)) + 1]


def test_there_are_sources():
    assert {package_of(path) for path in SOURCES} >= {"core", "train", "eval", "cli"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_packages_import_only_what_is_below_them(path):
    own = package_of(path)
    parts = [name.split(".") for name in imported(path) if name.startswith("deliberate.")]
    assert {p[1] for p in parts} <= ALLOWED[own] | {own}
    if own != "cli":
        assert not {"typer", "rich"} & {name.split(".")[0] for name in imported(path)}


def test_nothing_hides_the_siblings_of_the_namespace():
    stray = [path for path in ROOT.glob("**/deliberate/__init__.py") if ".venv" not in path.parts]
    assert not stray


def test_no_source_unpickles_or_runs_code_from_a_hub():
    for path in SOURCES:
        text = path.read_text()
        assert "pickle.load" not in text, path
        assert "torch.load" not in text, path
        refusal = r"trust_remote_code\"?[:=] ?False"
        assert "trust_remote_code" not in re.sub(refusal, "", text), path
