import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from deliberate.core import fingerprint, load_base
from deliberate.core import hub as names
from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.publish import PublishError, prepare, publish

# The Hub's own client uploads large files in a way that its HTTP library wants to change.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/thinker"
RECIPE = {
    "data": {"train": "/home/someone/secret plans/letters.txt", "length": 32},
    "objective": {"ahead": 4, "anchors": 8},
    "train": {"steps": 12, "batch": 2, "soft_learning_rate": None},
}
ALL = {"README.md", "config.json", "model.safetensors", "recipe.yaml", "eval.json"}


def _report(run, **changes):
    """What `deliberate eval` writes: a gain at token 1, none at 2, harm at 4."""
    change = {
        "1": {"value": -3.0, "low": -3.5, "high": -2.5},
        "2": {"value": -0.1, "low": -0.4, "high": 0.2},
        "4": {"value": 1.0, "low": 0.5, "high": 1.5},
    }
    return {
        "perplexity": {
            "base": {"1": 10.0, "2": 9.5, "4": 9.0},
            "latents": {"1": 9.7, "2": 9.49, "4": 9.09},
            "soft": {"1": 9.9, "2": 9.5, "4": 9.0},
        },
        "change_percent": {"latents": change, "soft": change},
        "anchors": 640,
        "passages": 20,
        "documents": 1,
        "resampled": "passage",
        "data": "stdlib",
        "length": 64,
        "fingerprints": {"latents": _fingerprint(run)},
        **changes,
    }


def _fingerprint(run):
    settings = json.loads((run / "config.json").read_text())["coprocessor"]
    return fingerprint.of_coprocessor(run, settings)


@pytest.fixture
def run(llama, make, tmp_path):
    """A finished run's folder, evaluated, with its checkpoints still there."""
    folder = tmp_path / "run"
    on_hub = dataclasses.replace(llama, id="someone/tiny-llama", revision="b" * 40)
    save_coprocessor(make(llama, "warm"), folder, base=on_hub, recipe=RECIPE)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "eval.json").write_text(json.dumps(_report(folder)))
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "checkpoints" / "12").mkdir(parents=True)
    (folder / "checkpoints" / "12" / "model.safetensors").write_bytes(b"state")
    return folder


def _card(run):
    return prepare(run, REPO).card


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


def test_an_evaluation_of_earlier_weights_does_not_stay_on_the_hub(hub, run):
    hub.add(REPO, {"eval.json": b"old", "recipe.yaml": b"old", "notes.txt": b"mine"})
    (run / "eval.json").unlink()
    publish(prepare(run, REPO))
    commits = hub.repositories[REPO].commits
    assert set(commits[-1].files) == (ALL - {"eval.json"}) | {"notes.txt", ".gitattributes"}
    assert len(commits) == 3


def test_preparing_contacts_nobody(hub, run):
    prepare(run, REPO, private=True)
    assert not hub.requests


