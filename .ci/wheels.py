"""Build the distributions into a folder, and see that each is whole. `make wheels` runs it.

a package, as git knows it --> its source archive --> its wheel --looked at--> whole, or what lacks

Built is a copy of what git knows, links followed: a source archive would keep links that point
out of it. The wheel is made from the source archive, so that the archive is known to be complete.
"""

import argparse
import email
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

HERE = Path(__file__).parent.parent
PACKAGES = ("packages/core", "packages/train", "packages/eval", "packages/serve", "cli")
COMMAND = "deliberate = deliberate.cli.main:main"


def tracked(package: str) -> dict[str, bytes]:
    """The files of a package that git knows, links followed."""
    command = ["git", "ls-files", "-z"]
    names = subprocess.run(command, cwd=HERE / package, capture_output=True, check=True).stdout
    return {
        name: (HERE / package / name).read_bytes() for name in names.decode().split("\0") if name
    }


def build(package: str, files: dict[str, bytes], into: Path) -> None:
    """Build a package's source archive, and its wheel from that.

    Raises:
        SystemExit: the build failed; what it said is printed.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into)]
    with tempfile.TemporaryDirectory(prefix="deliberate-wheels-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        raise SystemExit(f"wheels: {package} cannot be built")


def project(package: str) -> dict:
    """What a package's `pyproject.toml` says of it."""
    return tomllib.loads((HERE / package / "pyproject.toml").read_text())["project"]


def lacks(package: str, files: dict[str, bytes], wheel: zipfile.ZipFile) -> Iterator[str]:
    """What is wrong with a package's wheel, a sentence each."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = {name: files[name] for name in files if name.startswith("deliberate/")}
    yield from (f"{name} is in git and not in the wheel" for name in wanted.keys() - names)
    yield from (f"{name} is in the wheel and not in git" for name in names - wanted.keys())
    for name in wanted.keys() & names:
        if wheel.read(name) != wanted[name]:
            yield f"{name} is another in the wheel than in git"
    said = project(package)
    [info] = {name.split("/")[0] for name in wheel.namelist()} - {"deliberate"}
    about = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    yield from _lacks_words(about, said)
    licence = f"{info}/licenses/LICENSE"
    if licence not in wheel.namelist() or wheel.read(licence) != (HERE / "LICENSE").read_bytes():
        yield "the licence's text is not in it"
    entries = f"{info}/entry_points.txt"
    if "scripts" in said and COMMAND not in wheel.read(entries).decode():
        yield "the command `deliberate` is not in it"


def _lacks_words(about: Message, said: dict) -> Iterator[str]:
    """What the wheel's own description leaves out of its `pyproject.toml`."""
    single = {
        "Version": said["version"],
        "Summary": said["description"],
        "Requires-Python": said["requires-python"],
        "License-Expression": said["license"],
        "Description-Content-Type": "text/markdown",
    }
    yield from (
        f"{key} is {about[key]!r} and not {value!r}"
        for key, value in single.items()
        if about[key] != value
    )
    several = {
        "Classifier": said["classifiers"],
        "Provides-Extra": list(said.get("optional-dependencies", ())),
        "License-File": ["LICENSE"],
    }
    for key, values in several.items():
        if sorted(about.get_all(key, [])) != sorted(values):
            yield f"{key} is {about.get_all(key)} and not {values}"
    if len(str(about.get_payload()).split()) < 20:
        yield "it has no description"


def main() -> int:
    """Build and look; the exit code is 1 where something lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=HERE / "dist", help="where to")
    into = parser.parse_args().dist.resolve()
    into.mkdir(parents=True, exist_ok=True)
    for old in (*into.glob("deliberate*.whl"), *into.glob("deliberate*.tar.gz")):
        old.unlink()
    wrong = 0
    for package in PACKAGES:
        files = tracked(package)
        build(package, files, into)
        said = project(package)
        stem = f"{said['name'].replace('-', '_')}-{said['version']}"
        path = into / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path) as wheel:
            found = list(lacks(package, files, wheel))
        wrong += len(found)
        print(f"{path.name}: {path.stat().st_size:,} bytes, {'; '.join(found) or 'whole'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
