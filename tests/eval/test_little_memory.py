"""Where memory runs out, measuring goes on in smaller batches, and says so."""

import json

import pytest
import torch

from deliberate.core.checkpoint import Trained
from deliberate.core.errors import DeliberateError
from deliberate.eval import Sample, Subject, chain, evaluate, latency
from deliberate.eval import cost as costing
from deliberate.eval.accuracy import ask_problems
from deliberate.eval.cost import CostSetting, cost
from deliberate.eval.problem_set import ProblemSet

ASKED = ProblemSet(families=("symbols", "sorting"), steps=(1, 2), count=4)


@pytest.fixture
def trained(llama, make):
    return Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")


@pytest.fixture
def corpus(tmp_path):
    for index in range(16):
        (tmp_path / f"{index}.txt").write_text(f"some words of text {index} " * 2)
    return str(tmp_path)


@pytest.fixture
def room_for(monkeypatch, trained):
    """Leaves the coprocessor memory for so many texts at a time."""
    forward = type(trained.coprocessor).forward

    def room_for(most):
        def too_small(self, reading, anchors):
            if len(anchors) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return forward(self, reading, anchors)

        monkeypatch.setattr(type(trained.coprocessor), "forward", too_small)

    return room_for


def test_a_report_is_that_of_smaller_batches(llama, trained, corpus, room_for):
    given = {
        "controls": ["random", "zero", "shuffled"],
        "data": corpus,
        "sample": Sample(length=40, ahead=8, anchors=4),
    }
    expected = evaluate(llama, trained, **given)
    room_for(4)
    said, counted = [], []
    found = evaluate(
        llama,
        trained,
        **given,
        on_note=said.append,
        on_passages=lambda done, total: counted.append(done),
    )
    assert said == ["out of memory, going on with 4 passages at a time"]
    assert counted == [0, 4, 8, 12, 16]
    assert torch.equal(found.losses.documents, expected.losses.documents)
    assert torch.equal(found.losses.counts, expected.losses.counts)
    for name in ("base", "latents", "zero", "random"):  # random ones were not drawn twice
        close = {"atol": 1e-4, "rtol": 1e-5}
        torch.testing.assert_close(found.losses.sums[name], expected.losses.sums[name], **close)
    assert found.shuffled_from == "document"
    assert len(found.gate.gains.entropy) == found.to_dict()["anchors"]
    again, before = (json.dumps(r.examples, indent=1).splitlines() for r in (found, expected))
    assert len(again) == len(before)


def test_controls_keep_two_texts_together_and_without_them_one_is_enough(
    llama, trained, corpus, room_for
):
    room_for(1)
    given = {"data": corpus, "sample": Sample(length=40, ahead=8, anchors=4)}
    with pytest.raises(
        DeliberateError,
        match=r"a text with 2 together: give a smaller --length, .*; without controls that take",
    ):
        evaluate(llama, trained, **given)
    said = []
    alone = evaluate(llama, trained, controls=[], on_note=said.append, **given)
    assert said[-1] == "out of memory, going on with one at a time"
    assert len(alone.losses.counts) == 16


def test_problems_are_answered_as_in_smaller_batches(llama, trained, room_for):
    subject = Subject(trained=trained, controls=["shuffled", "random"])
    expected = ask_problems(llama, subject, ASKED, batch=8)
    smaller = ask_problems(llama, subject, ASKED, batch=2)
    room_for(2)
    said = []
    found = ask_problems(llama, subject, ASKED, on_note=said.append)
    assert said == [f"out of memory, going on with {size} problems at a time" for size in (4, 2)]
    for name in ("base", "latents"):
        assert found.right[name] == expected.right[name]
    assert found.right == smaller.right
    room_for(0)
    with pytest.raises(DeliberateError, match="ask fewer --steps"):
        ask_problems(llama, subject, ASKED)


def test_a_chain_of_thought_says_once_that_it_goes_on_in_smaller_batches(
    llama, trained, monkeypatch
):
    subject = Subject(trained=trained, controls=[], chains=("cot:2", "cot:3"))
    expected = ask_problems(llama, subject, ASKED, batch=4)
    read = chain.prefill

    def too_small(base, texts):
        if len(texts) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return read(base, texts)

    monkeypatch.setattr(chain, "prefill", too_small)
    said = []
    found = ask_problems(llama, subject, ASKED, on_note=said.append)
    assert said == ["out of memory, going on with 4 problems at a time"]
    assert found.right == expected.right


def test_what_is_done_with_one_text_alone_says_the_way_out(llama, trained, monkeypatch):
    def too_small(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    for module in (latency, costing):
        monkeypatch.setattr(module, "in_turn", too_small)
    subject = Subject(trained=trained, chains=("cot:latency",))
    with pytest.raises(DeliberateError, match=r"timing latents after \d+ tokens: ask fewer"):
        ask_problems(llama, subject, ASKED)
    setting = CostSetting(prompt_tokens=8, decoded_tokens=2, repeats=1)
    with pytest.raises(DeliberateError, match="with a prompt of 8 tokens: give fewer --prompt-"):
        cost(llama, [subject], setting)


def test_a_fault_that_is_not_of_memory_is_not_repaired(llama, trained, corpus, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(type(trained.coprocessor), "forward", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        evaluate(llama, trained, data=corpus, sample=Sample(length=40, ahead=8))
