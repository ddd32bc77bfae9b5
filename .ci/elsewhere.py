"""Install the wheels into an empty environment and use them there. `make elsewhere` runs it.

dist/*.whl --pip, in a temporary folder--> the README's commands, its Python, a server, a report

Nothing of the checkout is in reach: another folder, no PYTHONPATH, no cache of the Hub, no Hub.
"""

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent.parent
EXTRAS = ("report", "serve")
SHORTER = {
    "train": "--set train.steps=2 --set train.batch=2 --set eval.texts=2 --set data.length=128",
    "eval": "--texts 4 --anchors 4",
}
"""For `--short`: that each step works is soon seen, and its numbers mean nothing."""

WHERE = """
import sys
from importlib.metadata import version
from pathlib import Path
from deliberate.core.base import NANO
inside = Path(sys.prefix)
assert NANO.is_relative_to(inside) and len(list(NANO.rglob("*.safetensors"))) == 3, NANO
for name in ("core", "train", "eval", "serve", "cli"):
    [home] = __import__(f"deliberate.{name}", fromlist=["x"]).__path__
    assert Path(home).is_relative_to(inside), home
told = ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "datasets", "peft")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in told), sep=", ")
"""


def readme() -> tuple[list[str], str]:
    """The commands that the README shows first, which need no checkout, and its Python."""
    text = (HERE / "README.md").read_text()
    shown = re.findall(r"```\n(deliberate prefill --text.*?)```", text, re.DOTALL)
    python = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [commands], [code] = shown, python
    return [line.partition("  #")[0].strip() for line in commands.splitlines() if line], code


class Elsewhere:
    """An environment in a folder of its own."""

    def __init__(self, folder: Path, python: str, seconds: int) -> None:
        self.folder, self.bin, self.seconds = folder, folder / "environment" / "bin", seconds
        kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {
            "HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
        }
        subprocess.run([python, "-m", "venv", folder / "environment"], check=True)

    def install(self, dist: Path, constraints: str, *, by: str) -> None:
        """Install all wheels, and what they need; the installer keeps its settings and cache."""
        pip = {
            "pip": [self.bin / "pip", "install"],
            "uv": ["uv", "pip", "install", "--python", self.bin / "python"],
        }
        command = [*pip[by], "-q", *(("-c", constraints) if constraints else ())]
        for wheel in sorted(dist.glob("deliberate*.whl")):
            extras = f"[{','.join(EXTRAS)}]" if wheel.name.startswith("deliberate-") else ""
            command.append(f"{wheel}{extras}")
        subprocess.run(command, cwd=self.folder, check=True, timeout=self.seconds)

    def run(self, *command: str) -> str:
        """Run a step, and return what it wrote; what it said is shown.

        Raises:
            SystemExit: it failed.
        """
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        print(done.stdout.strip(), f"[{time.monotonic() - began:.0f} s]", sep="\n", flush=True)
        if done.returncode:
            raise SystemExit(f"elsewhere: {shlex.join(command)[:200]} failed ({done.returncode})")
        return done.stdout

    def serve(self) -> None:
        """Start the server, wait for latents with one request, and stop it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.bin / "deliberate", "serve", "--port", str(port)]
        running = subprocess.Popen(command, cwd=self.folder, env=self.environment)
        try:
            asked = {"model": "nano", "prompt": "import os\n\n\ndef ", "max_tokens": 8}
            body = json.dumps(asked | {"deliberate": "wait"}).encode()
            url = f"http://127.0.0.1:{port}/v1/completions"
            answer = _asked(url, body, self.seconds)
            print(json.dumps(answer)[:300])
            assert answer["choices"][0]["text"], answer
        finally:
            running.terminate()
            code = running.wait(60)
        assert code == 0, f"the server ended with {code}"


def _asked(url: str, body: bytes, seconds: int) -> dict:
    """An answer, asked for until the server is there.

    Raises:
        TimeoutError: it never is.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return json.load(response)
        except OSError as error:  # nobody listens yet
            if time.monotonic() > until:
                raise TimeoutError(url) from error
            time.sleep(0.5)


def use(place: Elsewhere, commands: list[str], code: str) -> None:
    """Go through all that is shown, and see a server and a report."""
    place.run("python", "-c", WHERE)
    for command in ("deliberate --version", *commands):
        print(f"$ {command}", flush=True)
        place.run(*shlex.split(command))
    place.run("python", "-c", code)
    place.serve()
    place.run(*shlex.split("deliberate eval nano --texts 8 --anchors 4 -o report"))
    assert (place.folder / "report/report.html").stat().st_size > 10_000


def main() -> int:
    """Install and use; the exit code is 1 where a step fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=HERE / "dist", help="where the wheels are")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to try")
    parser.add_argument(
        "--constraints",
        default=str(HERE / "constraints.txt"),
        help="versions for pip; empty for the newest, which brings torch's CUDA packages",
    )
    parser.add_argument("--installer", choices=("pip", "uv"), default="pip")
    parser.add_argument("--seconds", type=int, default=600, help="that each step may take")
    parser.add_argument("--short", action="store_true", help="few steps and texts")
    options = parser.parse_args()
    commands, code = readme()
    if options.short:
        commands = [f"{line} {SHORTER.get(line.split()[1], '')}".strip() for line in commands]
    with tempfile.TemporaryDirectory(prefix="deliberate-elsewhere-") as folder:
        place = Elsewhere(Path(folder), options.python, options.seconds)
        place.install(options.dist.resolve(), options.constraints, by=options.installer)
        use(place, commands, code)
    print("elsewhere: everything works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
