"""Running layers again in the backward changes memory and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.errors import DeliberateError
from deliberate.core.execution import Execution, check_execution
from deliberate.core.structure import decoder_layers

AHEAD = 4


def losses(base, coprocessor, execution):
    token_ids = torch.randint(2, 67, (2, 20), generator=torch.Generator().manual_seed(3))
    anchors = torch.tensor([[0, 3, 8, 15], [1, 2, 9, 14]])
    reading = base.read(token_ids)
    coprocessor.execution = execution
    return ahead_losses(
        base,
        reading,
        anchors,
        coprocessor(reading, anchors),
        ahead=AHEAD,
        positions=coprocessor.config.positions,
        execution=execution,
    )


def gradients(found, coprocessor):
    coprocessor.zero_grad()
    found.mean().backward()
    return {name: parameter.grad.clone() for name, parameter in coprocessor.named_parameters()}


def test_recomputed_is_kept_to_the_last_bit(base, start, make):
    coprocessor = make(base, start)
    kept = losses(base, coprocessor, Execution())
    wanted = gradients(kept, coprocessor)
    again = losses(base, coprocessor, Execution(recompute=True))
    assert torch.equal(again, kept)
    for name, gradient in gradients(again, coprocessor).items():
        assert torch.equal(gradient, wanted[name]), name


def test_recomputing_keeps_less_between_forward_and_backward(llama, make, storages):
    coprocessor = make(llama, "warm")

    def kept(recompute):
        with storages() as followed:
            found = losses(llama, coprocessor, Execution(recompute=recompute))
            alive = sum(followed.alive.values())
        assert found.requires_grad
        return alive

    assert kept(recompute=True) < kept(recompute=False) / 2


def test_the_layers_are_as_they_were_also_after_a_failure(base, start, make):
    coprocessor = make(base, start)
    losses(base, coprocessor, Execution(recompute=True)).mean().backward()
    for trunk in (base.trunk, coprocessor.trunk):
        assert not [layer for layer in decoder_layers(trunk) if "forward" in vars(layer)]
    reading = base.read(torch.zeros(2, 20, dtype=torch.long))
    broken = type(reading)(token_ids=reading.token_ids, keys=[], values=[], embeds=reading.embeds)
    with pytest.raises(IndexError):
        coprocessor(broken, torch.tensor([[3, 8]] * 2))
    assert not [layer for layer in decoder_layers(coprocessor.trunk) if "forward" in vars(layer)]


@pytest.mark.parametrize(
    ("execution", "told"),
    [
        (Execution(attention="flex"), "train.attention is 'flex' and the device 'cpu'"),
        (Execution(compile=True), "there is no 'no-such-compiler'"),
    ],
)
def test_what_cannot_run_here_is_refused_by_name(execution, told, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeliberateError, match=told):
        check_execution(execution, torch.device("cpu"))


COMPILED = """
import sys, torch
sys.path[:0] = [{tests!r}, {here!r}]
from conftest import tiny_base, tiny_coprocessor
from test_execution import gradients, losses
from deliberate.core.execution import Execution

base = tiny_base("gemma2")
coprocessor = tiny_coprocessor(base, "paper")
plain = losses(base, coprocessor, Execution())
wanted = gradients(plain, coprocessor)
for execution in (Execution(compile=True), Execution(compile=True, recompute=True)):
    found = losses(base, coprocessor, execution)
    torch.testing.assert_close(found, plain, atol=2e-5, rtol=0)
    for name, gradient in gradients(found, coprocessor).items():
        error = (gradient - wanted[name]).abs().max() / wanted[name].abs().max()
        assert error < 2e-4, (name, error)
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert graphs > 0
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_is_plain_in_loss_and_every_gradient():
    """In a process of its own: checked shapes and compiled layers do not go together."""
    here = Path(__file__).parent
    script = COMPILED.format(tests=str(here.parent), here=str(here))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