@pytest.mark.parametrize(
    ("route", "status", "sentence"),
    [
        ("create", 401, "does not accept the token: set HF_TOKEN"),
        ("create|GET", 403, "the token may not write to 'someone/thinker'"),
        ("create", 404, "has no place for 'someone/thinker'"),
        ("create", 500, "answered 500"),
        ("/commit/", 403, "the token may not write"),
        ("/uploads/", 403, "the token may not write"),
        ("validate-yaml", 502, "answered 502"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_and_publishes_nothing(
    hub, run, route, status, sentence
):
    hub.refusals[route] = status
    with pytest.raises(PublishError, match=sentence) as caught:
        publish(prepare(run, REPO))
    assert "\n" not in str(caught.value)
    assert all(len(repository.commits) == 1 for repository in hub.repositories.values())


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


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"cannot publish at http://127.0.0.1:9: .*again"):
        publish(prepare(run, REPO))


@pytest.mark.parametrize("repo", ["thinker", "a/b/c", "a b/c", "", "/c", "a/", "a/b..c", "a/../b"])
def test_a_name_that_is_no_repository_id_is_refused(run, repo):
    with pytest.raises(PublishError, match="give 'user/repo'"):
        prepare(run, repo)


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(PublishError, match="no run folder at 'nowhere/at-all'"):
        prepare("nowhere/at-all", REPO)
    with pytest.raises(CheckpointError, match="is not a coprocessor"):
        prepare(tmp_path, REPO)


def test_damaged_weights_are_refused(run):
    weights = run / "model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, weights)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        prepare(run, REPO)
    weights.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="cannot read"):
        prepare(run, REPO)


@pytest.mark.parametrize(
    "changes",
    [
        {"perplexity": {"base": {"1": "high"}}},
        {"change_percent": {}},
        {"change_percent": []},
        {"fingerprints": []},
    ],
)
def test_an_evaluation_that_lacks_its_numbers_is_refused(run, changes):
    (run / "eval.json").write_text(json.dumps(_report(run, **changes)))
    with pytest.raises(DeliberateError, match=r"run `deliberate eval.*` again, or remove it"):
        prepare(run, REPO)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_evaluation_that_cannot_be_read_is_refused(run, content):
    (run / "eval.json").write_text(content)
    with pytest.raises(DeliberateError, match=r"run `deliberate eval.*` again, or remove it"):
        prepare(run, REPO)


def test_an_evaluation_of_other_weights_is_refused(run):
    (run / "eval.json").write_text(json.dumps(_report(run, fingerprints={"latents": "0" * 16})))
    with pytest.raises(PublishError, match="measured other weights"):
        prepare(run, REPO)


def test_the_card_claims_a_gain_only_where_the_interval_excludes_zero(run):
    card = _card(run)
    assert "With latents the perplexity is lower at token 1." in card
    assert "No measured gain at token 2: the interval includes zero." in card
    assert "With latents the perplexity is higher at token 4." in card
    assert "| 1 | 10.000 | 9.700 (-3.00 %: -3.50 to -2.50) | 9.900" in card
    assert "`stdlib` (1 document, 20 passages, 640 anchors, at most 64 tokens a passage)" in card
    assert "bootstrap over passages" in card


def test_the_card_of_a_run_that_was_not_evaluated_says_so(run):
    (run / "eval.json").unlink()
    card = _card(run)
    assert "It was not evaluated" in card
    assert "%" not in card


def test_the_card_states_what_the_run_states(run, llama, make):
    card = _card(run)
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["base_model"] == "someone/tiny-llama"
    assert metadata["base_model_relation"] == "adapter"
    assert metadata["library_name"] == "deliberate"
    assert metadata["pipeline_tag"] == "text-generation"
    assert "license" not in metadata
    for stated in (
        "(N_L): 3\n",
        "(N_A): 4\n",
        f"revision `{'b' * 40}`, fingerprint `llama`",
        "`soft_input` `last_token`, `latent_norm` `before`, `latent_scale` `16.0`",
        f"Parameters: {make(llama, 'warm').num_parameters:,}, in float32",
        "| `data.train` | `letters.txt` |",
        "| `train.steps` | `12` |",
    ):
        assert stated in card
    assert "None" not in card


def test_a_base_that_is_not_on_the_hub_is_not_linked_there(run):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id="/home/someone/models/mine", revision="")
    (run / "config.json").write_text(json.dumps(config))
    card = _card(run)
    assert "base_model" not in card
    assert "huggingface.co/" not in card
    assert "/home" not in card
    assert "`mine`, which was a folder and not on the Hub" in card
    assert 'load_base("path/to/mine")' in card


def test_the_embedded_base_needs_no_name_in_the_card(run):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id="nano", revision="")
    (run / "config.json").write_text(json.dumps(config))
    card = _card(run)
    assert "base_model" not in card
    assert "load_base()" in card
    assert f"deliberate generate --coprocessor {REPO}" in card


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_an_id_that_the_hub_refuses_is_one_sentence(hub, status):
    hub.refusals["GET"] = status
    with pytest.raises(
        DeliberateError, match=r"no coprocessor 'someone/else' from the Hub"
    ) as error:
        names.resolve("someone/else", revision=None, what="coprocessor")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_file_that_the_hub_refuses_is_one_sentence(hub, status):
    hub.add(REPO, {"config.json": b"{}"})
    hub.refusals["/resolve/"] = status
    with pytest.raises(DeliberateError, match=r"no coprocessor 'someone/thinker'") as error:
        names.resolve(REPO, revision=None, what="coprocessor")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "not there"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(hub, name):
    with pytest.raises(DeliberateError, match="neither a folder nor a Hub id"):
        names.resolve(name, revision=None, what="coprocessor")
    assert not hub.requests


def test_a_revision_that_is_not_there_is_named(hub):
    hub.add(REPO, {"config.json": b"{}"})
    with pytest.raises(DeliberateError, match="has no revision 'v2'"):
        names.resolve(REPO, revision="v2", what="coprocessor")


def test_an_id_without_a_network_is_one_sentence(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DeliberateError, match="the Hub cannot be reached: give a folder") as error:
        names.resolve("someone/else", revision=None, what="coprocessor")
    assert "\n" not in str(error.value)


_PUBLISH_AND_LOAD = """
import sys
import torch
from deliberate.core import load_base, load_coprocessor, save_coprocessor
from deliberate.core.publish import prepare, publish

folder = sys.argv[1]
base = load_base("someone/tiny-llama")
original = load_coprocessor(folder, base=load_base(sys.argv[2]))
save_coprocessor(original.coprocessor, __import__("pathlib").Path(folder), base=base)
publication = prepare(folder, "someone/thinker", private=True)
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
