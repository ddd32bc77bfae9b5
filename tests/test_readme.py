"""What the README tells people to type works, in its order, on a text of their own."""

import re
import shlex
from pathlib import Path

import pytest

from deliberate.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text()
# A reader trains for minutes and measures many passages; a test need not.
SHORTER = {
    "train": "--set train.steps=2 --set train.batch=2 --set eval.texts=2 --set data.length=128",
    "eval": "--texts 4 --anchors 4",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Those under "Use", after those that are shown first."""
    shown = [block for block in blocks("") if block.startswith("deliberate prefill --text")]
    shown += [block for block in blocks("") if block.startswith("deliberate train --set data")]
    assert len(shown) == 2
    return [line.partition("#")[0].strip() for line in "".join(shown).splitlines() if line]


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = Path(main.__code__.co_filename).read_text()
    Path("mine.txt").write_text("\n".join([source] * 4))
    Path("page.txt").write_text(source[:900])
    typed = commands()
    assert {line.split()[1] for line in typed} >= {
        "train", "prefill", "augment", "generate", "eval", "push", "inspect",
    }  # fmt: skip
    for line in typed:
        name = line.split()[1]
        code = main(shlex.split(f"{line} {SHORTER.get(name, '')}")[1:])
        assert code == 0, (line, capsys.readouterr().err)
    assert Path("runs/mine/eval.json").exists()
    assert Path("thought.st").exists()


def test_the_python_of_the_readme_runs(capsys):
    [code] = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # it is ours
    assert capsys.readouterr().out


def test_the_families_are_those_that_are_proved(proved):
    for row, families in zip(("all tests", "the three proofs"), proved, strict=True):
        [cell] = re.findall(rf"^\| {row} \| (.*) \|$", README, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", cell)) == families
