"""A trained coprocessor that is adapted: it begins as what it was, and ends as one of its kind."""

import pytest
import torch

from deliberate.core.adapted import AdaptedCoprocessor
from deliberate.core.base import Base
from deliberate.core.checkpoint import load_coprocessor, save_coprocessor
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.execution import Execution
from deliberate.core.kinds import KINDS

ANCHORS = torch.tensor([[0, 3, 8, 15], [1, 2, 9, 14]])
OWNING = [kind for kind, made in KINDS.items() if made.owns_trunk]


@pytest.fixture
def base(unlike_base):
    return unlike_base


def texts():
    return torch.randint(2, 67, (2, 20), generator=torch.Generator().manual_seed(3))


def losses(base: Base, coprocessor: Coprocessor):
    return coprocessor.losses(base, base.read(texts()), ANCHORS, ahead=4)


def gradients(base, coprocessor):
    coprocessor.zero_grad()
    losses(base, coprocessor).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in coprocessor.named_parameters()}


def moved(adapted):
    """The same, away from B = 0."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return adapted


def test_the_kinds_with_a_trunk_of_their_own_can_be_adapted():
    assert OWNING == ["full", "scratch", "hidden"]


@pytest.mark.parametrize("kind", OWNING)
def test_it_begins_as_the_trained_one_to_the_last_bit(base, start, make, kind):
    with torch.no_grad():
        expected = losses(base, make(base, start, kind=kind))
        adapted = AdaptedCoprocessor(make(base, start, kind=kind), rank=3)
        assert torch.equal(losses(base, adapted), expected)


@pytest.mark.parametrize("kind", OWNING)
def test_only_low_rank_weights_and_soft_tokens_learn(base, make, kind):
    trained = make(base, "warm", kind=kind)
    adapted = moved(AdaptedCoprocessor(trained, rank=3))
    found = gradients(base, adapted)
    own = {id(parameter) for parameter in adapted.parameters()}
    assert {name.split(".")[0] for name in found} == {"adapters", "soft_tokens"}
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    for name, parameter in trained.named_parameters():
        if id(parameter) not in own:
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_recomputed_layers_give_the_same_gradients(base, start, make):
    adapted = moved(AdaptedCoprocessor(make(base, start), rank=3))
    expected = gradients(base, adapted)
    adapted.execution = Execution(recompute=True)
    for name, gradient in gradients(base, adapted).items():
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize("kind", OWNING)
def test_merged_is_unmerged_and_of_the_kind_that_went_in(base, start, make, kind, tmp_path):
    plain = make(base, start, kind=kind)
    adapted = moved(AdaptedCoprocessor(make(base, start, kind=kind), rank=3))
    with torch.no_grad():
        expected = losses(base, adapted)
        assert not torch.allclose(expected, losses(base, plain), atol=1e-3)
        merged = adapted.finished()
        assert type(merged) is type(plain)
        assert merged.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(losses(base, merged), expected, atol=2e-5, rtol=1e-5)
        save_coprocessor(merged, tmp_path, base=base)
        loaded = load_coprocessor(tmp_path, base=base).coprocessor
        assert torch.equal(losses(base, loaded), losses(base, merged))


def test_the_gradients_are_those_of_the_full_weights_through_the_product(base, start, make):
    """The full copy is proved by separate sequences; its gradients give those of A and B."""
    adapted = moved(AdaptedCoprocessor(make(base, start), rank=3))
    found = {name.replace("/", "."): g for name, g in gradients(base, adapted).items()}
    pairs = {
        name.replace("/", ".").rpartition(".")[0]: (
            adapted.adapters[name].detach().clone(),
            adapted.adapters[f"{name[:-1]}B"].detach().clone(),
        )
        for name in adapted.adapters
        if name.endswith("/A")
    }
    merged = adapted.finished().requires_grad_()
    gradients(base, merged)
    for path, (a, b) in pairs.items():
        layer = merged.trunk.get_submodule(path)
        product = layer.weight.grad.T if type(layer).__name__ == "Conv1D" else layer.weight.grad
        for name, wanted in (("A", b.T @ product), ("B", product @ a.T)):
            error = (found[f"adapters.{path}.{name}"] - wanted).abs().max() / wanted.abs().max()
            assert error < 5e-4, (path, name)
