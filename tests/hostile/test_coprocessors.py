"""A coprocessor's folder that somebody damaged or forged is refused in one sentence."""

import json
import os
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import forged_text, mutate

from deliberate.core import weights_file
from deliberate.core.checkpoint import load_coprocessor, read_config
from deliberate.core.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("no_home")


def said(folder, base, **options):
    with pytest.raises(CheckpointError) as caught:
        load_coprocessor(folder, base=base, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(folder, **settings):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["coprocessor"] |= settings
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_mutations_are_refused_or_change_nothing(coprocessor_path, read_coprocessor, llama, name):
    path = coprocessor_path / name
    content = path.read_bytes()
    [_, described, weights] = read_coprocessor(coprocessor_path, llama)

    @given(st.integers(0, 2**32))
    @settings(max_examples=60)
    def refused_or_the_same(seed):
        rng = random.Random(seed)
        if name == "config.json" and seed % 2:
            path.write_text(forged_text(rng, content.decode()))
        else:
            path.write_bytes(mutate(rng, content))
        word, settings_of, found = read_coprocessor(coprocessor_path, llama)
        if word == "read":
            assert settings_of == described
            assert all(found[key].equal(weights[key]) for key in weights)
        else:
            assert "\n" not in settings_of["said"]
            assert len(settings_of["said"]) < 2000

    refused_or_the_same()


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"latents": True}, "latents"),
        ({"latents": 3.0}, "latents"),
        ({"rank": 2.5}, "rank"),
        ({"kind": ["full"]}, "kind"),
        ({"kind": {}}, "kind"),
        ({"layers": ["a"]}, "layers"),
        ({"layers": "01"}, "layers"),
        ({"layers": 1}, "config.json"),
        ({"targets": [1]}, "targets"),
        ({"soft_input": ["free"]}, "soft_input"),
        ({"latent_scale": 10**400}, "config.json"),
        ({"latent_scale": "1"}, "latent_scale"),
        ({"kind": "lora", "rank": 10**9}, "rank must be at most 1048576, got 1000000000"),
        ({"layers": [10**9], "kind": "hidden"}, "layers"),
    ],
)
def test_settings_of_another_type_are_refused(coprocessor_path, llama, settings_, told):
    changed(coprocessor_path, **settings_)
    assert told in said(coprocessor_path, llama)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        '"x"',
        "[" * 100_000,
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": "\\ud800"}',
    ],
)
def test_settings_that_are_no_plain_json_are_refused(coprocessor_path, llama, text):
    (coprocessor_path / "config.json").write_text(text)
    assert "is not a coprocessor" in said(coprocessor_path, llama)


def test_what_is_no_regular_file_is_refused_at_once(coprocessor_path, llama):
    weights, config = coprocessor_path / "model.safetensors", coprocessor_path / "config.json"
    for path in (weights, config):
        path.unlink()
        os.mkfifo(path)
        assert "not a regular file" in said(coprocessor_path, llama)
        path.unlink()
        path.symlink_to(path.name)
        assert "symbolic link" in said(coprocessor_path, llama)


def test_settings_of_endless_length_are_refused(coprocessor_path, llama):
    with (coprocessor_path / "config.json").open("a") as file:
        file.truncate(10**12)  # takes no room on the disk
    assert "larger than" in said(coprocessor_path, llama)


def test_weights_of_other_names_or_shapes_are_refused_from_the_header(
    coprocessor_path, llama, forged
):
    file = forged(coprocessor_path / "model.safetensors")
    name = next(name for name in file.header if name.endswith("soft_tokens"))
    file.header["other"] = file.header.pop(name)
    file.write()
    assert "does not hold the weights that its config.json describes" in said(
        coprocessor_path, llama
    )


def test_shards_are_not_a_coprocessor(coprocessor_path, llama):
    """No index is followed: it would be a way to files outside of the folder."""
    (coprocessor_path / "model.safetensors").rename(coprocessor_path.parent / "secret.safetensors")
    (coprocessor_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": "../secret.safetensors"}})
    )
    assert "model.safetensors'" in said(coprocessor_path, llama)


def test_every_bit_of_weights_and_settings_is_under_the_checksum(coprocessor_path, llama):
    config = read_config(coprocessor_path)
    assert weights_file.verify(coprocessor_path, config)
    weights = coprocessor_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    before = weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk would
    load_coprocessor(coprocessor_path, base=llama)
    assert "checksum" in said(coprocessor_path, llama, verify=True)
    content[-1] ^= 1
    weights.write_bytes(content)
    for change in ({"recipe": {"steps": 1}}, {"base": config["base"] | {"revision": "x"}}):
        (coprocessor_path / "config.json").write_text(json.dumps(config | change))
        assert "checksum" in said(coprocessor_path, llama, verify=True)


def test_weights_that_are_no_numbers_are_found_by_verify(coprocessor_path, llama, forged):
    file = forged(coprocessor_path / "model.safetensors")
    nan = torch.tensor([float("nan")]).numpy().tobytes()
    file.content = nan + file.content[4:]
    file.write()
    assert "NaN or infinity" in said(coprocessor_path, llama, verify=True)


def test_a_folder_without_a_checksum_is_read_as_before(coprocessor_path, llama):
    config = read_config(coprocessor_path)
    del config["checksum"]
    (coprocessor_path / "config.json").write_text(json.dumps(config))
    assert not weights_file.verify(coprocessor_path, config)
    load_coprocessor(coprocessor_path, base=llama, verify=True)
