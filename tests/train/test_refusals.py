"""What a run refuses: before it begins, when it is resumed, and when its numbers go astray."""

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from deliberate.core import checkpoint as coprocessor_files
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.train import checkpoint, run, train
from deliberate.train.checkpoint import found


@pytest.fixture
def stopped(recipe, tmp_path):
    """The folder of a run that broke down after its first checkpoint."""

    def crash(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "run", on_progress=crash)
    return tmp_path / "run"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resuming_on_a_base_of_other_weights_is_refused(recipe, stopped, llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1
    save_file(weights, llama_folder / "model.safetensors", metadata={"format": "pt"})
    before = content(stopped)
    with pytest.raises(CheckpointError, match=r"base \(base\.id\).*--output-dir"):
        train(recipe(), stopped, resume=True)
    assert content(stopped) == before


def test_a_folder_of_other_files_is_left_alone(recipe, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds 'notes\.txt' and no run: .*--output-dir"):
        train(recipe(), folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("change", ["one letter", "the order"])
def test_resuming_on_other_texts_is_refused(recipe, stopped, corpus, change):
    text = corpus.read_text()
    middle = len(text) // 2
    if change == "one letter":
        corpus.write_text(text[:middle] + "Q" + text[middle + 1 :])
    else:
        corpus.write_text(text[32:64] + text[:32] + text[64:])
    before = content(stopped)
    with pytest.raises(CheckpointError, match=r"training rows \(data\.train\).*--output-dir"):
        train(recipe(), stopped, resume=True)
    assert content(stopped) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.length=65"], "data.length is 65 and base .* has 64 positions: .* 64 or less"),
        (
            ["data.length=64", "coprocessor.latents=60", "objective.ahead=5"],
            r"coprocessor\.latents \(60\) or objective\.ahead \(5\)",
        ),
        (
            ["data.length=64", "coprocessor.latents=30", "eval.ahead=40"],
            r"coprocessor\.latents \(30\) or eval\.ahead \(40\)",
        ),
    ],
)
def test_what_does_not_fit_the_base_s_positions_is_refused(recipe, tmp_path, changes, told):
    with pytest.raises(DeliberateError, match=told):
        train(recipe(*changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_row_may_fill_the_base_s_positions(recipe, tmp_path):
    train(recipe("data.length=64", "train.steps=1"), tmp_path / "run")


@pytest.mark.parametrize(
    "change", ["base.id=nowhere", "data.train=nowhere.txt", "data.validation=nowhere.txt"]
)
def test_a_refused_run_leaves_its_folder_to_the_next_one(recipe, tmp_path, change):
    with pytest.raises(DeliberateError):
        train(recipe(change), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(recipe("train.steps=1"), tmp_path / "run")


def test_a_folder_with_a_recipe_alone_is_free(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("train: {steps: 3}\n")
    train(recipe("train.steps=1"), tmp_path / "run")
    assert "steps: 1\n" in (tmp_path / "run/recipe.yaml").read_text()


def test_a_run_of_another_recipe_is_refused_before_its_base_is_loaded(
    recipe, stopped, llama_folder
):
    llama_folder.rename(llama_folder.with_name("gone"))
    with pytest.raises(CheckpointError, match="--resume"):
        train(recipe(), stopped)
    with pytest.raises(CheckpointError, match=r"train\.seed"):
        train(recipe("train.seed=3"), stopped, resume=True)


@pytest.mark.parametrize("content", ["train: [", "train: {soft_learning_rate: 0}", None])
def test_a_run_whose_recipe_cannot_be_read_is_refused(recipe, stopped, content):
    (stopped / "recipe.yaml").unlink()
    if content:
        (stopped / "recipe.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml cannot be read"):
        train(recipe(), stopped, resume=True)


def test_a_file_in_the_folder_s_place_is_refused(recipe, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        train(recipe(), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def steps_logged(folder):
    """Steps in the metrics, which must be JSON to the letter: no NaN, no Infinity."""
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail)["step"] for line in text.splitlines()]


def test_a_loss_that_is_no_number_stops_the_run_before_its_step(recipe, tmp_path, monkeypatch):
    plain, calls = Coprocessor.losses, []

    def astray(*arguments, **settings):
        calls.append(1)
        losses = plain(*arguments, **settings)
        return losses * float("nan") if len(calls) == 2 * 4 else losses  # in the fourth step

    monkeypatch.setattr(Coprocessor, "losses", astray)
    with pytest.raises(DeliberateError, match=r"loss of step 4 is nan .*step-000003'"):
        train(recipe("train.accumulate=2", "train.validate_every=100"), tmp_path / "run")
    assert steps_logged(tmp_path / "run") == [1, 2, 3]
    assert [p.name for p in found(tmp_path / "run/checkpoints")] == ["step-000003"]


def test_a_gradient_that_is_no_number_stops_the_run_before_its_step(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "clip", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(
        DeliberateError, match="norm of the gradient of step 1 is inf and there is no checkpoint"
    ):
        train(recipe(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
    monkeypatch.undo()
    train(recipe("train.learning_rate=0.001", "train.steps=1"), tmp_path / "run")


def test_a_validation_that_is_no_number_stops_the_run(recipe, tmp_path, monkeypatch):
    plain = run.measure

    def astray(*arguments, **settings):
        losses = plain(*arguments, **settings)
        losses.sums["latents"][0, 1] = float("nan")
        return losses

    monkeypatch.setattr(run, "measure", astray)
    with pytest.raises(
        DeliberateError, match=r"change of perplexity of step 4 is nan .*step-000003'"
    ):
        train(recipe(), tmp_path / "run")
    assert steps_logged(tmp_path / "run") == [1, 2, 3]
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_full_disk_leaves_no_half_written_checkpoint(recipe, tmp_path, monkeypatch):
    plain = checkpoint.save_file

    def full(tensors, path, **settings):
        if "random_state" in tensors and path.parent.name == ".step-000006.part":
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        plain(tensors, path, **settings)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"step-000006.*No space left.*make room and resume"):
        train(recipe(), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-000003"]
    monkeypatch.undo()
    train(recipe(), tmp_path / "run", resume=True)


def test_a_full_disk_at_the_end_leaves_no_half_written_coprocessor(recipe, tmp_path, monkeypatch):
    plain = coprocessor_files.save_file

    def full(tensors, path, **settings):
        if path.parent.parent.name != "run":  # the best one, which comes before
            plain(tensors, path, **settings)
            return
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(coprocessor_files, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        train(recipe("train.steps=2"), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"recipe.yaml", "metrics.jsonl", "checkpoints", "best"}
    monkeypatch.undo()
    train(recipe("train.steps=2"), tmp_path / "run", resume=True)
    assert (tmp_path / "run/model.safetensors").exists()


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for name in ("step-1000000", "step-999999", "step-000007", "step-old", ".step-000009.part"):
        (tmp_path / name).mkdir()
    assert [path.name for path in found(tmp_path)] == [
        "step-000007",
        "step-999999",
        "step-1000000",
    ]
