"""A run on a tiny base: it learns, resumes exactly, and never touches the base."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from deliberate.core.base import load_base
from deliberate.core.checkpoint import load_coprocessor
from deliberate.core.errors import CheckpointError, TextError
from deliberate.core.kinds import KINDS
from deliberate.train import Interrupted, train
from deliberate.train.checkpoint import found


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in metrics(folder)]


@pytest.mark.parametrize("start", ["paper", "warm"])
def test_the_loss_falls(recipe, tmp_path, start):
    train(recipe(f"coprocessor.start={start}", "train.steps=40"), tmp_path / "run")
    found_losses = losses(tmp_path / "run")
    assert sum(found_losses[-8:]) < sum(found_losses[:8]) * 0.98


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change", ["train.accumulate=1", "train.accumulate=2", "train.optimizer=muon"]
)
def test_resumed_is_uninterrupted_to_the_last_bit(recipe, tmp_path, dtype, change):
    changes = [f"base.dtype={dtype}", change]
    train(recipe(*changes), tmp_path / "whole")

    def stop_after_five(progress):
        if progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="--resume"):
        train(recipe(*changes), tmp_path / "parts", on_progress=stop_after_five)
    assert found(tmp_path / "parts" / "checkpoints")[-1].name == "step-000005"
    train(recipe(*changes), tmp_path / "parts", resume=True)

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    parts = load_file(tmp_path / "parts" / "model.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "full"])
def test_a_resumed_run_of_any_kind_is_uninterrupted_and_learns(recipe, tmp_path, kind):
    changes = [f"coprocessor.kind={kind}", "coprocessor.start=paper", "train.steps=24"]
    changes += ["train.soft_learning_rate=0.05"]
    train(recipe(*changes), tmp_path / "whole")

    def crash(progress):
        if progress.step == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(*changes), tmp_path / "parts", on_progress=crash)
    train(recipe(*changes), tmp_path / "parts", resume=True)
    found_losses = losses(tmp_path / "whole")
    assert losses(tmp_path / "parts") == found_losses
    assert sum(found_losses[-6:]) < sum(found_losses[:6])


def test_a_crash_between_checkpoints_resumes_from_the_last_one(recipe, tmp_path):
    train(recipe(), tmp_path / "whole")

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "parts", on_progress=crash)
    train(recipe(), tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [line["step"] for line in metrics(tmp_path / "parts")] == list(range(1, 9))


def test_resuming_a_finished_run_changes_nothing(recipe, tmp_path):
    train(recipe(), tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    train(recipe(), tmp_path / "run", resume=True)
    after = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert after == before


def test_only_the_newest_checkpoints_are_kept(recipe, tmp_path):
    train(recipe("train.keep=1", "train.checkpoint_every=2"), tmp_path / "run")
    assert [p.name for p in found(tmp_path / "run" / "checkpoints")] == ["step-000008"]


def test_what_was_trained_is_what_is_loaded(recipe, tmp_path, llama_folder):
    train(recipe(), tmp_path / "run")
    base = load_base(str(llama_folder))
    trained = load_coprocessor(tmp_path / "run", base=base)
    weights = load_file(found(tmp_path / "run" / "checkpoints")[-1] / "weights.safetensors")
    for name, tensor in trained.coprocessor.state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert trained.recipe["train"]["steps"] == 8
    assert trained.recipe["reached"]["change_percent"].keys() == {"1", "2", "4"}


def test_a_run_is_never_written_over(recipe, tmp_path):
    train(recipe(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="--resume"):
        train(recipe(), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"train\.seed"):
        train(recipe("train.seed=5"), tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(recipe, tmp_path):
    train(recipe(), tmp_path / "run")
    weights = found(tmp_path / "run" / "checkpoints")[-1] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="cannot resume from"):
        train(recipe(), tmp_path / "run", resume=True)


def test_too_little_text_is_refused(recipe, tmp_path, corpus):
    corpus.write_text("short. " * 5 + "\n" + "short. " * 2)
    with pytest.raises(TextError):
        train(recipe("data.length=60"), tmp_path / "run")


def test_the_soft_embedding_trains_under_the_same_loop(recipe, tmp_path, llama_folder):
    train(recipe("coprocessor.kind=soft", "train.steps=20"), tmp_path / "run")
    trained = load_coprocessor(tmp_path / "run", base=load_base(str(llama_folder)))
    assert trained.coprocessor.num_parameters == 2 * 16
    found_losses = losses(tmp_path / "run")
    assert sum(found_losses[-5:]) < sum(found_losses[:5])


def test_a_folder_may_be_named_by_a_string(recipe, tmp_path):
    folder = train(recipe("train.steps=1"), str(tmp_path / "run"))
    assert (folder / "config.json").exists()
