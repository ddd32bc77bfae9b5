import base64
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from deliberate.core import CacheFile, load_base, save_coprocessor
from deliberate.core.embeds import input_embeds


@pytest.fixture
def thought(run, cache, llama_folder, make) -> Path:
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "paper"), Path("after"), base=base)
    assert run("augment", cache, "--coprocessor", "after").code == 0
    return cache.with_name("cache.augmented.st")


@pytest.fixture
def expected(thought, llama_folder) -> torch.Tensor:
    with CacheFile(thought) as file:
        return input_embeds(load_base(str(llama_folder)), file.cache())


def test_embeddings_are_one_named_tensor(run, thought, expected):
    result = json.loads(run("export-embeds", thought, "--json").out)
    assert (result["tokens"], result["latents"], result["hidden"]) == (11, 3, 16)
    with safe_open(result["output"], framework="pt") as file:
        assert list(file.keys()) == ["prompt_embeds"]
        assert file.get_tensor("prompt_embeds").equal(expected)
        assert file.metadata()["coprocessor"] == "after"


def test_embeddings_are_what_vllm_decodes(run, thought, expected):
    assert run("export-embeds", thought, "-o", "embeds.pt").out == "embeds.pt\n"
    sent = base64.b64encode(Path("embeds.pt").read_bytes())
    found = torch.load(io.BytesIO(base64.b64decode(sent, validate=True)), weights_only=True)
    assert found.equal(expected)
    assert Path("embeds.pt").stat().st_size < expected.nbytes + 4096, "and not what it is part of"


def test_what_embeddings_cannot_say_is_refused(refused, cache, augmented):
    assert "no latents" in refused("export-embeds", cache)
    assert "positions: over" in refused("export-embeds", augmented)
    assert "'embeds.npy'" in refused("export-embeds", augmented, "-o", "embeds.npy", code=2)
    assert not list(Path().glob("*embeds*"))


def test_what_exists_is_replaced_with_force_only(run, refused, thought):
    Path("embeds.pt").write_text("mine")
    assert "--force" in refused("export-embeds", thought, "-o", "embeds.pt")
    assert run("export-embeds", thought, "-o", "embeds.pt", "--force").code == 0
