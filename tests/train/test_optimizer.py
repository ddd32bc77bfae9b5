"""The rates of a run, and which weights take which."""

import pytest
import torch

from deliberate.train import load_recipe
from deliberate.train.optimizer import make_optimizer, set_rate


def settings(*changes):
    return load_recipe(
        changes=[
            "train.steps=110",
            "train.warmup=10",
            "train.learning_rate=0.5",
            "train.soft_learning_rate=2.0",
            "train.weight_decay=0.25",
            "train.final_rate=0.2",
            *changes,
        ]
    )


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.6), (110, 0.2)],
    ids=["first", "warming up", "warm", "peak", "half way", "end"],
)
def test_the_rate_rises_to_its_peak_and_falls_as_a_cosine(llama, make, step, share):
    optimizer = make_optimizer(make(llama, "warm"), settings())
    assert set_rate(optimizer, settings(), step) == pytest.approx(share)
    assert rates(optimizer) == pytest.approx([0.5 * share, 0.5 * share, 2.0 * share])


def test_a_run_without_warm_up_begins_at_its_peak(llama, make):
    optimizer = make_optimizer(make(llama, "warm"), settings("train.warmup=0"))
    assert set_rate(optimizer, settings("train.warmup=0"), 0) == 1.0


def test_a_run_that_is_all_warm_up_ends_at_its_peak(llama, make):
    optimizer = make_optimizer(make(llama, "warm"), settings("train.steps=10"))
    assert [set_rate(optimizer, settings("train.steps=10"), step) for step in (0, 9)] == [0.1, 1.0]


def test_matrices_alone_decay_and_soft_tokens_have_their_own_rate(llama, make):
    coprocessor = make(llama, "warm")
    matrices, vectors, soft = make_optimizer(coprocessor, settings()).param_groups
    assert {parameter.ndim for parameter in matrices["params"]} == {2}
    assert {parameter.ndim for parameter in vectors["params"]} == {0, 1}
    assert [id(parameter) for parameter in soft["params"]] == [id(coprocessor.soft_tokens)]
    assert [group["weight_decay"] for group in (matrices, vectors, soft)] == [0.25, 0.0, 0.0]
    assert [group["peak"] for group in (matrices, vectors, soft)] == [0.5, 0.5, 2.0]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_weight_is_learned_once(llama, make, name):
    for kind in ("full", "soft"):
        coprocessor = make(llama, "warm", kind=kind)
        optimizer = make_optimizer(coprocessor, settings(f"train.optimizer={name}"))
        learned = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(learned) == sorted(id(parameter) for parameter in coprocessor.parameters())


def test_muon_takes_the_network_s_matrices_alone(llama, make):
    coprocessor = make(llama, "warm")
    groups = make_optimizer(coprocessor, settings("train.optimizer=muon")).param_groups
    matrices, vectors, soft = groups
    assert [group.get("orthogonal", False) for group in groups] == [True, False, False]
    assert {parameter.ndim for parameter in matrices["params"]} == {2}
    assert {parameter.ndim for parameter in vectors["params"]} == {0, 1}
    assert [id(parameter) for parameter in soft["params"]] == [id(coprocessor.soft_tokens)]


def test_a_soft_embedding_is_all_soft(llama, make):
    coprocessor = make(llama, "warm", kind="soft")
    [group] = make_optimizer(coprocessor, settings()).param_groups
    assert group["peak"] == 2.0
    assert torch.equal(group["params"][0], coprocessor.embedding)


def test_soft_tokens_take_the_network_s_rate_if_they_have_none(llama, make):
    recipe = settings("train.soft_learning_rate=null")
    groups = make_optimizer(make(llama, "warm"), recipe).param_groups
    assert {group["peak"] for group in groups} == {0.5}
