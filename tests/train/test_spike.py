"""A loss that jumps stops the run before its step, in a resumed run as well."""

import json

import pytest
from torch.optim import AdamW

from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.train import train
from deliberate.train.spike import Spikes


def refused(spikes, loss):
    try:
        spikes.check(99, loss, lambda: "there is no checkpoint")
    except DeliberateError as error:
        return str(error)
    return ""


def test_a_spike_is_above_the_median_by_more_than_its_height():
    spikes = Spikes(2.0)
    spikes.add([1.0, 3.0, 100.0] * 5)  # the mean would be 35
    assert not refused(spikes, 5.0)
    told = refused(spikes, 5.1)
    assert "loss of step 99 is 5.1000" in told
    assert "train.spike (2) above 3.0000, the median of the latest 16" in told


def test_only_the_latest_fifty_count():
    spikes = Spikes(2.0)
    spikes.add([9.0] * 60 + [1.0] * 26)
    assert refused(spikes, 8.0)
    spikes = Spikes(2.0)
    spikes.add([9.0] * 60 + [1.0] * 24)
    assert not refused(spikes, 8.0)


@pytest.mark.parametrize(("count", "found"), [(9, False), (10, True)])
def test_fewer_than_ten_losses_are_too_few_to_tell(count, found):
    spikes = Spikes(2.0)
    spikes.add([1.0] * count)
    assert bool(refused(spikes, 50.0)) == found


def test_without_a_height_nothing_is_a_spike():
    spikes = Spikes(None)
    spikes.add([1.0] * 20)
    assert not refused(spikes, 1e9)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def jump(monkeypatch):
    """Makes the losses of one step higher, and counts the steps that the optimizer takes."""
    plain_losses, plain_step, taken = Coprocessor.losses, AdamW.step, []

    def step(*arguments, **settings):
        taken.append(1)
        return plain_step(*arguments, **settings)

    def at(number, *, before=0):
        taken.clear()

        def losses(coprocessor, *arguments, **settings):
            # Validation is without gradient, and its losses are as they are.
            high = len(taken) + before + 1 == number and coprocessor.training
            return plain_losses(coprocessor, *arguments, **settings) + (5.0 if high else 0.0)

        monkeypatch.setattr(Coprocessor, "losses", losses)
        return taken

    monkeypatch.setattr(AdamW, "step", step)
    return at


def test_a_spike_stops_the_run_before_its_step_and_so_it_does_a_resumed_one(recipe, tmp_path, jump):
    changes = ["train.steps=16", "train.checkpoint_every=6", "train.validate_every=100"]
    folder = tmp_path / "run"
    taken = jump(15)
    told = r"loss of step 15 is .*median of the latest 14, and the last .*step-000014'.*null"
    with pytest.raises(DeliberateError, match=told) as first:
        train(recipe(*changes), folder)
    assert len(taken) == 14
    assert [line["step"] for line in lines(folder)] == list(range(1, 15))

    taken = jump(15, before=14)
    with pytest.raises(DeliberateError) as again:  # its window is that of the metrics
        train(recipe(*changes), folder, resume=True)
    assert str(again.value) == str(first.value)
    assert not taken

    jump(15, before=14)
    train(recipe(*changes, "train.spike=null"), folder, resume=True)
    assert len(lines(folder)) == 16
    assert "spike: null" in (folder / "recipe.yaml").read_text()
