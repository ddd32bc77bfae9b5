import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deliberate.cli import main as program
from deliberate.cli import models, options, terminal
from deliberate.cli.commands import inspect
from deliberate.core.base import EMBEDDED
from deliberate.eval.bench.records import Record, write

HEAVY = ("torch", "transformers", "datasets", "huggingface_hub", "rich")
COMMANDS = [name.name or name.callback.__name__ for name in program.app.registered_commands]

HELP_IN_A_PROCESS = f"""
import sys
from deliberate.cli.main import main
code = main(sys.argv[1:])
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(c) or "none"
)
def test_help_imports_nothing_heavy(command):
    asked = [sys.executable, "-c", HELP_IN_A_PROCESS, *command, "--help"]
    process = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert process.stdout.startswith("Usage: deliberate")
    assert process.stderr.strip() == "[]"


@pytest.mark.parametrize("second", ["a.jsonl", "none.jsonl"])
def test_two_files_of_records_are_compared_without_anything_heavy(tmp_path, second):
    one = Record(
        id="t/0", question="q", target="t", base=True, latents=False, answers={}, scores={}
    )
    write(tmp_path / "a.jsonl", [one])
    asked = [sys.executable, "-c", HELP_IN_A_PROCESS, "compare", "a.jsonl", second]
    process = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert process.returncode == int(second != "a.jsonl"), process.stderr
    assert process.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_h_is_help(run, command):
    assert run(command, "-h") == run(command, "--help")


def test_version_is_shown(run):
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("deliberate ")


def test_without_a_command_help_is_shown_and_the_use_was_wrong(run):
    outcome = run()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["deliver"], "'deliver'"),
        (["inspect"], "'path'"),
        (["inspect", "a", "b"], "b"),
        (["inspect", "--verfy", "a"], "--verify"),
        (["prefill", "--batch", "0"], "'--batch'"),
        (["prefill", "--batch", "0"], "got '0'"),
        (["eval", "--texts", "1e3"], "got '1e3'"),
        (["prefill", "--dtype", "int8"], "for '--dtype': 'int8' is not one of"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(refused, arguments, told):
    assert told.lower() in refused(*arguments, code=2).lower()


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(path: Path, **_: bool) -> None:
        raise error

    monkeypatch.setattr(inspect, "_folder", fail)


def test_ctrl_c_ends_with_130_and_one_line(run, monkeypatch):
    raising(monkeypatch, KeyboardInterrupt())
    outcome = run("inspect", ".")
    assert outcome.code == 130
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_failure_of_the_system_is_one_line_that_names_the_file(refused, monkeypatch, number):
    raising(monkeypatch, OSError(number, os.strerror(number), "some/file"))
    told = refused("inspect", ".")
    assert "'some/file'" in told
    assert os.strerror(number).lower() in told


def test_an_unexpected_failure_keeps_its_traceback(run, monkeypatch):
    raising(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run("inspect", ".")


def test_a_reader_that_leaves_is_no_failure_worth_a_word():
    asked = f"{sys.executable} -c 'from deliberate.cli.main import main; raise SystemExit(main())'"
    process = subprocess.run(
        ["bash", "-c", f"{asked} prefill --help | true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not process.stderr


def test_an_unknown_device_is_refused(refused, cache):
    assert "'abacus'" in refused("generate", cache, "--device", "abacus", code=2)


def test_the_default_names_the_embedded_model():
    assert options.EMBEDDED == EMBEDDED


def test_the_bars_of_transformers_are_given_back(capsys):
    from transformers.utils import logging

    with models.patient_bars():
        list(logging.tqdm(range(3)))
        assert not capsys.readouterr().err
    list(logging.tqdm(range(3)))
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(("patience", "shown"), [(0.0, True), (60.0, False)])
def test_progress_is_shown_on_a_terminal_once_it_takes_long(capsys, monkeypatch, patience, shown):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(terminal, "PATIENCE", patience)
    with terminal.progress("weighing", 2) as advance:
        advance(1)
        timers = [
            t for t in terminal.threading.enumerate() if isinstance(t, terminal.threading.Timer)
        ]
        for timer in timers if shown else ():
            timer.join()
    told = capsys.readouterr()
    assert not told.out
    assert ("weighing" in told.err) == shown
