"""A run becomes one commit on the Hub, or one sentence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from deliberate.core import load_base
from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.publication import PublishError, prepare
from deliberate.core.publish import publish

# The Hub's own client uploads large files in a way that its HTTP library wants to change.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/thinker"
ALL = {"README.md", "config.json", "model.safetensors", "recipe.yaml", "eval.json"}


def test_one_commit_holds_exactly_the_runs_files_and_the_card(hub, run):
    publication = prepare(run, REPO)
    published = publish(publication)
    first, ours = hub.repositories[REPO].commits
    assert not first.changed - {".gitattributes"}
    assert ours.changed == ALL == set(publication.files)
    assert ours.files["README.md"].decode() == publication.card
    for name in ALL - {"README.md"}:
        assert ours.files[name] == (run / name).read_bytes()
    assert published.commit == ours.sha
    assert published.url == publication.url == f"{hub.url}/{REPO}"
    assert publication.sizes == {name: len(ours.files[name]) for name in publication.files}


def test_what_is_sent_names_no_folder_of_this_machine(hub, run, report):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id="/home/someone/models/mine", revision="")
    config["recipe"]["data"] = {"train": "/home/someone/secret plans/letters.txt"}
    recipe = {"base": {"id": "~/models/mine"}, "data": config["recipe"]["data"], "steps": 3}
    config.pop("checksum")  # changed by hand
    (run / "config.json").write_text(json.dumps(config))
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = report(run, data="/home/someone/secret plans/letters.txt (held out)")
    (run / "eval.json").write_text(json.dumps(told))
    before = {name: (run / name).read_bytes() for name in ALL - {"README.md"}}
    publish(prepare(run, REPO))
    sent = hub.repositories[REPO].commits[-1].files
    for name in ALL - {"model.safetensors"}:
        assert b"/home" not in sent[name]
        assert b"secret" not in sent[name]
    assert json.loads(sent["config.json"])["base"]["id"] == "mine"
    assert yaml.safe_load(sent["recipe.yaml"]) == {
        "base": {"id": "mine"}, "data": {"train": "letters.txt"}, "steps": 3
    }  # fmt: skip
    assert json.loads(sent["eval.json"]) == {**told, "data": "letters.txt (held out)"}
    assert before == {name: (run / name).read_bytes() for name in before}


@pytest.mark.parametrize("private", [True, False])
def test_the_repository_is_private_only_if_asked(hub, run, private):
    publish(prepare(run, REPO, private=private))
    assert hub.repositories[REPO].private is private


def test_a_private_push_to_a_public_repository_is_refused_and_sends_nothing(hub, run):
    hub.add(REPO, {})
    with pytest.raises(PublishError, match="exists and is public"):
        publish(prepare(run, REPO, private=True))
    assert len(hub.repositories[REPO].commits) == 1
    assert not hub.uploads


def test_pushing_the_same_again_changes_nothing(hub, run):
    first = publish(prepare(run, REPO))
    assert publish(prepare(run, REPO)) == first
    assert len(hub.repositories[REPO].commits) == 2


def test_weights_that_a_run_replaced_meanwhile_are_not_sent_beside_settings_of_others(hub, run):
    publication = prepare(run, REPO)
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model.safetensors").write_bytes(weights)
    (run / "config.json").write_text("{}")
    with pytest.raises(PublishError, match=r"model.safetensors' was changed since it was checked"):
        publish(publication)
    assert len(hub.repositories[REPO].commits) == 1
    assert not hub.uploads


def test_an_evaluation_of_earlier_weights_does_not_stay_on_the_hub(hub, run):
    hub.add(REPO, {"eval.json": b"old", "recipe.yaml": b"old", "notes.txt": b"mine"})
    (run / "eval.json").unlink()
    publish(prepare(run, REPO, without_evaluation=True))
    commits = hub.repositories[REPO].commits
    assert set(commits[-1].files) == (ALL - {"eval.json"}) | {"notes.txt", ".gitattributes"}
    assert len(commits) == 3


@pytest.mark.parametrize(
    ("route", "status", "sentence"),
    [
        ("create", 401, "does not accept the token: set HF_TOKEN, or run `hf auth login`"),
        ("create|GET", 403, "the token may not write to 'someone/thinker'"),
        ("create", 404, "has no place for 'someone/thinker'"),
        ("create", 500, "answered 500"),
        ("/commit/", 403, "the token may not write"),
        ("/uploads/", 403, "the token may not write"),
        ("/commit/", 403, r"may not write to 'someone/thinker' \(refused by the test\)"),
        ("/preupload/", 400, r"does not accept 'someone/thinker' as it is \(refused by the test\)"),
        ("validate-yaml", 502, "answered 502"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_and_publishes_nothing(
    hub, run, impatient, route, status, sentence
):
    hub.refusals[route] = status
    with pytest.raises(PublishError, match=sentence) as caught:
        publish(prepare(run, REPO))
    assert "\n" not in str(caught.value)
    assert all(len(repository.commits) == 1 for repository in hub.repositories.values())


def test_a_card_that_the_hub_refuses_is_told_before_anything_is_made_or_sent(hub, run):
    hub.refusals["validate-yaml"] = 400
    with pytest.raises(PublishError, match=r"\(refused by the test\): change that, and run"):
        publish(prepare(run, REPO, licence="no-such"))
    assert not hub.repositories
    assert not hub.uploads


def test_a_wrong_token_is_one_sentence(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PublishError, match="does not accept the token") as caught:
        publish(prepare(run, REPO))
    assert "hf_wrong" not in str(caught.value)
    assert not hub.repositories


def test_without_a_token_nobody_is_contacted(hub, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match="set HF_TOKEN"):
        publish(prepare(run, REPO))
    assert not hub.requests


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, run, impatient, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"cannot publish at http://127.0.0.1:9: .*again"):
        publish(prepare(run, REPO))


@pytest.mark.parametrize("named", ["option", "id"])
def test_a_branch_is_made_and_the_main_one_stays(hub, run, named):
    repository = hub.add(REPO, {"eval.json": b"old"})
    publication = (
        prepare(run, REPO, revision="trial") if named == "option" else prepare(run, f"{REPO}@trial")
    )
    for _ in range(2):
        published = publish(publication)
        assert repository.branches["trial"][-1].sha == published.commit
        assert repository.branches["trial"][-1].changed == ALL
        assert len(repository.commits) == 2


def test_a_pull_request_changes_no_branch_and_its_address_is_told(hub, run):
    repository = hub.add(REPO, {"notes.txt": b"theirs"})
    published = publish(prepare(run, REPO, create_pr=True))
    assert published.url == f"{hub.url}/{REPO}/discussions/1"
    assert len(repository.commits) == 2
    assert repository.branches["refs/pr/1"][-1].changed == ALL
    assert not any("POST /api/repos/create" in line for line in hub.requests)
    publish(prepare(run, REPO, revision="refs/pr/1"))
    assert list(repository.branches) == ["refs/pr/1"]


def test_a_pull_request_needs_a_repository(hub, run):
    with pytest.raises(PublishError, match=r"has no repository 'someone/thinker' .* --create-pr"):
        publish(prepare(run, REPO, create_pr=True))
    assert not hub.repositories


@pytest.mark.parametrize(
    "named", [{"revision": "refs/pr/9"}, {"revision": "v9", "create_pr": True}]
)
def test_a_branch_that_is_not_there_and_cannot_be_made_is_named(hub, run, named):
    hub.add(REPO, {})
    with pytest.raises(
        PublishError, match=f"'someone/thinker' has no branch '{named['revision']}'"
    ):
        publish(prepare(run, REPO, **named))
    assert not hub.uploads


def test_a_tag_names_the_commit_and_is_never_moved(hub, run):
    published = publish(prepare(run, REPO, tag="v1"))
    repository = hub.repositories[REPO]
    assert repository.tags == {"v1": published.commit}
    assert publish(prepare(run, REPO, tag="v1")) == published
    (run / "recipe.yaml").write_text("steps: 4\n")
    with pytest.raises(PublishError, match=r"published as commit .* with another tag"):
        publish(prepare(run, REPO, tag="v1"))
    commits = len(repository.commits)
    (run / "recipe.yaml").write_text("steps: 5\n")
    with pytest.raises(PublishError, match="tag 'v1' is at another commit"):
        publish(prepare(run, REPO, tag="v1"))
    assert repository.tags == {"v1": published.commit}
    assert len(repository.commits) == commits


_PUBLISH_AND_LOAD = """
import sys
import torch
from deliberate.core import load_base, load_coprocessor, save_coprocessor
from deliberate.core.local_paths import without_folders
from deliberate.core.publication import prepare
from deliberate.core.publish import publish

