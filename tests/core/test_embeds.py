import dataclasses

import pytest
import torch

from deliberate.core import Sampling, augment, extend, generate, prefill, tokenize
from deliberate.core.embeds import embedding_scale, input_embeds
from deliberate.core.errors import CacheError, UnsupportedModelError

SCALED = {"gemma2", "gemma3_text", "gemma4_text"}


@pytest.fixture
def cache(any_base, make):
    plain = prefill(any_base, [tokenize(any_base, "some words to read")])
    return augment(any_base, make(any_base, "paper"), plain)[0]


def test_a_forward_over_embeddings_is_decoding_from_the_augmented_cache(any_base, cache):
    sampling = Sampling(max_tokens=5, ignore_end=True)
    [answer] = generate(any_base, [cache], sampling)
    embeds = input_embeds(any_base, cache)
    assert len(embeds) == len(cache.token_ids) + 3
    after = any_base.embed(torch.tensor(answer.token_ids[:-1]))
    output = any_base.model(inputs_embeds=torch.cat([embeds, after])[None])
    assert output.logits[0, len(embeds) - 1 :].argmax(-1).tolist() == answer.token_ids
    alone = any_base.trunk(inputs_embeds=embeds[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(alone, cache.latents_last_hidden, rtol=1e-4, atol=1e-4)


def test_who_scales_is_told_apart(any_base, cache):
    scale = embedding_scale(any_base)
    assert scale == (any_base.hidden**0.5 if any_base.id in SCALED else 1.0)
    unscaled = input_embeds(any_base, cache, unscaled=True)
    weights = any_base.trunk.get_input_embeddings().weight
    torch.testing.assert_close(unscaled[: len(cache.token_ids)], weights[cache.token_ids])
    torch.testing.assert_close(unscaled * scale, input_embeds(any_base, cache))


def test_latents_over_the_text_s_positions_are_refused(llama, make):
    plain = prefill(llama, [tokenize(llama, "some words")])
    with pytest.raises(CacheError, match="positions: over"):
        input_embeds(llama, augment(llama, make(llama, "warm"), plain)[0])


def test_a_cache_without_latents_is_refused(llama):
    with pytest.raises(CacheError, match="no latents"):
        input_embeds(llama, prefill(llama, [tokenize(llama, "some words")])[0])


def test_text_after_the_latents_comes_after_them(llama, make):
    plain = prefill(llama, [tokenize(llama, "some words")])
    [thought] = augment(llama, make(llama, "paper"), plain)
    longer = extend(llama, thought, tokenize(llama, "more", further=True))
    embeds = input_embeds(llama, longer)
    hidden = llama.trunk(inputs_embeds=embeds[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(hidden, longer.tip, rtol=1e-4, atol=1e-4)


def test_an_embedding_layer_that_does_more_than_multiply_is_refused(llama, monkeypatch):
    base = dataclasses.replace(llama)
    monkeypatch.setattr(
        type(base), "embed", lambda _, ids: base.embedding_rows(len(ids)).tanh() * 9
    )
    with pytest.raises(UnsupportedModelError, match="multiply"):
        embedding_scale(base)
