"""Running a decoder's layers again in the backward, so that their activations need not be kept.

    forward: keep each layer's input --> backward: layer again, its gradients, next layer

transformers' own switch works in train mode alone, where dropout is on as well and caches are
dropped with no more than a warning.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from deliberate.core.base import decoder_layers


@contextmanager
def recomputed(
    trunk: PreTrainedModel, again: Callable[[], AbstractContextManager[None]]
) -> Generator[None]:
    """Keep no activation of what the trunk's layers compute in this block but their inputs.

    Args:
        trunk: A decoder; its layers are as they were when the block ends.
        again: Entered around a layer's second run, which comes when the block has ended.

    Raises:
        UnsupportedModelError: the decoder has no single list of layers.
    """

    def kept_small(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn: there is no dropout
            context_fn=lambda: (nullcontext(), again()),
            **kwargs,
        )

    layers = decoder_layers(trunk)
    for layer in layers:
        layer.forward = partial(kept_small, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
