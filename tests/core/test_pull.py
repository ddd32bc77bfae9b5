"""What is pulled is what was published, whole, or nothing."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from deliberate.core import Coprocessor, load_coprocessor
from deliberate.core.checkpoint import FILES
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.full import FullCoprocessor
from deliberate.core.pull import pull
from deliberate.core.soft import SoftEmbedding

REPO = "someone/thinker"


@pytest.fixture
def shared(hub, run):
    """A repository with a coprocessor, a tag and what no coprocessor needs."""
    files = {name: (run / name).read_bytes() for name in FILES if (run / name).exists()}
    repository = hub.add(REPO, {**files, "other.safetensors": b"large", "plots/a.png": b"png"})
    repository.tags["v1"] = repository.commits[-1].sha
    return repository


@pytest.mark.parametrize("name", [REPO, f"{REPO}@v1", f"hf://{REPO}", f"hf://{REPO}@v1"])
def test_what_is_pulled_is_what_was_published_and_says_what_it_is(hub, shared, run, name, llama):
    pulled = pull(name)
    assert pulled.commit == shared.commits[-1].sha
    for file in ("config.json", "model.safetensors", "eval.json", "recipe.yaml"):
        assert (pulled.folder / file).read_bytes() == (run / file).read_bytes()
    assert not (pulled.folder / "other.safetensors").exists()
    assert pulled.id == name.removeprefix("hf://")
    assert pulled.base["id"] == "someone/tiny-llama"
    assert pulled.settings["kind"] == "full"
    assert pulled.verified
    assert pulled.usage == f'deliberate generate --coprocessor {pulled.id} --prompt "Once"'
    loaded = load_coprocessor(name, base=llama)
    assert (loaded.id, loaded.fingerprint) == (pulled.id, pulled.fingerprint)


def test_what_was_pulled_is_there_without_a_network(hub, shared, llama, monkeypatch):
    pulled = pull(f"{REPO}@v1")
    seen = len(hub.requests)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        assert pull(f"{REPO}@v1") == pulled
        assert Coprocessor.from_pretrained(REPO, base=llama, revision="v1")
    assert len(hub.requests) == seen
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert pull(f"{REPO}@v1") == pulled


def test_what_was_loaded_can_be_pulled_without_a_network(hub, shared, llama, monkeypatch):
    load_coprocessor(REPO, base=llama)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert pull(REPO).verified


def test_a_folder_is_filled_once_and_nothing_else_is_overwritten(shared, run, tmp_path, llama):
    place = tmp_path / "new" / "here"
    pulled = pull(REPO, output=place)
    assert pulled.folder == place
    assert str(place) in pulled.usage
    assert {path.name for path in place.iterdir()} == {
        "config.json", "model.safetensors", "recipe.yaml", "eval.json"
    }  # fmt: skip
    assert not any(path.is_symlink() for path in place.iterdir())
    assert load_coprocessor(place, base=llama).fingerprint == pulled.fingerprint
    assert pull(REPO, output=place) == pulled
    (place / "recipe.yaml").write_text("mine")
    with pytest.raises(DeliberateError, match="holds something else"):
        pull(REPO, output=place)
    assert (place / "recipe.yaml").read_text() == "mine"
    with pytest.raises(DeliberateError, match="is a file"):
        pull(REPO, output=run / "config.json")


def test_the_folder_that_one_is_in_is_not_replaced(hub, shared, tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("here/below")
    monkeypatch.chdir(tmp_path / "here" / "below")
    for name in (".", tmp_path / "here" / "below", tmp_path / "link"):
        with pytest.raises(DeliberateError, match="is the folder that you are in"):
            pull(REPO, output=Path(name))
    assert not hub.requests
    pull(REPO, output=Path("it"))
    assert Path("it/config.json").exists()


def test_an_empty_folder_that_a_link_leads_to_is_filled(shared, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert pull(REPO, output=tmp_path / "link").folder == tmp_path / "link"
    assert (tmp_path / "empty/config.json").exists()
    assert {path.name for path in tmp_path.iterdir()} >= {"empty", "link"}
    assert not list(tmp_path.glob(".*"))


def test_two_processes_do_not_fill_the_same_folder(shared, tmp_path, monkeypatch):
    copied, said = shutil.copyfile, []

    def copy(*paths):
        with pytest.raises(DeliberateError) as error:
            pull(REPO, output=tmp_path / "here")
        said.append(str(error.value))
        return copied(*paths)

    monkeypatch.setattr(shutil, "copyfile", copy)
    pulled = pull(REPO, output=tmp_path / "here")
    assert f"process {os.getpid()} fills" in said[0]
    assert len(said) == len(list(pulled.folder.iterdir())) == 4
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_settings_that_are_younger_than_a_file_are_told(shared):
    config = json.loads(shared.commits[-1].files["config.json"])
    del config["checksum"], config["coprocessor"]["latents"], config["coprocessor"]["positions"]
    shared.commit("old", added={"config.json": json.dumps(config).encode()}, removed=set())
    assert (pull(REPO).settings["latents"], pull(REPO).settings["positions"]) == (4, "after")


def test_what_is_no_coprocessor_is_refused_before_its_weights_are_fetched(hub):
    hub.add("someone/model", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x"})
    hub.add("someone/empty", {})
    for name in ("someone/model", "someone/empty"):
        with pytest.raises(CheckpointError, match=f"'{name}' is not a coprocessor"):
            pull(name)
    assert not any("model.safetensors" in line for line in hub.requests)


def test_weights_that_are_not_those_of_the_checksum_are_refused(hub, shared):
    weights = bytearray(shared.commits[-1].files["model.safetensors"])
    weights[-1] ^= 1
    shared.commit("tamper", added={"model.safetensors": bytes(weights)}, removed=set())
    with pytest.raises(CheckpointError, match=r"'someone/thinker' does not match .*tell its owner"):
        pull(REPO)
    assert pull(f"{REPO}@v1").verified


@pytest.mark.parametrize("name", [REPO, f"{REPO}@v1"])
def test_weights_that_were_damaged_in_the_cache_are_told_apart_without_a_network(
    hub, shared, monkeypatch, name
):
    weights = (pull(name).folder / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError, match="in the Hub's cache, and cannot be fetched"):
            pull(name)
    assert pull(name).verified


def test_a_coprocessor_without_weights_is_refused(hub, shared):
    shared.commit("forget", added={}, removed={"model.safetensors"})
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        pull(REPO)


def test_a_coprocessor_of_another_base_is_refused_by_id_and_fingerprint(shared, llama):
    config = json.loads(shared.commits[-1].files["config.json"])
    config["base"] |= {"id": "someone/giant", "fingerprint": "f" * 16}
    del config["checksum"]
    shared.commit("other", added={"config.json": json.dumps(config).encode()}, removed=set())
    with pytest.raises(CheckpointError, match="serves base 'someone/giant'") as error:
        Coprocessor.from_pretrained(REPO, base=llama)
    assert "f" * 16 in str(error.value)
    assert llama.fingerprint in str(error.value)


def test_from_pretrained_gives_the_kind_that_it_is_asked_of(shared, run, llama):
    here = load_coprocessor(run, base=llama).coprocessor
    for name in (REPO, f"hf://{REPO}@v1", run):
        for kind in (Coprocessor, FullCoprocessor):
            found = kind.from_pretrained(name, base=llama)
            for key, tensor in here.state_dict().items():
                assert tensor.equal(found.state_dict()[key])
    with pytest.raises(CheckpointError, match="of kind 'full' and no SoftEmbedding"):
        SoftEmbedding.from_pretrained(REPO, base=llama)
