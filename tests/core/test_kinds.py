"""What each kind promises, beside the one pass that all of them are proved by."""

import copy

import pytest
import torch

from deliberate.core.augment import augment, prefill
from deliberate.core.base import Base
from deliberate.core.checkpoint import load_coprocessor, save_coprocessor
from deliberate.core.coprocessor import coprocessor_config
from deliberate.core.errors import DeliberateError, UnsupportedModelError
from deliberate.core.execution import Execution
from deliberate.core.kinds import KINDS, build

ANCHORS = torch.tensor([[0, 3, 8, 15], [1, 2, 9, 14]])
AHEAD = 4


@pytest.fixture
def base(unlike_base):
    return unlike_base


def texts():
    return torch.randint(2, 67, (2, 20), generator=torch.Generator().manual_seed(3))


def own_copy(base):
    """A base that a test may put adapters into."""
    return Base(
        model=copy.deepcopy(base.model),
        tokenizer=base.tokenizer,
        id=base.id,
        fingerprint=base.fingerprint,
    )


def losses(base, coprocessor):
    return coprocessor.losses(base, base.read(texts()), ANCHORS, ahead=AHEAD)


def gradients(base, coprocessor):
    coprocessor.zero_grad()
    losses(base, coprocessor).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in coprocessor.named_parameters()}


@pytest.mark.parametrize("kind", list(KINDS))
def test_saved_is_loaded(base, kind, make, tmp_path):
    plain, base = base, own_copy(base)
    coprocessor = make(base, "paper", kind=kind)
    save_coprocessor(coprocessor, tmp_path, base=base)
    fresh = own_copy(plain)
    loaded = load_coprocessor(tmp_path, base=fresh).coprocessor
    assert loaded.config == coprocessor.config
    with torch.no_grad():
        assert torch.equal(losses(fresh, loaded), losses(base, coprocessor))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_weight_of_a_kind_learns_and_none_of_the_base(kind, make, llama):
    base = own_copy(llama)
    coprocessor = make(base, "paper", kind=kind)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    for name, gradient in gradients(base, coprocessor).items():
        assert gradient.abs().max() > 0, name
    own = {id(parameter) for parameter in coprocessor.parameters()}
    others = [p for p in base.model.parameters() if id(p) not in own]
    assert all(p.grad is None and not p.requires_grad for p in others)
    assert all(torch.equal(base.model.state_dict()[name], before[name]) for name in before)


def test_low_rank_weights_leave_the_base_as_it_was_to_the_last_bit(base):
    adapted = own_copy(base)
    coprocessor = build(coprocessor_config(start="paper", kind="lora", rank=2), adapted)
    with torch.no_grad():
        for parameter in coprocessor.parameters():
            parameter.add_(torch.randn_like(parameter))
        wanted = base.model(texts()).logits
        assert torch.equal(adapted.model(texts()).logits, wanted)
        coprocessor(adapted.read(texts()), ANCHORS)
        assert torch.equal(adapted.model(texts()).logits, wanted)


@pytest.mark.parametrize("execution", [Execution(), Execution(recompute=True)])
def test_low_rank_on_one_base_is_low_rank_on_a_copy(base, start, make, execution):
    """One copy of the weights for both roles = a copy for each, loss and every gradient."""
    shared, apart = own_copy(base), own_copy(base)
    one = make(shared, start, kind="lora", rank=3)
    two = make(apart, start, kind="lora", rank=3)
    two.load_state_dict(one.state_dict())
    one.execution = execution
    assert torch.equal(losses(shared, one), losses(base, two))
    expected = gradients(base, two)
    for name, gradient in gradients(shared, one).items():
        assert torch.equal(gradient, expected[name]), name


def test_low_rank_is_a_full_copy_with_the_products_added(base, start, make):
    """The full copy is proved by separate sequences; its gradients give those of A and B."""
    adapted = own_copy(base)
    low = make(adapted, start, kind="lora", rank=3)
    full = make(base, start)
    conv = "Conv1D" in {type(module).__name__ for module in full.trunk.modules()}
    pairs = {}
    with torch.no_grad():
        full.trunk.load_state_dict(base.trunk.state_dict(), strict=False)
        full.soft_tokens.copy_(low.soft_tokens)
        if full.scale.log is not None:
            full.scale.log.copy_(low.scale.log)
        for name in low.adapters:
            if name.endswith("/B"):
                continue
            path = name.removesuffix("/A").replace("/", ".")
            weight = full.trunk.get_submodule(path).weight
            pairs[path] = low.adapters[name], low.adapters[name[:-1] + "B"], weight
            product = pairs[path][1] @ pairs[path][0]
            weight.add_(product.T if conv else product)
    torch.testing.assert_close(losses(adapted, low), losses(base, full), atol=2e-5, rtol=0)
    gradients(adapted, low)
    gradients(base, full)
    for path, (a, b, weight) in pairs.items():
        of_product = weight.grad.T if conv else weight.grad
        for found, wanted in ((a.grad, b.T @ of_product), (b.grad, of_product @ a.T)):
            error = (found - wanted).abs().max() / wanted.abs().max()
            assert error < 5e-4, (path, error)


