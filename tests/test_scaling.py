"""The tables of docs/scaling.md are what the dry run says."""

import dataclasses
import re
from pathlib import Path

import pytest
from transformers import AutoConfig

from deliberate.core.footprint import footprint
from deliberate.train import load_recipe
from deliberate.train.plan import Plan, plan
from deliberate.train.shape import shape_of

ROOT = Path(__file__).parent.parent
GEMMA_9B = {
    "model_type": "gemma2",
    "vocab_size": 256000,
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
}
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
KINDS = {
    "full": [],
    "full, recompute": ["train.recompute=true"],
    "lora 64, recompute": ["coprocessor.kind=lora", "train.recompute=true"],
}
RATE = 4e14


def planned(base: str, latents: int, changes: list[str], *, gpus: int = 1) -> Plan:
    changes = [f"coprocessor.latents={latents}", f"train.batch={gpus}", *changes]
    changes += [f"train.accumulate={1024 // gpus}"]
    recipe = load_recipe(ROOT / "recipes/gemma2-2b.yaml", changes=changes)
    if base == "9B":
        section = dataclasses.replace(recipe.base, architecture=GEMMA_9B)
        recipe = dataclasses.replace(recipe, base=section)
    return plan(recipe, devices=gpus)


def rows(columns: int) -> list[list[str]]:
    text = (ROOT / "docs/scaling.md").read_text()
    found = re.findall(r"^\| ((?:2B|9B) \|.*) \|$", text, re.MULTILINE)
    return [row for line in found if len(row := line.split(" | ")) == columns]


@pytest.mark.parametrize("row", rows(6), ids=" ".join)
def test_hours_are_those_of_the_plan(row):
    base, latents, flops, *hours = row
    for gpus, said in zip((1, 8, 64), hours, strict=True):
        found = planned(base, int(latents), [], gpus=gpus)
        assert f"{sum(found.flops.values()):.2e}" == flops
        assert f"{found.hours(RATE):,.0f}" == said


@pytest.mark.parametrize("row", rows(9), ids=" ".join)
def test_memory_is_that_of_the_plan(row):
    base, kind, *said, whole = row
    memory = planned(base, 32, KINDS[kind]).memory
    assert [f"{each / 1e9:.1f}" for each in memory.values()] == said
    assert f"{sum(memory.values()) / 1e9:.1f}" == whole


@pytest.mark.parametrize("row", rows(11), ids=" ".join)
def test_memory_in_shares_is_that_of_the_plan(row):
    base, kind, gpus, *said, whole = row
    memory = planned(base, 32, [*KINDS[kind], "train.shard=full"], gpus=int(gpus)).memory
    assert [f"{each / 1e9:.1f}" for each in memory.values()] == said
    assert f"{sum(memory.values()) / 1e9:.1f}" == whole


def test_there_are_rows():
    assert (len(rows(6)), len(rows(9)), len(rows(11))) == (8, 6, 6)
    assert (len(offline(6)), len(offline(7))) == (3, 3)


DOCUMENTS, TOKENS, LATENTS = 1_000_000, 1_000, 32


def offline(columns: int) -> list[list[str]]:
    text = (ROOT / "docs/scaling.md").read_text().split("## A million documents")[1]
    found = re.findall(r"^\| ((?:nano|gemma2-2b|Llama 8B) \|.*) \|$", text, re.MULTILINE)
    return [row for line in found if len(row := line.split(" | ")) == columns]


def recipe_of(base: str):
    if base == "nano":
        return load_recipe(ROOT / "recipes/nano.yaml")
    recipe = load_recipe(ROOT / "recipes/gemma2-2b.yaml")
    if base == "gemma2-2b":
        return recipe
    section = dataclasses.replace(recipe.base, architecture=LLAMA_8B)
    return dataclasses.replace(recipe, base=section)


def config_of(base: str):
    if base == "nano":
        return AutoConfig.from_pretrained(ROOT / "packages/core/deliberate/core/nano/base")
    architecture = dict(recipe_of(base).base.architecture)
    return AutoConfig.for_model(architecture.pop("model_type"), **architecture)


@pytest.mark.parametrize("row", offline(6), ids=" ".join)
def test_bytes_of_a_million_documents_are_those_of_their_files(row):
    base, a_token, plain, augmented, embeds, latents = row
    found = footprint(config_of(base))
    assert f"{found.key_values:,}" == a_token
    for kept, said in (
        (found.of_cache(TOKENS), plain),
        (found.of_cache(TOKENS, LATENTS), augmented),
        (found.of_embeds(TOKENS, LATENTS), embeds),
        (found.of_latents(LATENTS), latents),
    ):
        assert f"{DOCUMENTS * kept / 1e9:,.0f} GB" == said


def flops_of(base: str) -> tuple[float, float]:
    """Of prefill and of augment, for one document, added up token by token."""
    shape = shape_of(recipe_of(base))
    a_weight, a_pair = 2 * shape.trunk, 4 * shape.queries * shape.layers
    seen = range(1, TOKENS + 1)
    prefill = sum(a_weight + a_pair * cached for cached in seen)
    latents = sum(a_weight + a_pair * (TOKENS + cached) for cached in range(1, LATENTS + 1))
    return prefill, 2 * latents  # through the coprocessor, and through the base


@pytest.mark.parametrize("row", offline(7), ids=" ".join)
def test_hours_of_a_million_documents_are_their_flops_at_the_rate(row):
    base, *said = row
    found = []
    for flops in flops_of(base):
        hours = DOCUMENTS * flops / RATE / 3600
        found += [f"{DOCUMENTS * flops:.2e}", f"{hours:,.2f}", f"{hours / 16:,.2f}"]
    assert found == said
