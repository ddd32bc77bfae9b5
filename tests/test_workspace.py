"""Promises of the layout: who may import whom, and what must not be there."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import jaxtyping
import pytest
import torch

from deliberate.core.groups import ahead_tokens

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


def test_annotated_shapes_are_checked_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError, match="token_ids"):
        ahead_tokens(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 1).long(), ahead=1)


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


PROJECTS = {
    path.parent.relative_to(ROOT).as_posix(): tomllib.loads(path.read_text())["project"]
    for path in [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "cli/pyproject.toml"]
}
# What another declared one always brings, and is a part of.
BROUGHT = {"markupsafe": "jinja2"}


def declared(project: dict) -> list[str]:
    """Requirements, of the extras too."""
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def plain(name: str) -> str:
    """A distribution's name as indexes compare them, without what follows it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


@pytest.mark.parametrize("package", PROJECTS)
def test_a_package_declares_what_it_imports(package):
    names = {plain(each) for each in declared(PROJECTS[package])}
    own = [path for path in SOURCES if path.is_relative_to(ROOT / package)]
    roots = {name.split(".")[0] for path in own for name in imported(path)}
    for root in roots - sys.stdlib_module_names - {"deliberate"}:
        name = BROUGHT.get(root, {"yaml": "pyyaml"}.get(root, root))
        assert plain(name) in names, f"{package} imports {root} and does not declare it"


@pytest.mark.parametrize("package", PROJECTS)
def test_what_is_declared_has_a_lower_bound_and_the_package_s_own_siblings_one_version(package):
    for requirement in declared(PROJECTS[package]):
        if plain(requirement).startswith("deliberate"):
            assert requirement.endswith(f"=={PROJECTS['cli']['version']}"), requirement
        else:
            assert ">=" in requirement, requirement
    assert PROJECTS[package]["version"] == PROJECTS["cli"]["version"]


@pytest.mark.parametrize("package", PROJECTS)
def test_a_package_says_what_it_is_where_it_is_installed(package):
    project, folder = PROJECTS[package], ROOT / package
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert project["license-files"] == ["LICENSE"]
    assert len((folder / project["readme"]).read_text().split()) > 20
    assert project["classifiers"] == PROJECTS["cli"]["classifiers"]
    assert project["requires-python"] == PROJECTS["cli"]["requires-python"] == ">=3.11"


RUNS = re.compile(
    # What would run a text or a file: as a builtin, and not as a method such as `model.eval()`.
    r"(?<![\w.])(?:eval|exec|__import__)\("
    r"|\b(?:pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\.\w"
    r"|\bimport (?:pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\b"
    r"|\btorch\.load\b|\ballow_pickle\b|\byaml\.(?:load|unsafe_load|full_load)\b"
    r"|\bshell=True|\bos\.(?:system|popen)\b|\bextractall\b|\bunpack_archive\b"
)


def test_no_source_unpickles_or_runs_what_it_reads_or_code_from_a_hub():
    everything = [*SOURCES, *(ROOT / "recipes").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    for path in everything:
        # The one place whose work it is, in a process of its own (docs/benchmarks.md).
        text = path.read_text().replace('exec(compile(program, "<generated>"', "")
        # A recipe's own checkpoints, read as tensors and numbers and nothing else.
        text = text.replace("torch.load(kept, weights_only=True)", "")
        assert not RUNS.search(text), (path, RUNS.search(text))
        refusal = r"trust_remote_code\"?[:=] ?False"
        assert "trust_remote_code" not in re.sub(refusal, "", text), path


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "x = exec(text)", "import pickle", "pickle.loads(b)", "torch.load(path)",
        "yaml.load(text)", "run(command, shell=True)", "os.system(x)", "file.extractall(folder)",
    ],
)  # fmt: skip
def test_what_runs_a_text_would_be_seen(line):
    assert RUNS.search(line)
    assert not RUNS.search("model.eval(); yaml.safe_load(text); pattern.exec(x); retrieval(x)")


def test_what_is_said_of_a_missing_extra_installs_just_that_extra():
    """By the libraries' names: on the package index `deliberate` is another project's."""
    from deliberate.eval.bench import benchmarks
    from deliberate.eval.report_folder import extra

    extras = PROJECTS["packages/eval"]["optional-dependencies"]
    for name, said in {"bench": benchmarks.EXTRA, "report": extra.EXTRA}.items():
        assert said == f"pip install {' '.join(map(repr, extras[name]))}"
