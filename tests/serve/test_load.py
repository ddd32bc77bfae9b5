"""The benchmark of load, small: no answer fails, is wrong, or is lost."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_under_load_every_answer_is_the_one_without_a_server(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import load

    load.main(["--quick"])
    for name in ("load", "crowd", "offline", "ratio", "served"):
        del sys.modules[name]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["ratios"]
    assert [found[name]["ratio"] for name in ("failed", "wrong", "left over")] == [0, 0, 0]
