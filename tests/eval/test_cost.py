"""What latents cost: counts against torch's own, sizes against files, every kind; no clock."""

import dataclasses
import json
from typing import cast

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from deliberate.core import CacheFile, augment, generate, prefill, save
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError, TextError
from deliberate.core.generate import Sampling, end_tokens
from deliberate.core.kinds import KINDS, build
from deliberate.eval import Subject
from deliberate.eval.candidate import Candidate, resized
from deliberate.eval.clock import in_turn, spread
from deliberate.eval.cost import BY_LATENTS, THOUGHTS, CostSetting, cost
from deliberate.eval.flops import extra_flops
from deliberate.eval.peak import peak_rise

FEW = CostSetting(decoded_tokens=2, repeats=1)
SHORT = 5
"""Tokens that lie within the sliding window of every tiny family, latents and all."""


def trained(coprocessor, name="mine"):
    return Trained(coprocessor=coprocessor.eval(), id=name, fingerprint=f"{name}'s weights")


@pytest.fixture
def priced(fresh, make):
    """Measure a kind on a base of its own, with baselines."""

    def priced(kind, **settings):
        base = fresh()
        subject = Subject(
            trained=trained(make(base, "warm", kind=kind, **settings)),
            baselines={
                name: trained(make(base, "warm", kind=name), name) for name in ("soft", "pause")
            },
        )
        return base, subject, cost(base, [subject], FEW).to_dict()

    return priced


@pytest.fixture
def plainly(monkeypatch):
    """Have a base compute by plain products, which the counter sees; it sees no fused ones."""

    def plainly(base):
        for name in ("_attn_implementation", "_experts_implementation"):
            if hasattr(base.model.config, name):
                monkeypatch.setattr(base.model.config, name, "eager")
        return base

    return plainly


def counted(base, coprocessor, tokens):
    """FLOPs of asking and reading, as torch counts its own products."""
    reading = base.read(torch.arange(tokens)[None])
    plain = prefill(base, [torch.arange(tokens)])
    coprocessor.requires_grad_(False)  # the counter asks inputs that want one for their history
    with FlopCounterMode(display=False) as counter:
        augment(base, coprocessor, plain, reading=reading)
    return counter.get_total_flops(), extra_flops(base, coprocessor, plain[0])


def test_the_flops_are_those_that_torch_counts(any_base, plainly, make, start):
    base = plainly(any_base)
    found, said = counted(base, make(base, start, kind="full"), SHORT)
    assert found == said > 0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *[(kind, {}) for kind in KINDS if kind != "continued"],
        ("full", {"layers": (1,)}),
        ("lora", {"targets": ("q_proj",), "rank": 3}),
    ],
)
def test_the_flops_of_each_kind_are_those_that_torch_counts(
    fresh, plainly, make, start, kind, settings
):
    base = plainly(fresh())
    make(base, start, kind="lora", rank=5)  # somebody else's weights in the base count nowhere
    for tokens in (1, SHORT, 20):
        found, said = counted(base, make(base, start, kind=kind, **settings), tokens)
        assert found == said > 0


def test_a_sliding_window_makes_the_flops_fewer_than_is_said(any_base, plainly, make):
    base = plainly(any_base)
    found, said = counted(base, make(base, "paper", kind="full"), 20)
    windowed = getattr(base.model.config, "sliding_window", None) is not None
    assert found < said if windowed and found != said else found == said


