"""`deliberate serve`, as a new user types it: a process, a page, an answer, Ctrl-C."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from deliberate.cli.commands import serve as command

IN_A_PROCESS = """
import sys
from deliberate.cli.main import main
for typed in sys.argv[1:]:
    code = main(["serve", *typed.split()])
    print(code, [name for name in ("torch", "transformers", "datasets") if name in sys.modules])
"""


@pytest.fixture
def environment(tmp_path):
    return os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture
def started(environment, tmp_path):
    """Start the program, and wait until it says where it is."""
    running = []

    def started(*arguments):
        log = tmp_path / f"log-{len(running)}"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", "import sys; from deliberate.cli.main import main; "
                 "sys.exit(main())", "serve", "--port", "0", "--wait-limit", "240", *arguments],
                stderr=file, stdout=subprocess.PIPE, env=environment, cwd=tmp_path,
            )  # fmt: skip
        running.append(process)
        until = time.monotonic() + 300
        while "is served at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        [line] = [line for line in log.read_text().splitlines() if "is served at" in line]
        return process, line.split("is served at ")[1].split()[0], log

    yield started
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url, path, body=None):
    request = urllib.request.Request(
        url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


@pytest.mark.slow
def test_without_arguments_nano_is_served_and_what_was_kept_is_there_again(started, tmp_path):
    process, url, log = started()
    body = {"prompt": "import os\n\n\ndef ", "max_tokens": 8, "temperature": 0}
    plain = ask(url, "/v1/completions", {**body, "deliberate": "never"})
    assert plain["deliberate"]["latents"] == "never"
    thought = ask(url, "/v1/completions", {**body, "deliberate": "wait"})
    assert thought["deliberate"]["latents"] == "used", log.read_text()
    assert thought["model"] == "nano"
    kept = ask(url, "/v1/caches", {"text": "def main", "deliberate": "wait"})
    assert kept["state"] == "augmented"
    assert list((tmp_path / "home" / "deliberate" / "caches").rglob("*.st"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    lines = log.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert events[-2:] == ["stopping", "stopped"]
    assert "Traceback" not in log.read_text()
    assert process.stdout.read() == b""

    process, url, log = started("--thinker", "thread", "--name", "mine")
    answer = ask(url, "/v1/completions", {"prompt": "(", "cache": kept["id"]})
    assert answer["deliberate"]["latents"] == "used"
    assert answer["model"] == "mine"
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    assert "Traceback" not in log.read_text()


class TestRefused:
    def test_without_its_extra_one_sentence_names_it(self, refused, monkeypatch):
        real = command.find_spec
        monkeypatch.setattr(command, "find_spec", lambda n: None if n == "fastapi" else real(n))
        line = refused("serve")
        assert "fastapi" in line
        assert "install the wheel of deliberate-serve" in line

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--port", 70000),
            ("--gate", -1),
            ("--gate", "nan"),
            ("--max-concurrent", 0),
            ("--max-queue", -1),
            ("--timeout", 0),
            ("--disk-budget", "much"),
            ("--thinker", "nowhere"),
            ("--thinker-device", "nowhere"),
            ("--drain", "inf"),
        ],
    )
    def test_a_wrong_option_is_refused_before_anything_is_loaded(self, refused, option, value):
        assert str(value) in refused("serve", option, value, code=2)

    def test_what_is_wrong_or_taken_is_told_without_anything_heavy(self, environment, tmp_path):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
            typed = {
                "--port 70000": "port must be from 0 to 65535, got 70000",
                "--gate -1": "gate must be at least 0 nats and finite, got -1.0",
                "--engine vllm --engine-url nowhere": "engine_url must be like http://host:8000",
                "--thinker-device gpu": "no device 'gpu' here",
                "--base nosuch": "which coprocessor serves 'nosuch'?",
                "--base ./nosuch --thinker none": "no base model at './nosuch'",
                "--coprocessor nosuch": "no coprocessor at 'nosuch'",
                f"--port {port}": f":{port}: address already in use; choose",
            }
            process = subprocess.run(
                [sys.executable, "-c", IN_A_PROCESS, *typed],
                capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
            )  # fmt: skip
        codes = [2] * 5 + [1] * 3
        assert process.stdout.splitlines() == [f"{code} []" for code in codes], process
        for line, said in zip(process.stderr.splitlines(), typed.values(), strict=True):
            assert said in line

    def test_a_device_is_of_a_process_only(self, refused):
        line = refused("serve", "--thinker", "thread", "--thinker-device", "cpu", code=2)
        assert "--thinker is thread" in line

    def test_a_port_that_is_taken_is_named(self, refused):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
            assert f"127.0.0.1:{port}" in refused("serve", "--port", port)

    def test_a_coprocessor_of_another_base_is_refused(self, refused, coprocessor_folder):
        line = refused("serve", "--base", "nano", "--coprocessor", coprocessor_folder, "--port", 0)
        assert "name its base" in line

    def test_a_base_without_a_coprocessor_is_asked_which(self, refused, llama_folder):
        line = refused("serve", "--base", llama_folder, code=2)
        assert "--coprocessor" in line
        assert "--thinker none" in line

    def test_a_second_server_on_a_store_is_refused_by_the_first_one_s_process(
        self, refused, llama_folder, tmp_path, monkeypatch
    ):
        from deliberate.core.base import base_fingerprint
        from deliberate.core.folder_lock import FolderLock

        monkeypatch.delattr(command, "load_base")  # it is told before the base is loaded
        arguments = ("--base", llama_folder, "--thinker", "none", "--port", 0)
        usual = tmp_path / "home" / "deliberate" / "caches" / base_fingerprint(str(llama_folder))
        mine = tmp_path / "store"
        for folder, named in ((mine, ("--store", mine)), (usual, ())):
            with FolderLock(folder):
                line = refused("serve", *arguments, *named)
            assert f"in use by process {os.getpid()}" in line

    def test_a_coprocessor_that_is_not_there_is_refused(self, refused):
        assert "nothing" in refused("serve", "--coprocessor", "./nothing", "--port", 0)


def test_help_names_what_people_look_for(run):
    text = run("serve", "--help").out
    for option in ("--base", "--coprocessor", "--store", "--api-key", "DELIBERATE_API_KEY"):
        assert option in text


def test_the_page_is_part_of_the_package():
    from importlib.resources import files

    assert Path(str(files("deliberate.serve") / "page.html")).is_file()


@pytest.mark.parametrize(
    "arguments", [["--engine", "vllm"], ["--engine-url", "http://127.0.0.1:9"]], ids=" ".join
)
def test_an_engine_elsewhere_is_named_with_its_address(refused, arguments):
    assert "--engine-url" in refused("serve", *arguments, code=2)


def test_latents_that_embeddings_cannot_tell_are_not_served_elsewhere(
    refused, llama_folder, coprocessor_folder
):
    told = refused(
        "serve",
        *("--base", llama_folder, "--coprocessor", coprocessor_folder, "--port", "0"),
        *("--engine", "vllm", "--engine-url", "http://127.0.0.1:9"),
    )
    assert "positions: over" in told
