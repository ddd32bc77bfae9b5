"""What a run will take, against what it takes."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from deliberate.core.base import Base, load_base
from deliberate.core.errors import DeliberateError, UnsupportedModelError
from deliberate.core.groups import sample_anchors
from deliberate.core.kinds import KINDS, build
from deliberate.train import load_recipe, train
from deliberate.train.objective import Objective
from deliberate.train.plan import check_fits, check_memory, plan
from deliberate.train.shape import shape_of

RECIPES = Path(__file__).parent.parent.parent / "recipes"
SHARDS, WEIGHTS = ("none", "full"), ("base", "coprocessor", "optimizer")
LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def chosen(*changes, **base):
    recipe = load_recipe(
        None,
        changes=[
            "data.length=128",
            "coprocessor.latents=8",
            "coprocessor.start=paper",
            "objective.ahead=8",
            "objective.anchors=24",
            "train.batch=4",
            *changes,
        ],
    )
    carried = {"id": "somebody/llama", "dtype": "float32", "architecture": LLAMA, **base}
    return dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, **carried))


def real(recipe, llama):
    """The recipe's models with real weights."""
    settings = {name: value for name, value in LLAMA.items() if name != "model_type"}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**settings))
    dtype = getattr(torch, recipe.base.dtype)
    base = Base(model=model.to(dtype), tokenizer=llama.tokenizer, id="real")
    coprocessor = build(recipe.coprocessor, base).float()
    coprocessor.execution = recipe.train.execution
    return base, coprocessor


@pytest.mark.parametrize("kind", list(KINDS))
def test_weights_are_counted_as_they_are(llama, kind):
    recipe = chosen(f"coprocessor.kind={kind}")
    base, coprocessor = real(recipe, llama)
    found = plan(recipe).parameters
    assert found == {"base": base.num_parameters, "trained": coprocessor.num_parameters}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["train.recompute=true"],
        ["coprocessor.latents=2", "objective.ahead=16"],
        ["coprocessor.kind=soft"],
        ["coprocessor.layers=[0,3]"],
    ],
    ids=["full", "recompute", "ahead", "soft", "layers"],
)
def test_memory_at_the_peak_of_a_step_is_what_was_said(llama, storages, dtype, changes):
    recipe = chosen(*changes, dtype=dtype)
    base, coprocessor = real(recipe, llama)
    objective = Objective(coprocessor, base, recipe)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(512, (4, 128), generator=generator)
    anchors = sample_anchors(4, anchors=24, last=127 - recipe.objective.ahead, generator=generator)
    for parameter in coprocessor.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with storages() as followed:
        objective(token_ids, anchors).backward()
    said = plan(recipe).memory
    # What is there before the step is not followed: weights, gradients, moments.
    casts = 0 if dtype == "float32" else 2 * shape_of(recipe).trained_trunk
    steps = said["text keys and values"] + said["activations"] + casts
    # Recomputation leaves so little that a pass over the text shows beside it at this size.
    assert followed.most < (1.3 if recipe.train.recompute else 1.15) * steps
    assert followed.most > 0.85 * steps


def test_flops_are_those_of_the_formula():
    recipe = chosen("train.accumulate=3")
    shape, flops = shape_of(recipe), plan(recipe).flops
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 448
    assert shape.trunk == shape.trained_trunk == 4 * layer
    rows = 12
    assert flops["text"] == rows * 2 * shape.trunk * 128
    assert flops["coprocessor"] == rows * 6 * shape.trunk * 24 * 8
    assert flops["base"] == rows * 4 * shape.trunk * 24 * 15
    assert flops["head"] == rows * 4 * 512 * 128 * 24 * 8
    assert plan(recipe).hours(1e9) == sum(flops.values()) * 300 / 1e9 / 3600


def test_the_targets_are_the_tokens_that_the_loss_is_on():
    assert plan(chosen()).targets == 4 * 24 * 8
    assert plan(chosen("objective.skip=3")).targets == 4 * 24 * 5


def test_devices_share_a_batch():
    one, four = plan(chosen()), plan(chosen(), devices=4)
    assert one.hours(1e9) == pytest.approx(4 * four.hours(1e9))
    assert four.memory["activations"] * 4 == one.memory["activations"]
    with pytest.raises(DeliberateError, match="multiple of 3"):
        plan(chosen(), devices=3)


def test_shared_weights_are_divided_by_the_devices():
    whole, shared = plan(chosen(), devices=4), plan(chosen("train.shard=full"), devices=4)
    for part in WEIGHTS:
        assert shared.memory[part] * 4 == pytest.approx(whole.memory[part], abs=4)
    gathered = shared.memory.pop("gathered weights")
    weights = sum(whole.memory[part] for part in WEIGHTS)
    assert 0 < gathered < weights / 2
    assert plan(chosen("train.shard=full"), devices=2).memory["gathered weights"] == gathered
    for part in ("text keys and values", "activations", "logits and scores"):
        assert shared.memory[part] == whole.memory[part]
    with pytest.raises(DeliberateError, match=r"one process.*--gpus N"):
        plan(chosen("train.shard=full"))


