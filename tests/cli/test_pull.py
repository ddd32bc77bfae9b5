import json

import pytest

from deliberate.cli.main import main
from deliberate.core import load_base, save_coprocessor

REPO = "someone/thinker"


@pytest.fixture
def shared(hub, llama_folder, make, tmp_path, monkeypatch):
    """A repository with a coprocessor for a base that is a folder."""
    monkeypatch.chdir(tmp_path)
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm"), tmp_path / "run", base=base)
    names = ("config.json", "model.safetensors")
    return hub.add(REPO, {name: (tmp_path / "run" / name).read_bytes() for name in names})


def test_pull_says_what_it_is_and_how_to_use_it(shared, capsys):
    assert main(["pull", REPO]) == 0
    shown = capsys.readouterr().out
    assert f"fetched   {REPO}, commit {shared.commits[-1].sha}, checksum is right" in shown
    assert "kind      full, 3 latents" in shown
    assert f"use       deliberate generate --coprocessor {REPO} --base path/to/tiny-llama" in shown


def test_a_kind_without_latents_is_shown_to_have_none(hub, llama_folder, make, tmp_path, capsys):
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", kind="continued"), tmp_path / "run", base=base)
    hub.add(REPO, {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()})
    assert main(["pull", REPO]) == 0
    assert "kind      continued, no latents\n" in capsys.readouterr().out


def test_pull_as_json_is_one_object_and_the_folder_works(shared, capsys):
    assert main(["pull", f"hf://{REPO}", "-o", "here", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["id"] == REPO
    assert said["verified"]
    assert said["coprocessor"]["kind"] == "full"
    assert said["parameters"] > 0
    assert main(["inspect", "here", "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == said["fingerprint"]


@pytest.mark.parametrize("name", ["thinker", "a/b/c", "../x", f"{REPO}@a b", "hf://datasets/a/b"])
def test_a_bad_id_is_one_line_and_nobody_is_asked(hub, capsys, name):
    assert main(["pull", name]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    assert not hub.requests


def test_what_the_file_says_of_itself_cannot_steer_the_terminal(shared, capsys):
    config = json.loads(shared.commits[-1].files["config.json"])
    config["base"]["id"] = "/x/\x1b[31m$(touch y)"
    del config["checksum"]
    shared.commit("steer", added={"config.json": json.dumps(config).encode()}, removed=set())
    assert main(["pull", REPO]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "--base 'path/to/" in shown
