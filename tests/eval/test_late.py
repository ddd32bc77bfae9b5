"""Several delays at once, and anchors after every token."""

from functools import partial

import pytest
import torch

from deliberate.core import measure as measuring
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import Condition, measure, measure_late
from deliberate.core.passages import Passage
from deliberate.eval import Sample, evaluate
from deliberate.eval.controls import CONTROLS


@pytest.fixture
def base(unlike_base):
    return unlike_base


def test_several_delays_at_once_are_each_measured_as_by_itself(base, start, make):
    writer = make(base, start)
    conditions = {
        "latents": Condition(writer=writer),
        "reversed": Condition(writer=writer, change=CONTROLS["reversed"](0)),
        "continued": Condition(writer=make(base, start, kind="continued")),
    }
    chosen = [
        Passage(document=row, token_ids=list(range(2 + row, 20 + 2 * row)), anchor=5 + row)
        for row in range(3)
    ]
    several = measure_late(base, conditions, chosen, delays=[2, 0, 1], anchors=1, ahead=20)
    assert list(several) == [2, 0, 1]
    for delay, losses in several.items():
        alone = measure(base, conditions, chosen, anchors=1, ahead=20, delay=delay)
        assert losses.counts.tolist() == alone.counts.tolist()
        for name, sums in losses.sums.items():
            torch.testing.assert_close(sums, alone.sums[name], atol=2e-5, rtol=2e-5)


def test_every_delay_has_the_same_anchors_and_token_one_follows_the_latents(llama, make):
    writer, token_ids = make(llama, "paper"), list(range(2, 22))
    conditions = {"latents": Condition(writer=writer)}
    chosen = [Passage(document=0, token_ids=token_ids)]
    several = measure_late(llama, conditions, chosen, delays=[0, 3], anchors=None, ahead=4)
    assert several[0].anchors.tolist() == several[3].anchors.tolist() == [20 - 7]
    with torch.no_grad():
        logits = llama.model(input_ids=torch.tensor([token_ids])).logits[0].log_softmax(-1)
    for delay, losses in several.items():
        first = sum(-logits[p + delay, token_ids[p + delay + 1]] for p in range(13))
        torch.testing.assert_close(losses.sums["base"][0, 0].float(), first, atol=1e-4, rtol=1e-5)


def test_an_anchor_after_every_token_is_every_place_that_has_room(llama, start, make, monkeypatch):
    writer = make(llama, start)
    conditions = {
        "latents": Condition(writer=writer),
        "shuffled": Condition(writer=writer, change=CONTROLS["shuffled"](0)),
        "continued": Condition(writer=make(llama, start, kind="continued")),
    }
    chosen = [
        Passage(document=row, token_ids=list(range(2 + row, 2 + row + length)))
        for row, length in enumerate((9, 30, 17))
    ]
    measured = partial(measure, llama, conditions, chosen, ahead=4)
    drawn, every = measured(anchors=10**6), measured(anchors=None)
    assert sorted(every.anchors.tolist()) == [9 - 4, 17 - 4, 30 - 4]
    monkeypatch.setattr(measuring, "ANCHORS_AT_ONCE", 5)
    parted = measured(anchors=None)
    for name, sums in drawn.sums.items():
        torch.testing.assert_close(every.sums[name], sums, atol=0, rtol=0)
        torch.testing.assert_close(parted.sums[name], sums, atol=1e-4, rtol=2e-5)


def test_memory_does_not_grow_with_the_number_of_anchors(llama, make, storages, monkeypatch):
    conditions = {"latents": Condition(writer=make(llama, "warm", latents=4))}
    chosen = [Passage(document=row, token_ids=list(range(2, 60))) for row in range(2)]

    def most(anchors):
        with storages() as account:
            measure(llama, conditions, chosen, anchors=anchors, ahead=8)
        return account.most

    monkeypatch.setattr(measuring, "ANCHORS_AT_ONCE", 4)
    few, every = most(4), most(None)
    monkeypatch.setattr(measuring, "ANCHORS_AT_ONCE", 1000)
    assert every < 1.2 * few
    assert most(None) > 2 * every


def test_the_report_has_a_table_each_delay(llama, make, tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.txt").write_text("some words of a text " * 4)
    trained = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    measured = partial(evaluate, llama, trained, data=str(tmp_path))
    sample = Sample(length=40, ahead=8, anchors=None, delays=(1, 0))
    report = measured(sample=sample).to_dict()
    assert list(report["delays"]) == ["1", "0"]
    first = report["delays"]["1"]
    assert all(report[key] == first[key] for key in first)
    assert first["perplexity"] != report["delays"]["0"]["perplexity"]
    assert (report["delay"], report["every_token"]) == (1, True)
    alone = measured(sample=Sample(length=40, ahead=8, delays=(1,))).to_dict()
    assert "delays" not in alone
    assert alone["perplexity"]["base"] == pytest.approx(first["perplexity"]["base"])


@pytest.mark.parametrize("delays", [(), (-1,), (1, 1)])
def test_delays_that_mean_nothing_are_refused(delays):
    with pytest.raises(ValueError, match="delay must be numbers of at least 0, each once, got"):
        Sample(delays=delays)
    with pytest.raises(ValueError, match=r"at least ahead \+ delay \+ 2 = 20, got 19"):
        Sample(ahead=10, delays=(8,), length=19)
