"""Run tests against other versions. `make matrix VERSIONS=oldest` runs it.

the wheels, other versions, another Python --> build/matrix/NAME --pytest--> one line for the table

    oldest   every lower bound that a `pyproject.toml` states, as it stands
    tested   constraints.txt
    newest   whatever the index has

torch is pinned in all of them: its other builds bring gigabytes of CUDA packages. With --whole, the
checkout stands for the wheels, and all of its tests for a small suite.
"""

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent.parent
PROJECTS = ("packages/core", "packages/train", "packages/eval", "packages/serve", "cli")
TOOLS = ("beartype", "hypothesis", "openai", "pytest", "pytest-xdist")
LIBRARIES = (
    "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "datasets", "peft",
    "numpy", "typer", "fastapi",
)  # fmt: skip
SMALL = (
    "tests/core/test_base.py", "tests/core/test_continue.py", "tests/core/test_one_pass.py",
    "tests/core/test_head.py", "tests/core/test_kinds.py", "tests/core/test_batch.py",
    "tests/core/test_adapted.py", "tests/core/test_sources.py", "tests/core/test_hub.py",
    "tests/core/test_pull.py", "tests/core/test_publish.py", "tests/core/test_card.py",
    "tests/train/test_loop.py", "tests/train/test_recipe.py", "tests/train/test_rows.py",
    "tests/train/test_plan.py", "tests/eval/test_evaluate.py", "tests/eval/test_subject.py",
    "tests/eval/test_report_plots.py", "tests/serve/http/test_openai.py",
    "tests/serve/engine/test_answers.py", "tests/cli", "tests/test_recipes.py",
    "tests/test_readme.py", "tests/hostile/test_cache_files.py",
)  # fmt: skip
"""The proofs of every family; a step of training of each recipe; measuring; serving; commands."""


def lower_bounds() -> list[str]:
    """The lower bound of each requirement that has one, as a version to install."""
    bounds = {}
    for package in PROJECTS:
        project = tomllib.loads((HERE / package / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        for requirement in (*project["dependencies"], *extras.get("report", ())):
            name, at_least, version = requirement.partition(">=")
            if at_least:
                bounds[name] = version.partition(",")[0]
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


def constraints(versions: str, torch: str) -> list[str]:
    """What pip may choose of, a line a package."""
    lines = {
        "oldest": lower_bounds(),
        "tested": (HERE / "constraints.txt").read_text().splitlines(),
        "newest": [],
    }[versions]
    return [line for line in lines if not line.startswith("torch==")] + [f"torch=={torch}"]


def main() -> int:
    """Install and test; the exit code is that of pytest, or 1 where nothing could be installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", choices=("oldest", "tested", "newest"))
    parser.add_argument("--python", default=sys.executable, help="the interpreter")
    parser.add_argument("--torch", default="2.13.0", help="its version")
    parser.add_argument("--system", action="store_true", help="packages of the system's own too")
    parser.add_argument("--name", help="of the environment, which is used again")
    parser.add_argument("--dist", type=Path, default=HERE / "dist", help="where the wheels are")
    parser.add_argument("--whole", action="store_true", help="all tests, every extra and tool")
    parser.add_argument("tests", nargs="*", help="for pytest; a small suite if none")
    options = parser.parse_intermixed_args()  # tests may follow other options
    folder = HERE / "build/matrix" / (options.name or options.versions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    bounds = folder.with_suffix(".txt")
    bounds.write_text("\n".join(constraints(options.versions, options.torch)) + "\n")
    system = ["--system-site-packages"] if options.system else []
    subprocess.run([options.python, "-m", "venv", *system, folder], check=True)
    wheels = [] if options.whole else sorted(options.dist.resolve().glob("deliberate*.whl"))
    wanted = [f"{path}[report]" if path.name.startswith("deliberate-") else path for path in wheels]
    wanted = ["-r", "requirements.txt"] if options.whole else [*wanted, *TOOLS]
    pip = [folder / "bin/pip", "install", "-q", "-c", bounds, "--upgrade-strategy", "eager"]
    if subprocess.run([*pip, *wanted], cwd=HERE, check=False).returncode:
        return 1
    if wheels:  # those of this moment, also where the environment had others of the same version
        subprocess.run([*pip, "--no-deps", "--force-reinstall", *wheels], check=True)
    told = "from importlib.metadata import version; import sys; print(sys.version.split()[0], *"
    told += f"(f'{{name}} {{version(name)}}' for name in {LIBRARIES}), sep=', ')"
    subprocess.run([folder / "bin/python", "-c", told], check=True)
    chosen = options.tests or ([] if options.whole else SMALL)
    tests = [folder / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    if options.versions == "oldest":  # what they warn of is over
        tests += ["-W", "default"]
    return subprocess.run(tests, cwd=HERE, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
