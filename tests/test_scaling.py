"""The tables of docs/scaling.md are what the dry run says."""

import dataclasses
import re
from pathlib import Path

import pytest

from deliberate.train import load_recipe
from deliberate.train.plan import Plan, plan

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
