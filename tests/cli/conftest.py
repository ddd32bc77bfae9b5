"""Run the program in this process, on tiny models and without a network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deliberate.cli.main import main
from deliberate.core import load_base, save_coprocessor
from deliberate.core.coprocessor import Coprocessor


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no home, and a working folder of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(offline: None, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `deliberate` with arguments."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run `deliberate` with arguments it must refuse with one line, and return that line."""

    def refused(*arguments: object, code: int = 1) -> str:
        outcome = run(*arguments)
        assert outcome.code == code, outcome
        assert not outcome.out
        assert outcome.err.startswith("deliberate: ")
        assert outcome.err.count("\n") == 1, outcome.err
        return outcome.err

    return refused


@pytest.fixture
def coprocessor_folder(offline: None, llama_folder: Path, make: Callable[..., Coprocessor]) -> Path:
    """A tiny coprocessor for the tiny Llama, as files; by a name that fits a narrow terminal."""
    base = load_base(str(llama_folder))
    folder = Path("coprocessor")
    save_coprocessor(make(base, "warm"), folder, base=base)
    return folder


@pytest.fixture
def cache(run: Run, llama_folder: Path) -> Path:
    """A cache file of the tiny Llama."""
    path = Path("cache.st").absolute()
    assert run("prefill", "--text", "hello there", "--base", llama_folder, "-o", path).code == 0
    return path


@pytest.fixture
def augmented(run: Run, cache: Path, coprocessor_folder: Path) -> Path:
    """The cache file with latents."""
    assert run("augment", cache, "--coprocessor", coprocessor_folder).code == 0
    return cache.with_name("cache.augmented.st")


@pytest.fixture
def rows(offline: None) -> Path:
    """Five texts of different lengths, and one empty line."""
    path = Path("rows.jsonl").absolute()
    texts = ["one", "two and a half", "three", "", "five is the longest of all", "six"]
    lines = [f'{{"text": "{text}"}}' if text else "" for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def caches(run: Run, rows: Path, llama_folder: Path) -> Path:
    """The folder of cache files of those texts."""
    assert run("prefill", "--jsonl", rows, "--base", llama_folder).code == 0
    return rows.with_name("rows-caches")
