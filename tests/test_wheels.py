"""What a wheel lacks is told, whatever it is; what a matrix tries is what the packages state."""

import importlib.util
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def script(name: str):
    """A script of `.ci`, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheels():
    return script("wheels")


@pytest.fixture
def lacks(wheels, tmp_path):
    """Make a whole wheel of `cli`, change some of its files, and tell what is said of it."""
    said, files = wheels.project("cli"), wheels.tracked("cli")
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {said['name']}",
        f"Version: {said['version']}",
        f"Summary: {said['description']}",
        f"Requires-Python: {said['requires-python']}",
        f"License-Expression: {said['license']}",
        "License-File: LICENSE",
        *(f"Classifier: {each}" for each in said["classifiers"]),
        *(f"Provides-Extra: {each}" for each in said["optional-dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    info = "deliberate-0.1.0.dist-info"
    whole = {name: data for name, data in files.items() if name.startswith("deliberate/")}
    whole |= {
        f"{info}/METADATA": "\n".join([*lines, "", "word " * 30]).encode(),
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
        f"{info}/entry_points.txt": b"[console_scripts]\ndeliberate = deliberate.cli.main:main\n",
    }

    def told(change=lambda content: None) -> list[str]:
        content = dict(whole)
        change(content)
        path = tmp_path / "made.whl"
        with zipfile.ZipFile(path, "w") as made:
            for name, data in content.items():
                made.writestr(name, data)
        with zipfile.ZipFile(path) as made:
            return list(wheels.lacks("cli", files, made))

    return told


def metadata(content, old: str, new: str) -> None:
    name = next(each for each in content if each.endswith("METADATA"))
    assert old in content[name].decode()
    content[name] = content[name].decode().replace(old, new).encode()


def named(content, end: str) -> str:
    return next(name for name in content if name.endswith(end))


CHANGES = {
    "in git and not in": lambda c: c.pop("deliberate/cli/main.py"),
    "in the wheel and not in git": lambda c: c.update({"deliberate/__init__.py": b""}),
    "another in the wheel": lambda c: c.update({"deliberate/cli/main.py": b"x"}),
    "licence's text": lambda c: c.update({named(c, "licenses/LICENSE"): b"yours"}),
    "command `deliberate`": lambda c: c.update({named(c, "entry_points.txt"): b""}),
    "Requires-Python is": lambda c: metadata(c, ">=3.11", ">=3.8"),
    "Classifier is": lambda c: metadata(c, "Classifier: Environment :: Console\n", ""),
    "Provides-Extra is": lambda c: metadata(c, "Provides-Extra: serve\n", ""),
    "no description": lambda c: metadata(c, "word " * 30, ""),
}


def test_a_whole_wheel_lacks_nothing(lacks):
    assert lacks() == []


@pytest.mark.parametrize("told", CHANGES)
def test_what_a_wheel_lacks_is_told(lacks, told):
    [sentence] = lacks(CHANGES[told])
    assert told in sentence


def test_recipes_and_the_model_are_in_what_is_built(wheels):
    train, core = wheels.tracked("packages/train"), wheels.tracked("packages/core")
    assert train["deliberate/train/recipes/demo.yaml"].startswith(b"# What")
    assert {"deliberate/core/nano/base/model.safetensors", "LICENSE"} <= core.keys()


def test_the_oldest_versions_are_the_bounds_that_the_packages_state_and_one_torch():
    matrix = script("matrix")
    oldest = matrix.constraints("oldest", "2.13.0")
    assert {line.partition("==")[0] for line in oldest} >= {"transformers", "typer", "starlette"}
    text = (ROOT / "packages/core/pyproject.toml").read_text()
    [bound] = [line for line in oldest if line.startswith("transformers==")]
    assert f'"{bound.replace("==", ">=")}"' in text
    for versions in ("oldest", "tested", "newest"):
        torch = [line for line in matrix.constraints(versions, "9.9") if line.startswith("torch=")]
        assert torch == ["torch==9.9"]
