"""Prefill, save, load, augment and decode, each against one straight forward."""

from inspect import unwrap as unchecked  # a user has no checks of types as the tests have
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deliberate.core.augment import augment, extend, prefill, without_latents
from deliberate.core.batch import Batch
from deliberate.core.cache_file import CacheFile, save
from deliberate.core.checkpoint import Trained
from deliberate.core.generate import Sampling, generate

TOLERANCE = 1e-4
LATENTS = 3


def text(seed: int, length: int) -> Tensor:
    return torch.randint(2, 67, (length,), generator=torch.Generator().manual_seed(seed))


def saved_and_loaded(cache, folder: Path):
    save(cache, folder / "text.st")
    with CacheFile(folder / "text.st") as file:
        file.verify()
        return file.cache()


def continued(base, cache, more: Tensor, *, shift: int = 0) -> Tensor:
    """Logits at each further token, read one at a time from the cache."""
    batch = Batch([cache])
    positions = cache.next_position + shift + torch.arange(len(more))
    hidden = [
        batch.feed(base.trunk, base.embed(token[None, None]), position_ids=position[None, None])
        for token, position in zip(more, positions, strict=True)
    ]
    return base.logits(torch.cat(hidden, 1)[0]).detach()


def test_prefill_save_load_continue_is_one_straight_forward(any_base, tmp_path):
    x, more = text(5, 12), text(6, 6)
    cache = saved_and_loaded(prefill(any_base, [x])[0], tmp_path)
    with torch.no_grad():
        straight = any_base.model(input_ids=torch.cat([x, more])[None]).logits[0]
    torch.testing.assert_close(
        continued(any_base, cache, more), straight[12:], atol=TOLERANCE, rtol=0
    )
    torch.testing.assert_close(any_base.logits(cache.tip), straight[11], atol=TOLERANCE, rtol=0)
    assert (continued(any_base, cache, more, shift=1) - straight[12:]).abs().max() > 100 * TOLERANCE


def one_forward(base, coprocessor, x: Tensor, z: Tensor, y: Tensor, *, shift: int = 0) -> Tensor:
    over = coprocessor.config.positions == "over"
    p, count = len(x) - 1, len(z)
    at = [max(0, p + 1 + i - count * over) + shift for i in range(count)]
    after = [p + 1 + i + count * (not over) + shift for i in range(len(y))]
    embeds = torch.cat([base.embed(x), z, base.embed(y)])[None]
    with torch.no_grad():
        return base.model(
            inputs_embeds=embeds,
            position_ids=torch.tensor([list(range(p + 1)) + at + after]),
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            use_cache=False,
        ).logits[0]


def test_augment_decode_is_one_forward_over_text_latents_and_answer(
    any_base, start, make, tmp_path
):
    coprocessor, x, y = make(any_base, start), text(7, 12), text(8, 6)
    augmented = saved_and_loaded(
        augment(any_base, coprocessor, prefill(any_base, [x]))[0], tmp_path
    )
    z = augmented.latents
    straight = one_forward(any_base, coprocessor, x, z, y)
    read = continued(any_base, augmented, y)
    torch.testing.assert_close(read, straight[12 + LATENTS :], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        any_base.logits(augmented.tip), straight[11 + LATENTS], atol=TOLERANCE, rtol=0
    )
    moved = one_forward(any_base, coprocessor, x, z, y, shift=1)[12 + LATENTS :]
    assert (read - moved).abs().max() > 100 * TOLERANCE


def test_decoded_tokens_are_those_of_one_forward(base, start, make):
    coprocessor, x = make(base, start), text(9, 11)
    augmented = augment(base, coprocessor, prefill(base, [x]))[0]
    [result] = generate(base, [augmented], Sampling(max_tokens=8))
    y = torch.tensor(result.token_ids)
    straight = one_forward(base, coprocessor, x, augmented.latents, y)
    assert torch.equal(y, straight[10 + LATENTS : -1].argmax(-1))


def test_a_batch_of_different_lengths_is_its_texts_one_by_one(base, start, make):
    coprocessor, texts = make(base, start), [text(1, 4), text(2, 13), text(3, 9)]
    together = augment(base, coprocessor, prefill(base, texts))
    alone = [augment(base, coprocessor, prefill(base, [x]))[0] for x in texts]
    for one, many in zip(alone, together, strict=True):
        torch.testing.assert_close(many.latents, one.latents, atol=TOLERANCE, rtol=1e-4)
        torch.testing.assert_close(many.tip, one.tip, atol=TOLERANCE, rtol=1e-4)
        for a, b in zip([*many.keys, *many.values], [*one.keys, *one.values], strict=True):
            torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=1e-4)
    sampling = Sampling(max_tokens=6, temperature=0.8, top_p=0.9, seed=4)
    batch = generate(base, together, sampling)
    first = generate(base, alone[:1], sampling)[0]
    assert batch[0].token_ids == first.token_ids
    assert [g.token_ids for g in generate(base, together, Sampling(max_tokens=6))] == [
        generate(base, [cache], Sampling(max_tokens=6))[0].token_ids for cache in alone
    ]


