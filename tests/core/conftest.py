"""A finished run, evaluated, as it would be published; and an account of memory."""

import dataclasses
import json
import weakref

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deliberate.core import fingerprint
from deliberate.core.checkpoint import save_coprocessor

RECIPE = {
    "data": {"train": "letters.txt", "length": 32},
    "objective": {"ahead": 4, "anchors": 8},
    "train": {"steps": 12, "batch": 2, "soft_learning_rate": None},
}


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


@pytest.fixture
def report():
    """Makes a report that is true of a run's weights, but for what is changed in it."""
    return _report


class Storages(TorchDispatchMode):
    """Follows the bytes of every storage made while it is on, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.most = max(self.most, sum(self.alive.values()))


@pytest.fixture
def storages():
    """Makes an account of the memory that tensors take."""
    return Storages
