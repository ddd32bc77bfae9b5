"""A run that begins from a trained coprocessor, and one that adapts it."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from deliberate.core.base import load_base
from deliberate.core.checkpoint import load_coprocessor, save_coprocessor
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.kinds import KINDS
from deliberate.train import load_recipe, train
from deliberate.train.checkpoint import found
from deliberate.train.data import batches, load_rows
from deliberate.train.init import begin
from deliberate.train.objective import Objective
from deliberate.train.plan import plan
from deliberate.train.processes import Processes
from deliberate.train.recipe import dump


@pytest.fixture
def trained(llama_folder, make, tmp_path):
    """The folder of a trained coprocessor, whose settings are no defaults."""

    def trained(kind="full", **settings):
        base = load_base(str(llama_folder))
        coprocessor = make(base, "paper", kind=kind, latents=2, **settings)
        save_coprocessor(coprocessor, tmp_path / f"trained-{kind}", base=base)
        return tmp_path / f"trained-{kind}"

    return trained


@pytest.fixture
def begun(recipe, trained):
    """The recipe of a run that begins there."""

    def begun(*changes, kind="full", **settings):
        # The kind is stated by none of them: it comes with what it begins from.
        return recipe(f"train.init={trained(kind, **settings)}", *changes)

    return begun


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_its_settings_are_those_of_what_it_begins_from(begun):
    chosen = begun(layers=(1,))
    assert chosen.coprocessor.layers == (1,)
    assert chosen.coprocessor.positions == "after"
    assert load_recipe(None, changes=[f"train.init={chosen.train.init}"]).coprocessor == (
        chosen.coprocessor
    )


def test_its_recipe_as_it_is_kept_is_the_same_recipe(begun, tmp_path):
    chosen = begun("train.adapt_rank=2")
    (tmp_path / "r.yaml").write_text(dump(chosen))
    assert load_recipe(tmp_path / "r.yaml") == chosen


@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        *((kind, None) for kind in KINDS),
        *((kind, 3) for kind, made in KINDS.items() if made.owns_trunk),
    ],
)
def test_the_first_loss_is_the_trained_one_s_to_the_last_bit(begun, tmp_path, kind, rank):
    chosen = begun("train.steps=1", *([f"train.adapt_rank={rank}"] if rank else []), kind=kind)
    train(chosen, tmp_path / "run")
    base = load_base(chosen.base.id)
    coprocessor = load_coprocessor(chosen.train.init, base=base).coprocessor
    alone = Processes(device=base.device)
    [batch] = batches(load_rows(chosen, base, alone), chosen, base, step=0, share=alone)
    objective = Objective(coprocessor, base, chosen)
    with torch.no_grad():
        assert losses(tmp_path / "run") == [float(objective(batch.token_ids, batch.anchors))]


def test_weights_are_not_rounded_to_the_base_s_dtype(begun, llama_folder):
    chosen = begun()
    base = load_base(str(llama_folder), dtype=torch.bfloat16)
    coprocessor, _ = begin(chosen.coprocessor, chosen.train, base)
    written = load_file(f"{chosen.train.init}/model.safetensors")
    for name, weight in coprocessor.state_dict().items():
        assert torch.equal(weight, written[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [None, 2])
def test_resumed_is_uninterrupted_to_the_last_bit(begun, tmp_path, rank, dtype):
    adapting = [f"train.adapt_rank={rank}"] if rank else []
    chosen = begun(f"base.dtype={dtype}", "train.steps=20", *adapting)
    train(chosen, tmp_path / "whole")

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "parts", on_progress=crash)
    train(chosen, tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole = load_file(tmp_path / "whole/model.safetensors")
    parts = load_file(tmp_path / "parts/model.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    train(chosen, tmp_path / "parts", resume=True)  # finished: merged once more, from the same
    again = load_file(tmp_path / "parts/model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_an_adapted_run_keeps_little_and_ends_as_the_ordinary_kind(begun, tmp_path):
    chosen = begun("train.adapt_rank=2", "train.steps=30", "train.learning_rate=0.01")
    train(chosen, tmp_path / "run")
    kept = load_file(found(tmp_path / "run/checkpoints")[-1] / "weights.safetensors")
    assert {name.split(".")[0] for name in kept} == {"adapters", "soft_tokens"}
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["coprocessor"]["kind"] == "full"
    assert config["recipe"]["train"]["adapt_rank"] == 2
    found_losses = losses(tmp_path / "run")
    assert sum(found_losses[-8:]) < sum(found_losses[:8])
    before = load_file(f"{chosen.train.init}/model.safetensors")
    after = load_file(tmp_path / "run/model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if n == "soft_tokens" or n.endswith("proj.weight")}
    # What the finished folder computes is what the run's last validation measured.
    base = load_base(chosen.base.id)
    merged = load_coprocessor(tmp_path / "run", base=base).coprocessor
    coprocessor, _ = begin(chosen.coprocessor, chosen.train, base)
    coprocessor.load_state_dict(kept)
    alone = Processes(device=base.device)
    [batch] = batches(load_rows(chosen, base, alone), chosen, base, step=0, share=alone)
    with torch.no_grad():
        one = Objective(coprocessor, base, chosen)(batch.token_ids, batch.anchors)
        two = Objective(merged, base, chosen)(batch.token_ids, batch.anchors)
    torch.testing.assert_close(two, one, atol=2e-5, rtol=0)
    # And it can be adapted again.
    train(
        dataclasses.replace(
            chosen, train=dataclasses.replace(chosen.train, init=str(tmp_path / "run"), steps=1)
        ),
        tmp_path / "further",
    )


def lines_of(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_keeping_the_best_changes_nothing_that_is_trained(begun, tmp_path):
    changes = ("train.adapt_rank=2", "train.steps=6")
    for name, every in (("often", 1), ("once", 6)):
        train(begun(*changes, f"train.validate_every={every}"), tmp_path / name)
    logged = [
        [json.loads(line)["loss"] for line in lines_of(tmp_path / name)]
        for name in ("often", "once")
    ]
    assert logged[0] == logged[1]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("often", "once")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resuming_from_another_start_is_refused(begun, tmp_path):
    chosen = begun("train.adapt_rank=2")

    def crash(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "run", on_progress=crash)
    path = f"{chosen.train.init}/model.safetensors"
    weights = load_file(path)
    weights["soft_tokens"] = weights["soft_tokens"] + 1
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"start \(train\.init\) had fingerprint"):
        train(chosen, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["coprocessor.latents=3"], r"has coprocessor\.latents 2, and the recipe says otherwise"),
        (["coprocessor.kind=soft"], r"has coprocessor\.kind 'full'"),
        (
            ["coprocessor.start=warm"],
            r"coprocessor\.latent_norm 'after', coprocessor\.latent_scale",
        ),
        (["coprocessor.latentz=3"], "latentz"),
        (["train.adapt_rank=0"], r"train\.adapt_rank must be from 1 to 1048576, got 0"),
    ],
)
def test_a_recipe_that_says_otherwise_is_refused(begun, changes, told):
    with pytest.raises(ValueError, match=told):
        begun(*changes)


def test_a_recipe_that_says_the_same_is_not(begun):
    assert begun("coprocessor.start=paper", "coprocessor.latents=2").coprocessor.latents == 2


def test_nothing_to_adapt_is_refused(recipe, begun):
    with pytest.raises(ValueError, match=r"nothing to adapt: name .* train\.init"):
        recipe("train.adapt_rank=4")
    for kind in ("lora", "soft", "pause", "continued"):
        with pytest.raises(
            ValueError, match=rf"kind '{kind}' has no trunk .*full, scratch, hidden"
        ):
            begun("train.adapt_rank=4", kind=kind)


def test_a_start_that_is_none_or_serves_another_base_is_refused(recipe, begun, save_base, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeliberateError, match="is not a coprocessor"):
        recipe(f"train.init={tmp_path / 'empty'}")
    chosen = begun(f"base.id={save_base('qwen3')}")
    with pytest.raises(CheckpointError, match=r"serves base .*: name its base"):
        train(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_of_an_adaptation_counts_what_learns(begun):
    whole, part = plan(begun()), plan(begun("train.adapt_rank=2"))
    chosen = begun("train.adapt_rank=2")
    coprocessor, _ = begin(chosen.coprocessor, chosen.train, load_base(chosen.base.id))
    assert part.parameters["trained"] == coprocessor.num_parameters
    assert part.parameters["trained"] < whole.parameters["trained"]
    frozen = whole.parameters["trained"] - 2 * 16  # all but the soft tokens
    assert part.memory["coprocessor"] == 4 * (2 * part.parameters["trained"] + frozen)
    assert part.memory["optimizer"] == 4 * 2 * part.parameters["trained"]
    assert part.flops["coprocessor"] < whole.flops["coprocessor"]
