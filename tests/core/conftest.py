"""A finished run, evaluated, as it would be published."""

import dataclasses
import json

import pytest
import yaml

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
