"""The best coprocessor is kept whole, whatever comes after it."""

import json
import math

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from deliberate.core import checkpoint as coprocessor_files
from deliberate.core.atomic import bring_back, replacing_folder
from deliberate.core.base import load_base
from deliberate.core.checkpoint import load_coprocessor, read_config
from deliberate.core.measure import Losses
from deliberate.train import run, train
from deliberate.train.best import Best, loss_change


@pytest.fixture
def changes(monkeypatch):
    """Sets the changes in loss that the next validations come to."""

    def come_to(*values):
        coming = iter(values)
        monkeypatch.setattr(run, "loss_change", lambda losses, recipe: next(coming))

    return come_to


def reached(folder):
    return read_config(folder)["recipe"]["reached"]


def weights(folder):
    return {name: tensor.clone() for name, tensor in load_file(folder).items()}


def test_the_change_is_that_of_the_mean_loss_over_the_tokens_that_are_trained_on(recipe):
    losses = Losses(  # two passages of 3 and 1 anchors, 4 tokens ahead, of which 3 are trained on
        sums={
            "base": torch.tensor([[3.0, 6.0, 9.0, 0.0], [1.0, 1.0, 1.0, 0.0]]),
            "latents": torch.tensor([[2.0, 6.0, 8.0, 99.0], [1.0, 3.0, 0.0, 99.0]]),
        },
        counts=torch.tensor([[3] * 4, [1] * 4]),
        documents=torch.tensor([0, 1]),
        partners=torch.tensor([1, 0]),
    )
    assert loss_change(losses, recipe()) == pytest.approx(((-1 / 4) + (2 / 4) + (-2 / 4)) / 3)
    both = recipe("eval.ahead=2"), recipe("objective.ahead=2")  # what validation does not measure
    for fewer in both:
        assert loss_change(losses, fewer) == pytest.approx(((-1 / 4) + (2 / 4)) / 2)


def test_a_nat_less_at_every_token_is_one_whatever_answers_reach(recipe):
    counts = torch.tensor([[1, 1, 1], [1, 0, 0]])
    losses = Losses(
        sums={"base": counts * 3.0, "latents": counts * 2.0},
        counts=counts,
        documents=torch.tensor([0, 1]),
        partners=torch.tensor([1, 0]),
    )
    assert loss_change(losses, recipe()) == pytest.approx(-1)


def test_the_best_is_what_it_was_at_its_step(recipe, tmp_path, changes, llama_folder):
    changes(0.5, -0.25, 0.125, -0.25)
    folder = tmp_path / "run"
    train(recipe("train.validate_every=2", "train.checkpoint_every=2", "train.keep=9"), folder)
    assert reached(folder / "best")["step"] == 4
    assert reached(folder / "best")["loss_change"] == -0.25
    assert reached(folder)["step"] == 8
    kept = weights(folder / "best/model.safetensors")
    checkpoint = weights(folder / "checkpoints/step-000004/weights.safetensors")
    assert all(torch.equal(kept[name], checkpoint[name]) for name in checkpoint)
    assert load_coprocessor(folder / "best", base=load_base(str(llama_folder))).recipe
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("loss_change") for line in lines[1::2]] == [0.5, -0.25, 0.125, -0.25]


@pytest.mark.parametrize(("later", "step"), [(0.0, 4), (-0.75, 8)])
def test_a_resumed_run_remembers_the_best(recipe, tmp_path, changes, later, step):
    def crash(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    changes(-0.5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "run", on_progress=crash)
    changes(later)
    train(recipe(), tmp_path / "run", resume=True)
    assert reached(tmp_path / "run/best")["step"] == step


def test_a_best_that_was_removed_is_not_remembered(tmp_path):
    best = Best(tmp_path)
    best.restore([{"step": 4, "loss_change": -1.0}])
    assert best.is_beaten_by(5.0)
    (tmp_path / "best").mkdir()
    best.restore([{"step": 1}, {"step": 4, "loss_change": -1.0}, {"step": 5, "loss_change": 0.0}])
    assert best.is_beaten_by(-1.1)
    assert not best.is_beaten_by(-1.0)
    assert not best.is_beaten_by(math.nan)


def test_a_full_disk_leaves_the_best_before_as_it_was(recipe, tmp_path, changes, monkeypatch):
    plain, folder = coprocessor_files.save_file, tmp_path / "run"

    def full(tensors, path, **settings):
        if (folder / "best").exists() and path.parent.parent != folder:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        plain(tensors, path, **settings)

    monkeypatch.setattr(coprocessor_files, "save_file", full)
    changes(-0.5, -0.75)
    with pytest.raises(OSError, match=r"best.*No space left.*make room and resume"):
        train(recipe(), folder)
    assert reached(folder / "best")["step"] == 4
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    monkeypatch.setattr(coprocessor_files, "save_file", plain)
    changes(-0.75)
    train(recipe(), folder, resume=True)
    assert reached(folder / "best")["step"] == 8


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def write(text, *, fails=False):
        with replacing_folder(tmp_path / "best") as partial:
            (partial / text).write_text(text)
            if fails:
                raise KeyboardInterrupt

    write("first")
    with pytest.raises(KeyboardInterrupt):
        write("second", fails=True)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["first"]
    write("third")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_folder_that_stepped_aside_for_none_is_brought_back(tmp_path):
    (tmp_path / ".best.before").mkdir()
    (tmp_path / ".best.before/old").write_text("")
    (tmp_path / ".best.part").mkdir()
    bring_back(tmp_path / "best")
    assert (tmp_path / "best/old").exists()
    (tmp_path / ".best.before").mkdir()  # killed a moment later: the new one is there
    with replacing_folder(tmp_path / "best") as partial:
        (partial / "new").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best/new").exists()


def test_a_failed_rename_brings_the_folder_back(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best/old").write_text("")
    with pytest.raises(FileNotFoundError), replacing_folder(tmp_path / "best") as partial:
        partial.rmdir()
    assert (tmp_path / "best/old").exists()