def test_two_low_rank_coprocessors_and_a_full_copy_share_a_base(llama, make):
    base = own_copy(llama)
    first = make(base, "warm", kind="lora", rank=2)
    alone = losses(base, first)
    with torch.no_grad():
        second = make(base, "warm", kind="lora", rank=4)
        second.soft_tokens.add_(1.0)
        other = losses(base, second)
    assert torch.equal(losses(base, first), alone)
    assert not torch.equal(other, alone)
    assert gradients(base, first)
    full = make(base, "warm")
    plain = make(llama, "warm")
    assert full.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(losses(base, full), losses(llama, plain))


def test_targets_choose_the_layers_that_get_low_rank_weights(llama, make):
    coprocessor = make(own_copy(llama), "paper", kind="lora", targets=("q_proj", "up_proj"))
    layers = {name.rsplit("/", 2)[1] for name in coprocessor.adapters}
    assert layers == {"q_proj", "up_proj"}


def test_targets_that_are_not_there_are_refused_with_those_that_are(llama):
    config = coprocessor_config(kind="lora", targets=("q_proj", "query"))
    with pytest.raises(UnsupportedModelError, match=r"'query' .*down_proj, gate_proj, k_proj"):
        build(config, llama)
    assert not [m for m in llama.trunk.modules() if hasattr(m, "lora_A")]


def test_fewer_layers_are_those_that_were_named(llama, make):
    whole, part = make(llama, "paper"), build(coprocessor_config(layers=(1,)), llama)
    assert len(part.trunk.layers) == 1
    assert part.trunk.layers[0].self_attn.layer_idx == 1
    assert torch.equal(
        part.trunk.layers[0].mlp.up_proj.weight, llama.trunk.layers[1].mlp.up_proj.weight
    )
    assert part.num_parameters < whole.num_parameters
    assert llama.trunk.config.num_hidden_layers == 2


def test_layers_that_the_base_has_not_are_refused(llama):
    with pytest.raises(UnsupportedModelError, match=r"names \[0, 2\] .*has layers 0 to 1"):
        build(coprocessor_config(layers=(0, 2)), llama)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"layers": (1, 0)}, "rising order"),
        ({"layers": ()}, "layers must name at least one"),
        ({"targets": ()}, "targets must name at least one"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"kind": "soft", "rank": 8}, "kind 'soft' has no use for it: .*lora"),
        ({"kind": "hidden", "layers": (0,)}, "no use for it: .*full, scratch"),
        ({"kind": "best"}, "must be one of full, lora"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(llama, settings, told):
    with pytest.raises(ValueError, match=told):
        build(coprocessor_config(**settings), llama)


def test_fresh_weights_are_not_the_base_s(llama):
    scratch = build(coprocessor_config(kind="scratch"), llama)
    weight = scratch.trunk.layers[0].mlp.up_proj.weight
    assert weight.shape == llama.trunk.layers[0].mlp.up_proj.weight.shape
    assert (weight - llama.trunk.layers[0].mlp.up_proj.weight).abs().max() > 0.1
    assert scratch.trunk.embed_tokens is None


def test_a_pause_is_one_embedding_whatever_the_text(llama, make):
    coprocessor = make(llama, "paper", kind="pause")
    latents = coprocessor(llama.read(texts()), ANCHORS)
    assert latents.shape == (2, 4, 3, 16)
    assert torch.equal(latents, latents[0, 0, 0].expand_as(latents))
    assert coprocessor.num_parameters == 16


def test_a_base_trained_on_begins_as_the_base(llama):
    from deliberate.core.ahead_loss import plain_losses

    continued = build(coprocessor_config(kind="continued"), llama)
    expected = plain_losses(llama, llama.read(texts()), ANCHORS, ahead=AHEAD)
    torch.testing.assert_close(losses(llama, continued), expected)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("hidden", "caches do not keep them"), ("continued", "writes no latents")],
)
def test_a_kind_that_cannot_augment_a_cache_says_so(llama, make, kind, told):
    coprocessor = make(llama, "paper", kind=kind)
    with pytest.raises(DeliberateError, match=told):
        augment(llama, coprocessor, prefill(llama, [texts()[0]]))