def test_reading_on_in_two_steps_is_reading_on_in_one(base, start, make):
    coprocessor, x, more = make(base, start), text(1, 9), text(2, 5)
    augmented = augment(base, coprocessor, prefill(base, [x]))[0]
    twice = extend(base, extend(base, augmented, more[:2]), more[2:])
    once = extend(base, augmented, more)
    torch.testing.assert_close(twice.tip, once.tip, atol=TOLERANCE, rtol=1e-4)
    whole = prefill(base, [torch.cat([x, more])])[0]
    plain = without_latents(base, once)
    torch.testing.assert_close(plain.tip, whole.tip, atol=TOLERANCE, rtol=1e-4)
    assert torch.equal(plain.token_ids, whole.token_ids)


@pytest.mark.parametrize("every", [1, 3])
def test_asking_again_is_augmenting_the_text_so_far(base, start, make, every):
    coprocessor, x = make(base, start), text(4, 8)
    plain = prefill(base, [x])
    sampling = Sampling(max_tokens=6, every=every)
    [result] = generate(base, plain, sampling, coprocessor=coprocessor)
    expected: list[int] = []
    while len(expected) < 6 and 0 not in expected:
        so_far = torch.cat([x, torch.tensor(expected, dtype=torch.long)])
        fresh = augment(base, coprocessor, prefill(base, [so_far]))
        [part] = generate(base, fresh, Sampling(max_tokens=every))
        expected += part.token_ids
    assert result.token_ids == expected[:6]


def test_the_cache_given_is_left_as_it_was(base, start, make):
    coprocessor = make(base, start)
    plain = prefill(base, [text(1, 9), text(2, 5)])
    before = [[layer.clone() for layer in cache.keys] for cache in plain]
    generate(base, plain, Sampling(max_tokens=4), coprocessor=coprocessor)
    for cache, layers in zip(plain, before, strict=True):
        assert cache.latents is None
        assert all(torch.equal(a, b) for a, b in zip(cache.keys, layers, strict=True))
    assert base.trunk.config._attn_implementation in {"sdpa", "eager"}


def test_each_text_of_a_batch_ends_where_its_own_positions_do(base, start, make):
    coprocessor = make(base, start)
    long, short = prefill(base, [text(1, 58), text(2, 5)])
    for model in (None, coprocessor):
        together = generate(base, [long, short], Sampling(max_tokens=20), coprocessor=model)
        alone = [
            generate(base, [cache], Sampling(max_tokens=20), coprocessor=model)[0]
            for cache in (long, short)
        ]
        assert [g.token_ids for g in together] == [g.token_ids for g in alone]
        assert len(together[0].token_ids) <= 64 - 58 + 1


def test_asking_again_ends_with_the_positions_and_loses_nothing(base, start, make):
    coprocessor = make(base, start)
    plain = prefill(base, [text(4, 54), text(5, 3)])
    sampling = Sampling(max_tokens=20, every=4)
    results = generate(base, plain, sampling, coprocessor=coprocessor)
    assert all(result.token_ids for result in results)
    assert 0 in results[1].token_ids or len(results[1].token_ids) == 20


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_sampling_refuses_what_is_not_finite(name, number):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {number}"):
        Sampling(**{name: number})


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ("a text", "got one str"),
        (["a text"], "got a list of str"),
        (text(1, 4), "got one Tensor"),
        ([text(1, 4)[None]], r"got a tensor of shape \(1, 4\)"),
        ([], "got an empty one"),
    ],
)
def test_prefill_refuses_what_is_no_list_of_token_ids(llama, texts, told):
    with pytest.raises((TypeError, ValueError), match=f"token ids from `tokenize`, {told}"):
        unchecked(prefill)(llama, texts)


def test_augment_wants_the_coprocessor_itself(llama, make):
    trained = Trained(coprocessor=make(llama, "warm"), id="mine", fingerprint="f")
    with pytest.raises(TypeError, match=r"got Trained: pass its `\.coprocessor`"):
        unchecked(augment)(llama, trained, prefill(llama, [text(1, 4)]))
    assert repr(trained) == "Trained(id='mine', fingerprint='f')"
    assert len(repr(llama)) < 100