def test_what_fits_in_shares_alone_is_refused_whole(llama_folder, monkeypatch):
    monkeypatch.setattr("deliberate.train.plan.DOUBT", math.inf)  # weights alone are looked at
    changes = [f"base.id={llama_folder}", "base.dtype=float32"]
    whole, shared = (load_recipe(None, changes=[*changes, f"train.shard={s}"]) for s in SHARDS)
    memory = plan(shared, devices=8).memory
    limit = sum(memory[part] for part in memory if "weights" in part or part in WEIGHTS)
    check_fits(shared, limit, devices=8)
    with pytest.raises(DeliberateError, match=r"share them among more devices \(train\.shard full"):
        check_fits(whole, limit, devices=8)
    with pytest.raises(DeliberateError, match="base and coprocessor need"):
        check_fits(shared, limit, devices=4)


def test_a_run_that_is_far_too_large_is_refused_at_once(llama_folder):
    changes = [f"base.id={llama_folder}", "base.dtype=float32"]
    huge = load_recipe(None, changes=[*changes, "train.batch=100000000"])
    with pytest.raises(DeliberateError, match=r"the run needs .* lower train\.batch"):
        check_fits(huge, 64 << 30)
    small = load_recipe(None, changes=changes)
    needed = sum(plan(small).memory.values())
    check_fits(small, needed // 2 + 1)
    with pytest.raises(DeliberateError, match="the run needs"):
        check_fits(small, needed // 2 - 1)


def test_what_does_not_fit_is_refused_with_what_to_lower():
    found = plan(chosen())
    check_memory(found, sum(found.memory.values()))
    with pytest.raises(DeliberateError, match=r"most of it for activations: set train\.recompute"):
        check_memory(found, sum(found.memory.values()) - 1)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (None, "architecture of base 'somebody/llama' is not here"),
        ({"model_type": "lama"}, r"base\.architecture is no configuration"),
        ({"hidden_size": 3}, r"base\.architecture is no configuration"),
        ({"model_type": "mamba"}, "'mamba'"),
        *(
            ({**LLAMA, **odd}, r"base\.architecture is no configuration of transformers: " + told)
            for odd, told in (
                ({"hidden_size": "wide"}, ".*'hidden_size': TypeError: .*'wide'"),
                ({"hidden_size": 100, "num_attention_heads": 3}, r".* \(100\)"),
                ({"num_attention_heads": 0}, r"it says what cannot be .*\(ZeroDivisionError"),
                ({"hidden_size": -128}, ".*negative dimension"),
                ({"hidden_act": "nope"}, r".*\(KeyError: 'nope'\): write it as in"),
                ({"dtype": "nope"}, r".*\(AttributeError"),
                ({"vocab_size": 10**20}, r".*\(TypeError"),
            )
        ),
    ],
)
def test_an_architecture_that_is_not_there_is_refused(architecture, told):
    with pytest.raises(DeliberateError, match=told):
        plan(chosen(architecture=architecture))


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [
        ("gemma2-2b", 2_614_341_888),
        ("qwen3-0.6b", 596_049_920),
        ("smollm2-135m", 134_515_008),
        ("gpt2", 124_439_808),
    ],
)
def test_a_shipped_recipe_carries_the_numbers_of_its_base(recipe, weights):
    found = plan(load_recipe(RECIPES / f"{recipe}.yaml"))
    assert found.parameters["base"] == weights
    assert json.dumps(dataclasses.asdict(found))


def test_a_base_whose_layers_cannot_be_counted_trains_without_a_plan(recipe, monkeypatch, tmp_path):
    made = LlamaModel.__init__

    def with_more(self, config):
        made(self, config)
        self.others = torch.nn.ModuleList(
            torch.nn.Identity() for _ in range(config.num_hidden_layers)
        )

    monkeypatch.setattr(LlamaModel, "__init__", with_more)
    short = recipe("train.steps=1")
    with pytest.raises(UnsupportedModelError, match=r"2 lists of 2 layers .* --dry-run"):
        plan(short)
    train(short, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.parametrize("start", ["paper", "warm", "thought"])
def test_the_weights_of_every_start_are_counted(start):
    recipe = load_recipe(None, changes=["base.id=nano", f"coprocessor.start={start}"])
    made = build(recipe.coprocessor, load_base())
    assert shape_of(recipe).trained == made.num_parameters
