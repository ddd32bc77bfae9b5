import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deliberate.core import CacheFile, load_base
from deliberate.core.fingerprint import of_coprocessor


def test_a_cache_file_is_described(run, augmented, llama_folder, coprocessor_folder):
    got = json.loads(run("inspect", augmented, "--json").out)
    shapes = got.pop("shapes")
    assert got == {
        "kind": "cache",
        "file": str(augmented),
        "base": str(llama_folder),
        "revision": "",
        "base_fingerprint": load_base(str(llama_folder)).fingerprint,
        "coprocessor": str(coprocessor_folder),
        "coprocessor_fingerprint": of_coprocessor(
            coprocessor_folder,
            json.loads((coprocessor_folder / "config.json").read_text())["coprocessor"],
        ),
        "tokens": 11,
        "latents": 3,
        "layers": 2,
        "dtype": "float32",
        "bytes": augmented.stat().st_size,
        "text": "h e l l o   t h e r e",
        "verified": False,
    }
    assert shapes == {
        "keys": [2, 14, 8],
        "values": [2, 14, 8],
        "token_ids": [11],
        "position_ids": [14],
        "last_hidden": [16],
        "latents": [3, 16],
        "latents_last_hidden": [16],
    }


def test_a_cache_file_is_described_for_people_too(run, cache, llama_folder):
    lines = dict(line.split(maxsplit=1) for line in run("inspect", cache).out.splitlines())
    assert lines["base"] == str(llama_folder)
    assert lines["tokens"] == "11"
    assert lines["shapes.keys"] == "[2, 11, 8]"
    assert "coprocessor" not in lines, "a plain cache has none"


def test_the_words_are_left_out_where_the_base_is_not_at_hand(run, cache, llama_folder):
    llama_folder.rename("moved")
    assert json.loads(run("inspect", cache, "--json").out)["text"] is None


def test_a_whole_file_is_verified(run, cache, augmented, coprocessor_folder):
    for path in (cache, augmented, coprocessor_folder):
        assert json.loads(run("inspect", path, "--verify", "--json").out)["verified"] is True


def test_a_folder_is_a_table(run, caches):
    outcome = run("inspect", caches)
    head, *rows = outcome.out.splitlines()
    assert head.split()[:3] == ["file", "tokens", "latents"]
    assert [row.split()[0] for row in rows] == sorted(file.name for file in caches.iterdir())
    assert "5 cache files" in outcome.err
    assert len(json.loads(run("inspect", caches, "--json").out)["files"]) == 5


def test_damaged_files_of_a_folder_are_counted_and_the_others_shown(run, caches):
    (caches / "000002.st").write_bytes(b"nothing")
    outcome = run("inspect", caches)
    assert outcome.code == 1
    assert "1 of 5 files" in outcome.err
    assert "000002.st" in outcome.err
    assert len(outcome.out.splitlines()) == 1 + 4
    [damaged] = json.loads(run("inspect", caches, "--json").out)["damaged"]
    assert damaged["file"] == str(caches / "000002.st")


def test_a_coprocessor_is_described(run, coprocessor_folder, llama_folder):
    got = json.loads(run("inspect", coprocessor_folder, "--json").out)
    assert got["kind"] == "coprocessor"
    assert got["coprocessor"]["latents"] == 3
    assert got["base"]["id"] == str(llama_folder)
    weights = load_file(coprocessor_folder / "model.safetensors")
    assert got["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert "coprocessor.latents" in run("inspect", coprocessor_folder).out


def test_what_a_stranger_called_a_value_does_not_reach_the_terminal_raw(run, coprocessor_folder):
    path = coprocessor_folder / "config.json"
    config = json.loads(path.read_text())
    config["recipe"] = {"\x1b[31mred\x1b[2J": 1}
    path.write_text(json.dumps(config))
    shown = run("inspect", coprocessor_folder).out
    assert "recipe.\\x1b[31mred\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_a_coprocessor_that_holds_nan_is_found_by_verify(run, refused, coprocessor_folder):
    weights = load_file(coprocessor_folder / "model.safetensors")
    weights["soft_tokens"][0, 0] = torch.nan
    save_file(weights, coprocessor_folder / "model.safetensors", metadata={"format": "pt"})
    assert run("inspect", coprocessor_folder).code == 0
    assert "holds NaN or infinity in 'soft_tokens'" in refused(
        "inspect", coprocessor_folder, "--verify"
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 100])
def test_a_damaged_coprocessor_is_refused(refused, coprocessor_folder, cache, name, content):
    path = coprocessor_folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert str(coprocessor_folder) in refused("inspect", coprocessor_folder)
    assert str(coprocessor_folder) in refused("augment", cache, "--coprocessor", coprocessor_folder)
    assert list(Path().glob("*.st")) == [Path("cache.st")]


def test_a_base_is_not_a_coprocessor(refused, llama_folder):
    assert "is not a coprocessor" in refused("inspect", llama_folder)


def test_inspecting_reads_no_layer(run, cache, monkeypatch):
    asked = []
    tensor = CacheFile.tensor
    monkeypatch.setattr(
        CacheFile, "tensor", lambda self, name: (asked.append(name), tensor(self, name))[1]
    )
    run("inspect", cache)
    assert asked == ["token_ids"]