folder = sys.argv[1]
base = load_base("someone/tiny-llama")
original = load_coprocessor(folder, base=load_base(sys.argv[2]))
save_coprocessor(original.coprocessor, __import__("pathlib").Path(folder), base=base)
publication = prepare(folder, "someone/thinker", private=True, without_evaluation=True)
published = publish(publication)
for revision in (None, published.commit):
    again = load_coprocessor("someone/thinker", base=base, revision=revision)
    assert again.fingerprint == original.fingerprint
    for name, tensor in original.coprocessor.state_dict().items():
        assert torch.equal(again.coprocessor.state_dict()[name], tensor), name
print(publication.card)
"""

_OFFLINE = """
import sys
from deliberate.core import DeliberateError, load_base, load_coprocessor

exec(sys.stdin.read())
try:
    load_coprocessor("someone/unknown", base=base)
except DeliberateError as error:
    print("refused:", error)
"""


def _python(program, *arguments, environment, text=""):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_pushed_loads_by_id_bit_for_bit_and_later_offline_as_its_card_says(
    hub, llama, llama_folder, make, tmp_path
):
    hub.add("someone/tiny-llama", {p.name: p.read_bytes() for p in Path(llama_folder).iterdir()})
    folder = tmp_path / "run"
    here = load_base(str(llama_folder))
    save_coprocessor(make(here, "warm"), folder, base=here)
    environment = hub.environment(tmp_path / "home")
    card = _python(_PUBLISH_AND_LOAD, folder, llama_folder, environment=environment)
    assert hub.repositories[REPO].private

    seen = len(hub.requests)
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    printed = _python(_OFFLINE, environment=offline, text=code[1])
    *_, refusal = printed.splitlines()
    assert refusal.startswith("refused: no coprocessor 'someone/unknown' here")
    assert len(hub.requests) == seen
