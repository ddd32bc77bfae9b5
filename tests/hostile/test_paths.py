"""No name in a file, a URL or an option leads out of the folder that it was found in."""

import json
import os
import struct

import pytest

from deliberate.core import hub, publication
from deliberate.core.base import load_base
from deliberate.core.errors import DeliberateError

pytestmark = pytest.mark.usefixtures("no_home")


def said(folder):
    with pytest.raises(DeliberateError) as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def sharded(llama_folder):
    """The tiny Llama's weights as a file that an index names."""
    weights = llama_folder / "model.safetensors"
    content = weights.read_bytes()
    [size] = struct.unpack("<Q", content[:8])
    names = [name for name in json.loads(content[8 : 8 + size]) if name != "__metadata__"]
    weights.rename(llama_folder / "one.safetensors")

    def index(shard):
        content = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (llama_folder / "model.safetensors.index.json").write_text(json.dumps(content))
        return llama_folder

    return index


def test_shards_of_its_own_folder_are_read(sharded):
    load_base(str(sharded("one.safetensors")))


@pytest.mark.parametrize(
    "shard",
    ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "weights.bin", 1, ["x"]],
)
def test_shards_outside_of_the_folder_are_refused_though_they_exist(sharded, shard):
    folder = sharded(shard)
    (folder / "one.safetensors").rename(folder.parent / "outside.safetensors")
    assert "in its model.safetensors.index.json" in said(folder)


def test_an_absolute_shard_is_refused_though_it_exists(sharded, llama_folder):
    assert "of its own folder" in said(sharded(str(llama_folder / "one.safetensors")))


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', "[" * 100_000, "not json"])
def test_an_index_that_is_none_is_refused(llama_folder, index):
    (llama_folder / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in said(llama_folder)


def test_an_adapter_that_would_bring_another_model_is_refused(llama_folder):
    (llama_folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/else", "peft_type": "LORA"})
    )
    assert "names another model" in said(llama_folder)


def test_files_of_a_tokenizer_that_are_no_list_are_refused(llama_folder):
    path = llama_folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fast_tokenizer_files": 5}))
    assert "fast_tokenizer_files in its tokenizer_config.json that are no list" in said(
        llama_folder
    )


def test_a_configuration_that_is_nested_deep_is_refused(llama_folder):
    path, deep = llama_folder / "config.json", "[" * 600 + "]" * 600
    path.write_text(f'{{"deep": {deep}, {path.read_text().strip()[1:]}')
    assert "recursion depth" in said(llama_folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("deep", [False, True])
def test_attention_from_the_hub_is_refused(llama_folder, key, deep):
    path = llama_folder / "config.json"
    value = {key: "someone/kernel"}
    path.write_text(json.dumps(json.loads(path.read_text()) | ({"text": value} if deep else value)))
    assert "code from the Hub" in said(llama_folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"fast_tokenizer_files": ["../../tokenizer.4.0.json"]},
        {"fast_tokenizer_file": "/etc/passwd"},
    ],
)
def test_a_tokenizer_elsewhere_is_refused(llama_folder, settings):
    path = llama_folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert "in its tokenizer_config.json" in said(llama_folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pipe_in_a_models_folder_is_refused_at_once(llama_folder, name):
    (llama_folder / name).unlink()
    os.mkfifo(llama_folder / name)
    assert "not a regular file" in said(llama_folder)


@pytest.mark.parametrize(
    "name",
    ["../absent", "someone/..", "someone/../..", "a/b/c", "/absent", "~/absent", "a\0"],
)
def test_an_id_that_climbs_is_no_id_of_the_hubs(name):
    with pytest.raises(DeliberateError, match="neither a folder nor a Hub id"):
        hub.resolve(name, revision=None, what="coprocessor")


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a/../b", "", "a b", "a\n", "a\0b"])
def test_a_revision_that_climbs_is_refused(revision):
    with pytest.raises(DeliberateError, match="cannot be a revision"):
        hub.resolve("someone/model", revision=revision, what="base model")


def test_a_snapshot_with_a_link_out_of_the_cache_is_refused(tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "c"
    blob = tmp_path / "hub" / "models--a--b" / "blobs" / "1"
    for folder in (snapshot, blob.parent):
        folder.mkdir(parents=True)
    blob.write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(snapshot))
    found = hub.resolve("a/b", revision=None, what="coprocessor")
    assert (found.folder, found.commit) == (snapshot, "c")
    (snapshot / "recipe.txt").symlink_to("/etc/passwd")
    with pytest.raises(DeliberateError, match="leads out of the Hub's cache"):
        hub.resolve("a/b", revision=None, what="coprocessor")


def test_a_link_out_of_a_run_is_not_published(coprocessor_path, tmp_path):
    (tmp_path / "private.yaml").write_text("key: value")
    (coprocessor_path / "recipe.yaml").symlink_to(tmp_path / "private.yaml")
    with pytest.raises(publication.PublishError, match="leads out of its folder"):
        publication.prepare(coprocessor_path, "someone/tiny", without_evaluation=True)
