"""Being asked to stop: between batches, and a second time."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from deliberate.core.coprocessor import Coprocessor
from deliberate.train import Interrupted, train
from deliberate.train.checkpoint import found
from deliberate.train.signals import stop_signals

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("step", [1, 5])
def test_a_step_that_was_cut_short_is_done_again_to_the_last_bit(
    recipe, tmp_path, monkeypatch, step
):
    chosen = recipe("train.accumulate=2")
    train(chosen, tmp_path / "whole")
    plain, calls = Coprocessor.losses, []

    def stop_within_a_step(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2 * step - 1:
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments, **settings)

    monkeypatch.setattr(Coprocessor, "losses", stop_within_a_step)
    with pytest.raises(Interrupted, match=f"after step {step - 1} of 8"):
        train(chosen, tmp_path / "parts")
    assert len(calls) == 2 * step - 1
    assert found(tmp_path / "parts/checkpoints")[-1].name == f"step-{step - 1:06d}"
    monkeypatch.undo()
    train(chosen, tmp_path / "parts", resume=True)

    whole = load_file(tmp_path / "whole/model.safetensors")
    parts = load_file(tmp_path / "parts/model.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("number", BOTH)
def test_a_second_signal_goes_to_the_handler_before(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("before"))
    try:
        with stop_signals() as stop:
            signal.raise_signal(number)
            assert stop.is_set()
            assert not seen
            signal.raise_signal(number)
            assert seen == ["before"]
    finally:
        signal.signal(number, before)


def test_a_second_signal_of_the_other_kind_does_so_too():
    # Python itself leaves Ctrl-C ignored where it was started in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_signals():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handlers_come_back():
    before = [signal.getsignal(number) for number in BOTH]
    with stop_signals():
        assert [signal.getsignal(number) for number in BOTH] != before
    assert [signal.getsignal(number) for number in BOTH] == before
