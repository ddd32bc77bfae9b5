"""`make results`: what is trained and measured for a table, and what is not done twice."""

import json
from pathlib import Path
from shutil import rmtree

import make_results
import pytest
import running


@pytest.fixture
def maker(experiments, tmp_path, monkeypatch):
    """A maker whose commands do nothing but leave what they would."""
    commands = []

    def waited(command):
        commands.append(command[1:])
        if "train" in command:
            folder = Path(command[command.index("--output-dir") + 1])
            folder.mkdir()
            (folder / "config.json").write_text("{}")
        else:
            Path(command[command.index("-o") + 1]).write_text('{"seen": NaN, "gate": 1}')
        return 0

    monkeypatch.setattr(running, "_waited", waited)
    monkeypatch.setattr(running, "_training", lambda folder: {"steps": 1})
    made = running.Maker(experiments, kept=tmp_path / "kept", work=tmp_path / "work")
    return made, commands


def trained_of(commands):
    said = [
        command[command.index("--output-dir") + 1] for command in commands if "train" in command
    ]
    return [Path(folder).name.rpartition("-")[0] for folder in said]


def test_a_measure_trains_what_it_needs_first_and_nothing_twice(maker, experiments, tmp_path):
    made, commands = maker
    made.measure("full-4", "controls")
    assert trained_of(commands) == ["soft-4", "pause-4", "full-4"]
    assert f"soft:{made.place('soft-4')}" in commands[-1][-4]
    kept = json.loads((tmp_path / "kept" / "full-4.json").read_text())
    assert kept["measures"]["controls"]["result"] == {"seen": None}
    commands.clear()
    made.measure("full-4", "controls")
    assert not commands
    made.measure("full-4", "late")
    assert [command[0] for command in commands] == ["eval"]


def test_a_run_that_is_trained_again_is_measured_again(maker, tmp_path):
    made, commands = maker
    made.measure("full-4", "texts")
    made.measure("soft-4", "texts")
    rmtree(tmp_path / "work")  # as in a fresh clone
    (tmp_path / "work").mkdir()
    commands.clear()
    made.measure("full-4", "controls")
    assert trained_of(commands) == ["soft-4", "pause-4", "full-4"]
    measured = [command[1] for command in commands if command[0] == "eval"]
    assert measured == [made.place(run) for run in ("soft-4", "full-4", "full-4")]
    assert made._read("full-4").measures.keys() == {"texts", "controls"}


def test_an_adaptation_begins_from_the_run_that_it_names(maker):
    made, commands = maker
    made.measure("adapted", "task")
    assert trained_of(commands) == ["full-4", "adapted"]
    assert f"train.init={made.place('full-4')}" in commands[1]
    rows = Path(made.place("pairs-train.jsonl")).read_text().splitlines()
    assert len(rows) == 6000
    assert json.loads(rows[0]).keys() == {"question", "answer"}


def test_a_stopped_run_keeps_its_processor_time_and_a_failed_one_is_told(maker, monkeypatch):
    made, _ = maker
    seconds = iter([0.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(running, "_children_seconds", lambda: next(seconds))
    whole = running._waited

    def stopped(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_waited", stopped)
    with pytest.raises(KeyboardInterrupt):
        made._train("full-4")
    monkeypatch.setattr(running, "_waited", whole)
    made._train("full-4")
    assert made._read("full-4").training["cpu_seconds"] == 7.0
    monkeypatch.setattr(running, "_waited", lambda command: 1)
    monkeypatch.setattr(running, "_children_seconds", lambda: 0.0)
    with pytest.raises(running.Failed, match=r"deliberate train .* ended with 1"):
        made._train("full-8")


def test_what_fails_is_told_and_the_rest_is_made(experiments, tmp_path, monkeypatch, capsys):
    asked = []

    def measure(maker, run, name):
        asked.append(run)
        if run == "full-8":
            raise running.Failed("it ended with 1")

    monkeypatch.setattr(running.Maker, "measure", measure)
    code = make_results.make(
        experiments, ["table1", "hidden"], output=tmp_path / "docs", work=tmp_path / "work"
    )
    assert code == 1
    assert set(asked) == {"full-4", "full-8", "full-16", "full-32", "hidden-4"}
    said = capsys.readouterr().err
    assert "table1: not complete" in said
    assert "hidden: done" in said
    assert "failed: table1, full-8: it ended with 1" in said
    assert (tmp_path / "docs" / "results.md").exists()
    with pytest.raises(ValueError, match="no table 'table2': known are table1, reasoning"):
        make_results.chosen(experiments, "table1, table2")
