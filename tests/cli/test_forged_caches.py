"""A cache file whose checksum was made to fit its lies is refused by the base that it names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deliberate.core.cache_file import checksum


def forge(
    path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], **said: str
) -> None:
    tensors = {name: part.contiguous() for name, part in change(load_file(path)).items()}
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **said}
    stated = {key: value for key, value in metadata.items() if key != "checksum"}
    save_file(tensors, path, metadata=stated | {"checksum": checksum(tensors.items(), stated)})


def keys_and_values(change: Callable[[Tensor], Tensor]):
    return lambda tensors: {
        name: change(part) if name.startswith("layers") else part for name, part in tensors.items()
    }


FORGERIES = {
    "a layer less": (
        lambda tensors: {name: part for name, part in tensors.items() if "layers.1." not in name},
        "has 1 layers and",
    ),
    "a head less": (keys_and_values(lambda part: part[:1]), "has 1 heads of 8 numbers and"),
    "narrow heads": (keys_and_values(lambda part: part[..., :4]), "has 2 heads of 4 numbers and"),
    "narrow states": (
        lambda tensors: tensors | {"last_hidden": tensors["last_hidden"][:8]},
        "states of 8 numbers and",
    ),
    "an unknown token": (
        lambda tensors: tensors | {"token_ids": tensors["token_ids"] + 10**6},
        "token_ids are from 1000",
    ),
    "a token below all": (
        lambda tensors: tensors | {"token_ids": tensors["token_ids"] - 70},
        "token_ids are from -",
    ),
    "a position beyond all": (
        lambda tensors: tensors | {"position_ids": tensors["position_ids"] + 2**40},
        "position_ids are from",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_does_not_fit_the_base_is_refused(refused, cache, forgery):
    change, told = FORGERIES[forgery]
    forge(cache, change)
    for command in ("augment", "generate"):
        assert told in refused(command, cache)


def test_what_would_steer_the_terminal_is_spelled_out(run, refused, cache):
    forge(cache, dict, base="a\x1b[2J\x07b")
    outcome = run("inspect", cache)
    assert "a\\x1b[2J\\x07b" in outcome.out
    assert "\x1b" not in outcome.out
    assert "\x1b" not in refused("inspect", "no\x1b[2Jfile")


def test_every_token_of_the_vocabulary_fits(run, cache):
    forge(cache, lambda tensors: tensors | {"token_ids": torch.full_like(tensors["token_ids"], 66)})
    assert run("generate", cache, "--no-latents", "--max-tokens", 1).code == 0
