"""How groups go through a decoder: choices of speed and memory that change no result.

recompute: keep each layer's input --> backward: layer again, its gradients, next layer
compile:   each layer as one compiled graph on either side of its attention
attention: which form computes it
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from deliberate.core.errors import DeliberateError
from deliberate.core.structure import decoder_layers

Attention = Literal["parts", "flex"]
"""`parts`: products of our own in two parts, on any device. `flex`: torch's flex_attention under
a block mask, for CUDA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How groups go through a decoder."""

    recompute: bool = False
    """Whether the backward runs layers again rather than the forward keep their activations."""

    compile: bool = False
    """Whether layers are compiled; the first steps then take minutes rather than seconds."""

    attention: Attention = "parts"
    """Which form of grouped attention computes."""


def check_execution(execution: Execution, device: torch.device) -> None:
    """See that groups can go through a decoder in this way here.

    Raises:
        DeliberateError: they cannot; names the setting.
    """
    if execution.attention == "flex" and device.type != "cuda":
        raise DeliberateError(
            f"train.attention is 'flex' and the device {str(device)!r}: flex_attention has a "
            "backward on CUDA alone, so set train.attention to parts"
        )
    compiler = os.environ.get("CXX", "g++")
    if execution.compile and shutil.which(compiler) is None:
        raise DeliberateError(
            f"train.compile needs a C++ compiler and there is no {compiler!r}: install one, name "
            "it in CXX, or set train.compile to false"
        )


@contextmanager
def running_as(
    execution: Execution, trunk: PreTrainedModel, again: Callable[[], AbstractContextManager[None]]
) -> Generator[None]:
    """Let a decoder's layers run as `execution` says within this block.

    transformers' own switch for recomputation works in train mode alone, where dropout is on as
    well and caches are dropped with no more than a warning.

    Args:
        execution: How they run; its form of attention is not set here.
        trunk: A decoder; its layers are as they were when the block ends.
        again: Entered around a layer's second run, which comes when the block has ended.

    Raises:
        UnsupportedModelError: the decoder has no single list of layers.
    """
    if not (execution.recompute or execution.compile):
        yield
        return
    layers = decoder_layers(trunk)
    for layer in layers:
        forward = layer.forward
        if execution.compile:
            forward = torch.compile(forward)  # what is compiled is kept with the function's code
        if execution.recompute:
            forward = partial(_recomputed, forward, again)
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _recomputed(
    forward: Callable[..., Any],
    again: Callable[[], AbstractContextManager[None]],
    *args: Any,
    **kwargs: Any,
) -> Any:
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing is drawn: there is no dropout
        context_fn=lambda: (nullcontext(), again()),
        **kwargs,
    )