def test_what_is_held_at_the_peak_is_what_the_allocator_records(llama, make):
    prompt = torch.arange(30)
    candidate = Candidate.of("latents", llama, trained(make(llama, "warm")))

    def run():
        candidate.decode([candidate.augmented(prompt)], 4)

    run()
    found = peak_rise(run, torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    kept = cast("torch.autograd.profiler.profile", recorded.profiler)
    events = [event for event in kept.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    assert 0.9 * held.max() < found <= held.max()


def test_the_base_has_no_latents_and_costs_nothing_extra(priced):
    base, _, result = priced("full")
    row = result["rows"][0]
    assert row["name"] == "base"
    assert row["run"] is row["kind"] is None
    assert row["latents"] == row["extra_flops"] == row["latents_bytes"] == 0
    assert set(row["extra_seconds"].values()) == {0}
    assert row["parameters"] == {"total": base.num_parameters, "trained": 0}
    assert result["by_latents"][0] == {
        "latents": 0,
        "first_token_cached_seconds": row["first_token_cached_seconds"],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_every_key_and_null_only_for_what_cannot_be(priced, kind):
    _, _, result = priced(kind)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result.keys() == {
        "device", "dtype", "threads", "prompt_tokens", "decoded_tokens", "repeats", "rows",
        "by_latents", "chain_of_thought",
    }  # fmt: skip
    assert [row["name"] for row in result["rows"]] == ["base", "latents", "soft", "pause"]
    assert [each["latents"] for each in result["by_latents"]] == list(BY_LATENTS)
    assert [each["tokens"] for each in result["chain_of_thought"]] == list(THOUGHTS)
    for row in result["rows"]:
        assert row.keys() == {
            "name", "run", "kind", "latents", "parameters", "extra_flops", "first_token_seconds",
            "first_token_cached_seconds", "extra_seconds", "tokens_per_second", "peak_bytes",
            "cache_bytes", "latents_bytes",
        }  # fmt: skip
        nothing = {key for key, value in row.items() if value is None}
        allowed = {"run", "kind"} if row["name"] == "base" else set()
        if row["kind"] == "hidden":
            allowed = {"first_token_cached_seconds", "extra_seconds"}
        assert nothing == allowed
        for key in row.keys() & {"first_token_seconds", "tokens_per_second"}:
            assert row[key]["low"] <= row[key]["median"] <= row[key]["high"]
    asked = [each["first_token_cached_seconds"] for each in result["by_latents"][1:]]
    assert all((each is None) == (kind in {"hidden", "continued"}) for each in asked)
    latents = result["rows"][1]
    assert latents["latents"] == (0 if kind == "continued" else 3)
    assert (latents["latents_bytes"] > 0) == (kind != "continued")
    assert (latents["extra_flops"] > 0) == (kind != "continued")


def test_parameters_are_those_counted_by_hand(priced):
    hidden, latents, rank = 16, 3, 2
    base, _, result = priced("lora", rank=rank, targets=("q_proj",))
    heads, layers = 4 * 8, 2
    own = layers * rank * (hidden + heads) + latents * hidden + 1  # and the scale
    of = {row["name"]: row["parameters"] for row in result["rows"]}
    whole = sum(weight.numel() for name, weight in base.model.named_parameters()
                if ".lora_" not in name)  # fmt: skip
    assert of["base"] == {"total": whole, "trained": 0}
    assert of["latents"] == {"total": whole + own, "trained": own}
    assert of["soft"] == {"total": whole + latents * hidden, "trained": latents * hidden}
    assert of["pause"] == {"total": whole + hidden, "trained": hidden}


def test_a_continued_base_takes_its_own_weights_and_no_others(priced):
    base, _, result = priced("continued")
    assert result["rows"][1]["parameters"] == {
        "total": base.num_parameters, "trained": base.num_parameters
    }  # fmt: skip


def test_the_weights_are_in_the_memory_that_is_said(priced):
    _, _, result = priced("full")
    for row in result["rows"]:
        assert row["peak_bytes"] > 4 * row["parameters"]["total"]


def test_bytes_are_those_of_the_files_that_the_commands_write(llama, make, tmp_path):
    coprocessor = trained(make(llama, "warm"))
    result = cost(llama, [Subject(trained=coprocessor)], FEW).to_dict()
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(llama.vocab, (result["prompt_tokens"],), generator=generator)
    plain = prefill(llama, [prompt])
    names = {"name": coprocessor.id, "fingerprint": coprocessor.fingerprint}
    [whole] = augment(llama, coprocessor.coprocessor, plain, **names, reading=None)
    save(plain[0], tmp_path / "plain.st")
    save(whole, tmp_path / "whole.st")
    with CacheFile(tmp_path / "whole.st") as file:
        assert file.num_latents == 3
    size = (tmp_path / "plain.st").stat().st_size
    row = result["rows"][1]
    assert row["cache_bytes"] == result["rows"][0]["cache_bytes"] == size
    assert row["latents_bytes"] == (tmp_path / "whole.st").stat().st_size - size


def test_a_reading_lets_a_kind_that_reads_no_caches_augment(llama, make):
    coprocessor = make(llama, "warm", kind="hidden")
    prompt = torch.arange(9)
    reading = llama.read(prompt[None])
    [found] = augment(llama, coprocessor, prefill(llama, [prompt]), reading=reading)
    with torch.no_grad():
        expected = coprocessor(reading, torch.tensor([[8]]))[0, 0]
    torch.testing.assert_close(found.latents, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"hidden", "continued"}])
@pytest.mark.parametrize("latents", [1, 2, 8])
def test_a_coprocessor_of_another_size_writes_so_many_and_shares_the_rest(
    fresh, make, start, kind, latents
):
    base = fresh()
    coprocessor = make(base, start, kind=kind)
    other = resized(coprocessor, latents)
    plain = prefill(base, [torch.arange(12)])
    before = coprocessor.num_parameters
    [found] = augment(base, other, plain)
    assert found.latents is not None
    assert len(found.latents) == latents
    [own] = augment(base, coprocessor, plain)
    assert own.latents is not None
    assert len(own.latents) == 3
    assert coprocessor.num_parameters == before
    made = build(dataclasses.replace(coprocessor.config, latents=latents), base)
    assert other.num_parameters == made.num_parameters
    assert extra_flops(base, other, plain[0]) == extra_flops(base, made, plain[0])
    soft = {id(weight) for weight in coprocessor.soft_parameters()}
    shared = {id(weight) for weight in coprocessor.parameters()} - soft
    assert shared <= {id(weight) for weight in other.parameters()}


def test_each_baseline_is_measured_once_and_each_run_has_a_row(llama, make):
    soft = trained(make(llama, "warm", kind="soft"), "soft")
    subjects = [
        Subject(trained=trained(make(llama, start), start), baselines={"soft": soft})
        for start in ("warm", "paper")
    ]
    seen = []
    rows = cost(llama, subjects, FEW, on_runs=lambda *at: seen.append(at)).rows
    assert [(row.name, row.run) for row in rows] == [
        ("base", None), ("latents", "warm"), ("latents", "paper"), ("soft", "soft")
    ]  # fmt: skip
    (_, total), *_ = seen
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_a_baseline_of_another_size_is_refused(llama, make):
    subject = Subject(
        trained=trained(make(llama, "warm")),
        baselines={"soft": trained(make(llama, "warm", kind="soft", latents=4))},
    )
    with pytest.raises(CheckpointError, match="must be of kind soft"):
        cost(llama, [subject], FEW)


def test_the_longest_prompt_that_fits_is_measured_and_one_more_is_refused(llama, make):
    subject = Subject(trained=trained(make(llama, "paper")))
    fits = llama.positions - 3 - 2
    setting = dataclasses.replace(FEW, prompt_tokens=fits)
    result = cost(llama, [subject], setting)
    assert result.prompt_tokens == fits
    assert [each.first_token_cached_seconds is None for each in result.by_latents] == [
        False, False, True, True, True, True,
    ]  # fmt: skip
    assert [each.first_token_cached_seconds is None for each in result.chain_of_thought] == [
        False, True, True, True, True,
    ]  # fmt: skip
    with pytest.raises(TextError, match=f"{fits + 1} prompt tokens, 3 latents .* 64 positions"):
        cost(llama, [subject], dataclasses.replace(FEW, prompt_tokens=fits + 1))
    with pytest.raises(TextError, match="fewer decoded tokens"):
        cost(llama, [subject], dataclasses.replace(FEW, decoded_tokens=61))


@pytest.mark.parametrize("name", ["prompt_tokens", "decoded_tokens", "repeats"])
def test_a_setting_out_of_range_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        CostSetting(**{name: 0})
    with pytest.raises(ValueError, match="seed must be from 0"):
        CostSetting(seed=-1)


def test_runs_take_turns_and_the_first_turn_is_not_timed():
    order = []
    found = in_turn(
        {name: lambda name=name: order.append(name) for name in "ab"},
        repeats=3,
        before=lambda: order.append("-"),
    )
    assert "".join(order) == "-a-b" * 4
    assert {name: len(each) for name, each in found.items()} == {"a": 3, "b": 3}


def test_a_spread_is_median_least_and_most():
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.low, found.high) == (2.5, 1.0, 10.0)


def test_decoding_past_end_tokens_gives_as_many_tokens_as_were_asked_for(llama):
    plain = prefill(llama, [torch.arange(9)])
    likeliest = int(llama.logits(plain[0].tip).argmax())
    ending = dataclasses.replace(llama)
    ending.model.generation_config.eos_token_id, before = (
        likeliest, ending.model.generation_config.eos_token_id,
    )  # fmt: skip
    try:
        assert end_tokens(ending) == {likeliest}
        assert len(generate(ending, plain, Sampling(max_tokens=7))[0].token_ids) == 1
        on = Sampling(max_tokens=7, ignore_end=True)
        assert len(generate(ending, plain, on)[0].token_ids) == 7
    finally:
        ending.model.generation_config.eos_token_id = before
