"""A command that is killed comes to the same end; `kills.py` does it to all of them, and longer."""

import random
from pathlib import Path

import killing
import kills
import pytest
from forked import Forks
from watch import Watch, check_whole


def test_a_prefill_that_is_killed_again_and_again_comes_to_its_end(tmp_path):
    command = kills.commands(tmp_path, None, ["prefill"])["prefill"]
    with Forks(command.surroundings()) as command.forks:
        tally = killing.torture(command, kills=2, seed=1)
    assert (tally.kills, tally.differences, tally.partial) == (2, [], [])
    assert tally.restarts >= 1
    assert tally.runs >= 1


def test_a_result_that_differs_and_a_partial_file_are_told_of(tmp_path, monkeypatch):
    """The loop itself can fail: it would find what it looks for."""
    folder, rng = tmp_path / "folder", random.Random(0)
    folder.mkdir()
    monkeypatch.setattr(killing, "PROGRAM", "import time; time.sleep(0.2)")
    monkeypatch.setattr(killing, "ANYWHERE", 1)
    command = killing.Command([], folder, lambda _: {"number": rng.random()})
    tally = killing.torture(command, kills=1, seed=1)
    assert tally.kills == 1
    assert len(tally.differences) == tally.runs > 0
    assert all(told.endswith(": number") for told in tally.differences)
    folder.mkdir()
    (folder / "half.st").write_bytes(b"half")
    (folder / "half.json").write_text("{")
    (folder / ".hidden.json").write_text("{")
    (folder / "checkpoints/step-000003").mkdir(parents=True)
    Watch(folder, tally).look()
    assert [told.split(":")[0] for told in sorted(tally.partial)] == [
        "half.json",
        "half.st",
        "step-000003 with [] alone",
    ]


@pytest.mark.parametrize("name", ["cache.st", "result.json", "page.html", "plot.png", "log.jsonl"])
def test_what_is_not_whole_is_found(tmp_path, name):
    path = Path(tmp_path / name)
    path.write_bytes(b'{"a": 1\n')
    with pytest.raises(ValueError, match=r"."):
        check_whole(path)
