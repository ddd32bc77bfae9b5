"""The benchmark of load, small: no answer fails, is wrong or is lost, and no server is left."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 300.0
"""Seconds until a test gives up: a process loads torch, which takes long on a busy machine."""

SERVES = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from served import served

with served(Path(sys.argv[2]), "--thinker", "none") as server:
    print(server.url, flush=True)
    input()
"""


@pytest.mark.slow
def test_under_load_every_answer_is_the_one_without_a_server(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import load

    load.main(["--quick"])
    for name in ("load", "crowd", "offline", "ratio", "served"):
        del sys.modules[name]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["ratios"]
    assert [found[name]["ratio"] for name in ("failed", "wrong", "left over")] == [0, 0, 0]


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=PATIENCE, trust_env=False).is_success
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_a_benchmark_that_is_killed_leaves_no_server_behind(tmp_path):
    command = [sys.executable, "-c", SERVES, str(BENCHMARKS), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        url = script.stdout.readline().strip()
        assert answers(url)
        script.kill()
    until = time.monotonic() + PATIENCE
    while answers(url):
        assert time.monotonic() < until
        time.sleep(0.1)
