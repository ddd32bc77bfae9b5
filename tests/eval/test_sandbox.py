"""Generated programs: what they may do, and what is held back."""

import time
from pathlib import Path

import pytest

from deliberate.eval.bench.code_tasks import pass_at_1
from deliberate.eval.bench.sandbox import passes, without_network


def test_a_program_passes_if_it_ends_without_an_error():
    assert passes("assert 1 + 1 == 2\nprint('é')\nimport math, re, collections, heapq")
    assert not passes("assert 1 + 1 == 3")
    assert not passes("def f(:")
    assert passes("from __future__ import annotations\nimport dataclasses\n"
                  "@dataclasses.dataclass\nclass A: x: int")  # fmt: skip
    assert passes("a = '\udc80'")  # half a character, as a model may write: not our error


def test_a_program_that_exits_before_its_tests_does_not_pass():
    for way in ("sys.exit(1)", "sys.exit(0)", "sys.exit()", "raise SystemExit", "os._exit(0)"):
        assert not passes(f"import os, sys\n{way}\nassert 1 == 2"), way
    main = "def add(a, b): return a - b\nif __name__ == '__main__': raise SystemExit(0)"
    assert pass_at_1(["assert add(1, 2) == 3"], [[main]]) == 0.0
    assert pass_at_1(["assert add(1, 2) == 3"], [[main.replace("-", "+")]]) == 1.0


def test_a_program_that_does_not_end_is_ended():
    began = time.monotonic()
    assert not passes("while True: pass", seconds=1.0)
    assert not passes("import time; time.sleep(60)", seconds=1.0)
    assert time.monotonic() - began < 8


def test_memory_is_limited():
    assert not passes("x = bytearray(3 << 30)")


def test_nothing_is_written_or_removed(tmp_path):
    kept, made = tmp_path / "kept", tmp_path / "made"
    kept.write_text("kept")
    assert not passes(f"with open({str(made)!r}, 'w') as file: file.write('x' * 100)")
    assert not made.exists() or made.read_text() == ""
    for way in ("os.remove", "os.unlink", "shutil.rmtree", "os.rename"):
        assert not passes(f"import os, shutil\n{way}({str(kept)!r})")
    assert kept.read_text() == "kept"


def test_it_runs_in_a_folder_of_its_own_with_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    here = str(Path.cwd())
    assert passes(
        f"import os\nassert 'HF_TOKEN' not in os.environ\nassert os.getcwd() != {here!r}\n"
        "assert os.environ['HOME'] == os.getcwd()"
    )


def test_no_network_and_no_other_process_where_the_machine_gives_namespaces():
    if not without_network():
        pytest.skip("this machine gives an ordinary user no namespaces")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)"
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            pass
        assert not passes(program)
    others = "[one for one in os.listdir('/proc') if one.isdigit()]"
    assert passes(f"import os\nassert len({others}) < 4")


def test_a_program_is_scored_with_the_tests_of_its_question():
    assert pass_at_1(["assert f(2) == 4"], ["def f(x): return 2 * x"]) == 1.0
    assert pass_at_1(["assert f(2) == 4"], [["def f(x): return x"]]) == 0.0
