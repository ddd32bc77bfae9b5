"""One pass over many anchors = each anchor's own sequence, loss and every gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deliberate.core.ahead_loss import ahead_losses, plain_losses
from deliberate.core.base import Base
from deliberate.core.cache import cache_keyword
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.structure import final_norm

AHEAD = 4
LATENTS = 3
TOKENS = 20  # almost three windows
ANCHORS = [[0, 3, 8, 15], [1, 2, 9, 14]]
LOSS_TOLERANCE = 5e-5  # float32 on losses of about 4; products are summed in another order
GRADIENT_TOLERANCE = 2e-4


VARIANTS = [
    {"kind": "full"},
    {"kind": "full", "layers": (1,)},
    {"kind": "scratch"},
    {"kind": "hidden"},
]


def texts() -> Tensor:
    return torch.randint(2, 67, (2, TOKENS), generator=torch.Generator().manual_seed(3))


def one_pass(base: Base, coprocessor: Coprocessor, anchors: Tensor) -> Tensor:
    reading = base.read(texts())
    latents = coprocessor(reading, anchors)
    return ahead_losses(
        base, reading, anchors, latents, ahead=AHEAD, positions=coprocessor.config.positions
    )


def straight(model: torch.nn.Module, embeds: Tensor, positions: list[int]) -> Any:
    """One forward over one whole sequence, by the model's own attention and mask.

    A mask of ones keeps transformers from reading repeated positions as packed texts.
    """
    mask = torch.ones(1, embeds.shape[0], dtype=torch.long)
    return model(
        inputs_embeds=embeds[None],
        position_ids=torch.tensor([positions]),
        attention_mask=mask,
        use_cache=False,
    )


def plain_latents(base: Base, coprocessor: Coprocessor, text: Tensor, *, shift: int = 0) -> Tensor:
    """Latents by running the coprocessor on a text whose keys and values come from the base.

    The base's keys and values enter as a cache, through transformers' own path.
    """
    from transformers import DynamicCache

    config, anchor = coprocessor.config, len(text) - 1
    embeds = base.embed(text)
    blind = config.soft_input == "last_token"
    seen = text[:-1] if blind else text
    soft = coprocessor.soft_tokens + (embeds[-1] if blind else 0)
    first = anchor if blind else anchor + 1
    rows = soft[:, None] if blind else soft[None]  # blind ones are sequences of their own
    hidden = []
    for row in rows:
        if config.kind == "hidden":
            with torch.no_grad():
                states = base.trunk(input_ids=text[None], use_cache=False).last_hidden_state[0]
            states = states[: len(seen)]
            positions = [*range(len(seen)), *range(first + shift, first + shift + len(row))]
            own = straight(coprocessor.trunk, torch.cat([states, row]), positions)
            hidden.append(own.last_hidden_state[0, len(seen) :])
            continue
        cache = DynamicCache()
        if len(seen):
            with torch.no_grad():
                keyword = {cache_keyword(type(base.trunk)): cache}
                base.trunk(input_ids=seen[None], use_cache=True, **keyword)
        positions = torch.arange(first, first + len(row))[None] + shift
        keyword = {cache_keyword(type(coprocessor.trunk)): cache}
        out = coprocessor.trunk(
            inputs_embeds=row[None], position_ids=positions, use_cache=True, **keyword
        )
        hidden.append(out.last_hidden_state[0])
    return coprocessor.scale(torch.cat(hidden))


def separate(
    base: Base, coprocessor: Coprocessor, anchors: Tensor, *, shift: int = 0, moved: int = 0
) -> Tensor:
    """The same losses, an anchor at a time; `shift` and `moved` put positions or anchors wrong."""
    losses = []
    for text, row in zip(texts(), anchors.tolist(), strict=True):
        for anchor in row:
            p = min(anchor + moved, TOKENS - 1 - AHEAD)
            z = plain_latents(base, coprocessor, text[: p + 1], shift=shift)
            over = coprocessor.config.positions == "over"
            at = [max(0, p + 1 + i - LATENTS * over) for i in range(LATENTS)]
            after = [p + 1 + i + LATENTS * (not over) for i in range(AHEAD - 1)]
            embeds = torch.cat([base.embed(text[: p + 1]), z, base.embed(text[p + 1 : p + AHEAD])])
            position_ids = list(range(p + 1)) + [i + shift for i in at + after]
            logits = straight(base.model, embeds, position_ids).logits[0, p + LATENTS :]
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits, text[anchor + 1 : anchor + 1 + AHEAD], reduction="none"
                )
            )
    return torch.stack(losses).view(*anchors.shape, AHEAD)


def late(base: Base, coprocessor: Coprocessor, text: Tensor, p: int, delay: int) -> Tensor:
    """Losses where latents of x[0..p] come after x[p+delay-1], from one whole sequence."""
    z = plain_latents(base, coprocessor, text[: p + 1])
    read = p + delay  # tokens before the latents; x[read] is known and not predicted
    over = coprocessor.config.positions == "over"
    at = [max(0, read + i - LATENTS * over) for i in range(LATENTS)]
    after = [read + i + LATENTS * (not over) for i in range(AHEAD)]
    embeds = torch.cat([base.embed(text[:read]), z, base.embed(text[read : read + AHEAD])])
    logits = straight(base.model, embeds, [*range(read), *at, *after]).logits[0, read + LATENTS :]
    targets = text[read + 1 : read + 1 + AHEAD]
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@pytest.mark.parametrize("delay", [1, 3])
def test_late_latents_are_those_of_one_sequence_in_loss_and_every_gradient(
    base, start, make, delay
):
    coprocessor = make(base, start)
    anchors = torch.tensor([[0, 3, 8], [1, 2, 9]])
    fast = coprocessor.losses(base, base.read(texts()), anchors, ahead=AHEAD, delay=delay)
    rows = zip(texts(), anchors.tolist(), strict=True)
    slow = torch.stack([
        torch.stack([late(base, coprocessor, t, p, delay) for p in row]) for t, row in rows
    ])
    torch.testing.assert_close(fast, slow, atol=LOSS_TOLERANCE, rtol=0)
    wanted = gradients(slow, coprocessor)
    for name, gradient in gradients(fast, coprocessor).items():
        error = (gradient - wanted[name]).abs().max() / wanted[name].abs().max()
        assert error < GRADIENT_TOLERANCE, (name, error)
    later = coprocessor.losses(base, base.read(texts()), anchors, ahead=AHEAD, delay=delay + 1)
    assert (later - slow).abs().max() > 100 * LOSS_TOLERANCE


def test_with_a_delay_the_base_is_measured_on_the_same_targets(llama):
    anchors, reading = torch.tensor([[0, 3, 8], [1, 2, 9]]), llama.read(texts())
    now = plain_losses(llama, reading, anchors, ahead=AHEAD + 2)
    torch.testing.assert_close(
        plain_losses(llama, reading, anchors, ahead=AHEAD, delay=2), now[..., 2:]
    )


def gradients(losses: Tensor, coprocessor: Coprocessor) -> dict[str, Tensor]:
    coprocessor.zero_grad()
    losses.mean().backward()
    missing = [name for name, p in coprocessor.named_parameters() if p.grad is None]
    assert not missing
    return {name: p.grad.clone() for name, p in coprocessor.named_parameters()}


@pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values()))
)
def test_one_pass_equals_separate_sequences_in_loss_and_every_gradient(
    any_base, start, make, variant
):
    coprocessor = make(any_base, start, **variant)
    anchors = torch.tensor(ANCHORS)
    fast = one_pass(any_base, coprocessor, anchors)
    slow = separate(any_base, coprocessor, anchors)
    torch.testing.assert_close(fast, slow, atol=LOSS_TOLERANCE, rtol=0)

    fast_gradients = gradients(fast, coprocessor)
    slow_gradients = gradients(slow, coprocessor)
    largest = max(gradient.abs().max() for gradient in slow_gradients.values())
    for name, expected in slow_gradients.items():
        scale = expected.abs().max()
        assert scale > 0, name
        if not expected.ndim:  # one sum of terms that all but cancel: rounding is of their size
            scale = scale.clamp(min=0.01 * largest)
        error = (fast_gradients[name] - expected).abs().max() / scale
        assert error < GRADIENT_TOLERANCE, (name, error)


@pytest.mark.parametrize("variant", VARIANTS[::3], ids=["full", "hidden"])
def test_likewise_from_the_start_of_thoughts(unlike_base, make, variant):
    test_one_pass_equals_separate_sequences_in_loss_and_every_gradient(
        unlike_base, "thought", make, variant
    )


@pytest.mark.parametrize("wrong", [{"shift": 1}, {"moved": 1}])
def test_a_shift_by_one_breaks_the_proof_by_far_in_loss_and_gradients(any_base, start, make, wrong):
    coprocessor = make(any_base, start)
    anchors = torch.tensor([[0, 3, 8], [1, 2, 9]])
    right = one_pass(any_base, coprocessor, anchors)
    shifted = separate(any_base, coprocessor, anchors, **wrong)
    # A rotary any_base sees distances alone, so a common shift shows where latents meet the text.
    assert (right - shifted).abs().max() > 100 * LOSS_TOLERANCE
    expected = gradients(shifted, coprocessor)
    errors = [
        (gradient - expected[name]).abs().max() / expected[name].abs().max()
        for name, gradient in gradients(right, coprocessor).items()
    ]
    assert max(errors) > 100 * GRADIENT_TOLERANCE


def test_gradients_reach_the_coprocessor_and_never_the_base(base, start, make):
    coprocessor = make(base, start)
    one_pass(base, coprocessor, torch.tensor(ANCHORS)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in coprocessor.parameters())
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_without_latents_the_logits_are_the_base_s_own_bit_for_bit(base):
    token_ids = texts()
    reading = base.read(token_ids)
    with torch.no_grad():
        expected = base.model(input_ids=token_ids)
    assert torch.equal(base.logits(reading.hidden), expected.logits)


def test_without_latents_the_losses_are_the_base_s_own(base):
    token_ids, anchors = texts(), torch.tensor(ANCHORS)
    with torch.no_grad():
        logits = base.model(input_ids=token_ids).logits[:, :-1]
        own = torch.nn.functional.cross_entropy(logits.mT, token_ids[:, 1:], reduction="none")
        losses = plain_losses(base, base.read(token_ids), anchors, ahead=AHEAD)
    for row, column in [(0, 0), (0, 3), (1, 2)]:
        anchor = ANCHORS[row][column]
        torch.testing.assert_close(losses[row, column], own[row, anchor : anchor + AHEAD])


def test_a_warm_start_repeats_what_the_base_computes_at_the_anchor(base):
    from deliberate.core.coprocessor import coprocessor_config
    from deliberate.core.kinds import build

    coprocessor = build(coprocessor_config(start="warm", latents=1, latent_norm="after"), base)
    with torch.no_grad():
        coprocessor.soft_tokens.zero_()
        reading = base.read(texts())
        hidden = reading.hidden[:, [4, 11]]
        latents = coprocessor(reading, torch.tensor([[4, 11]] * 2))[:, :, 0]
        expected = (
            torch.nn.functional.rms_norm(hidden, hidden.shape[-1:]) * coprocessor.scale.log.exp()
        )
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert final_norm(base.trunk) in dict(base.trunk.named_children())


def test_chunks_change_nothing(base, start, make, monkeypatch):
    coprocessor = make(base, start)
    anchors = torch.tensor(ANCHORS)
    whole = one_pass(base, coprocessor, anchors)
    whole_gradients = gradients(whole, coprocessor)
    monkeypatch.setattr("deliberate.core.grouped_attention.CHUNK_SCORES", 1)
    monkeypatch.setattr("deliberate.core.ahead_loss.LOGITS_AT_ONCE", 1)
    parts = one_pass(base, coprocessor, anchors)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    for name, gradient in gradients(parts, coprocessor).items():
        torch.testing.assert_close(gradient, whole_gradients[name], atol=1e-4, rtol=1e-3)


def test_the_attention_setting_is_put_back_also_after_a_failure(base, start, make):
    coprocessor, reading = make(base, start), base.read(texts())
    before = coprocessor.trunk.config._attn_implementation
    coprocessor(reading, torch.tensor(ANCHORS))
    assert coprocessor.trunk.config._attn_implementation == before
    broken = type(reading)(token_ids=reading.token_ids, keys=[], values=[], embeds=reading.embeds)
    with pytest.raises(IndexError):
        coprocessor(broken, torch.tensor(ANCHORS))
    assert coprocessor.trunk.config._attn_implementation == before
