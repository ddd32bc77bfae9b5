import json
import subprocess
import sys

import huggingface_hub.constants
import pytest

from deliberate.cli.main import main
from deliberate.core import load_base, save_coprocessor

# The Hub's own client uploads large files in a way that its HTTP library wants to change.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/thinker"
FILES = {"README.md", "config.json", "model.safetensors", "recipe.yaml"}


@pytest.fixture
def run(llama_folder, make, tmp_path):
    """A finished run's folder, not evaluated."""
    base = load_base(str(llama_folder))
    folder = tmp_path / "run"
    save_coprocessor(make(base, "warm"), folder, base=base)
    (folder / "recipe.yaml").write_text("train:\n  steps: 1\n")
    (folder / "checkpoints").mkdir()
    return folder


def push(*arguments):
    """Push a run of which nothing was measured."""
    return main(["push", *map(str, arguments), "--without-evaluation"])


def _fails(capsys, *arguments):
    """The one line that a failing push says, beside what it was to publish."""
    assert push(*arguments) == 1
    said = capsys.readouterr()
    assert not said.out
    *before, line = said.err.splitlines()
    assert all(one.startswith("public, for anyone") for one in before)
    return line


def test_push_prints_where_the_coprocessor_is_and_nothing_else(hub, run, capsys):
    assert push(run, REPO, "--private") == 0
    assert capsys.readouterr().out == f"{hub.url}/{REPO}\n"
    repository = hub.repositories[REPO]
    assert repository.private
    assert repository.commits[-1].changed == FILES


def test_push_as_json_is_one_object(hub, run, capsys):
    assert push(run, REPO, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["commit"] == hub.repositories[REPO].commits[-1].sha
    assert said["url"] == f"{hub.url}/{REPO}"
    assert said["private"] is said["dry_run"] is False


def test_a_dry_run_shows_every_file_and_the_whole_card_and_contacts_nobody(
    hub, run, capsys, monkeypatch
):
    monkeypatch.delenv("HF_TOKEN")
    assert push(run, REPO, "--dry-run", "--private") == 0
    shown = capsys.readouterr().out
    assert push(run, REPO, "--dry-run", "--private", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert not hub.requests

    assert f"{hub.url}/{REPO} (private)" in shown
    assert {file["path"] for file in said["files"]} == FILES
    for file in said["files"]:
        assert f"{file['bytes']:,} bytes  {file['path']}\n" in shown
    assert said["card"] in shown
    assert said["private"] is said["dry_run"] is True


def test_a_dry_run_shows_what_a_push_then_sends(hub, run, capsys):
    push(run, REPO, "--dry-run", "--json")
    said = json.loads(capsys.readouterr().out)
    assert push(run, REPO) == 0
    sent = hub.repositories[REPO].commits[-1]
    assert {file["path"]: file["bytes"] for file in said["files"]} == {
        name: len(sent.files[name]) for name in sent.changed
    }
    assert said["card"].encode() == sent.files["README.md"]


def test_a_push_says_what_is_public_and_of_what(hub, run, capsys):
    assert push(run, REPO) == 0
    told = capsys.readouterr().err
    assert told.startswith("public, for anyone to read and to copy: README.md, config.json")
    assert push(run, "someone/other", "--private") == 0
    assert capsys.readouterr().err.startswith("private, for you")


def test_a_run_that_was_not_evaluated_is_one_line(hub, run, capsys):
    assert main(["push", str(run), REPO, "--dry-run"]) == 1
    told = capsys.readouterr().err
    assert "`deliberate eval" in told
    assert "--without-evaluation" in told
    assert told.count("\n") == 1
    assert not hub.requests


def test_a_dry_run_on_a_terminal_has_a_picture_of_the_card(hub, run, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    config = json.loads((run / "config.json").read_text())
    config["recipe"] = {"train": {"steps": "\x1b]0;title\x07"}}
    del config["checksum"]
    (run / "config.json").write_text(json.dumps(config))
    assert push(run, REPO, "--dry-run", "--tag", "v1", "--revision", "trial", "--create-pr") == 1
    capsys.readouterr()
    assert push(run, REPO, "--dry-run", "--tag", "v1", "--revision", "trial") == 0
    shown = capsys.readouterr().out
    assert "on branch 'trial', in one commit, with tag 'v1'" in shown
    assert "metadata" in shown
    assert "\x1b[" in shown
    assert "## How to use it" not in shown
    assert "How to use it" in shown
    assert "\x1b]0;" not in shown
    assert "x1b]0;title" in shown


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, "does not accept the token"), (403, "may not write"), (404, "has no place")],
)
def test_a_refusal_of_the_hub_is_one_line(hub, run, capsys, status, sentence):
    hub.refusals["."] = status
    assert sentence in _fails(capsys, run, REPO)


def test_a_push_without_a_token_says_how_to_give_one(hub, run, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "set HF_TOKEN" in _fails(capsys, run, REPO)
    assert not hub.requests


def test_a_push_without_a_network_is_one_line(hub, run, impatient, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "run the same command again" in _fails(capsys, run, REPO)


def test_what_cannot_be_pushed_is_refused_before_anyone_is_contacted(hub, run, capsys, tmp_path):
    assert "give 'user/repo'" in _fails(capsys, run, "thinker")
    assert "no run folder" in _fails(capsys, tmp_path / "none", REPO)
    assert "is not a coprocessor" in _fails(capsys, run / "checkpoints", REPO)
    assert not hub.requests


_PUSH_AND_AUGMENT = """
import sys
from deliberate.cli.main import main

run, base, repo = sys.argv[1:]
for command in (
    ["push", run, repo, "--without-evaluation"],
    ["prefill", "--text", "He thought.", "--base", base, "-o", "here.st"],
    ["augment", "here.st", "--coprocessor", repo, "--base", base, "-o", "by-id.st"],
    ["augment", "here.st", "--coprocessor", run, "--base", base, "-o", "by-folder.st"],
):
    assert main(command) == 0, command
"""


def test_a_cache_is_augmented_by_the_id_that_was_pushed(
    hub, run, llama_folder, tmp_path, monkeypatch
):
    from deliberate.core import CacheFile

    for name, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    program = [sys.executable, "-c", _PUSH_AND_AUGMENT, str(run), str(llama_folder), REPO]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_id, by_folder = (CacheFile(tmp_path / f"by-{how}.st").cache() for how in ("id", "folder"))
    assert by_id.latents is not None
    assert by_id.latents.equal(by_folder.latents)
    assert by_id.origin.coprocessor == REPO
