"""Base and coprocessor in shares, one a process, for what fits no single device.

    share --gather--> weights of one layer --forward, backward--> gradients --scatter--> share

torch's `fully_shard` does it, for each decoder layer; what is outside the layers (embedding, head,
soft tokens) is one unit more, whole from a step's forward to the end of its backward. Gradients are
scattered after each backward, so that accumulation holds shares of them too.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel

from deliberate.core.base import Base
from deliberate.core.cache import cache_keyword, key_values, replace_key_values
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.structure import decoder_layers
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe

T = TypeVar("T")


def check_sharding(recipe: Recipe, count: int) -> None:
    """See that there are processes to share the weights.

    Raises:
        DeliberateError: there is one alone.
    """
    if recipe.train.shard == "full" and count == 1:
        raise DeliberateError(
            "train.shard is 'full' and there is one process, which would hold everything: start "
            "several (torchrun --nproc-per-node N, for a dry run --gpus N), or set train.shard to "
            "none"
        )


class Sharded(nn.Module):
    """Base and coprocessor; work that needs their weights is done by calling this with it."""

    def __init__(self, base: Base, coprocessor: Coprocessor) -> None:
        """Hold both, so that what is outside their layers is one unit."""
        super().__init__()
        self.model, self.coprocessor = base.model, coprocessor

    def forward(self, work: Callable[[], Any]) -> Any:
        """Do the work while what is outside the layers is whole, until a backward has passed."""
        return work()

    @torch.no_grad()
    def measuring(self, work: Callable[[], T]) -> T:
        """Do work that no backward follows."""
        done = self(work)
        cast(FSDPModule, self).reshard()
        return done


def shard(base: Base, coprocessor: Coprocessor, recipe: Recipe, processes: Processes) -> Sharded:
    """Leave each process its share of every weight, on its device.

    Args:
        base: Anywhere; its layers come to the device one by one.
        coprocessor: Likewise. Gets the same parameters' shares in their place.
        recipe: Says in which numbers layers are gathered.
        processes: Who shares.
    """
    together = Sharded(base, coprocessor)
    device = processes.device
    names = {id(weight): name for name, weight in base.model.named_parameters()}
    twice = {
        name: (names[id(weight)], weight)
        for name, weight in coprocessor.named_parameters()
        if id(weight) in names  # low-rank weights, which layers of the base hold too
    }
    scalars = {weight for weight in together.parameters() if not weight.ndim}
    mesh = init_device_mesh(device.type, (processes.count,))
    # Autocast would keep casts of whole layers for the backward: gather them as it computes.
    policy = MixedPrecisionPolicy(
        param_dtype=None if recipe.base.dtype == "float32" else torch.bfloat16,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for trunk in _decoders(together):
        for layer in decoder_layers(trunk):
            fully_shard(layer, mesh=mesh, ignored_params=scalars, mp_policy=policy)
        trunk.register_forward_hook(_tie_cache, with_kwargs=True)
    outside = scalars | {weight for _, weight in twice.values()}
    fully_shard(together, mesh=mesh, ignored_params=outside)
    for scalar in scalars:  # which has no shares
        scalar.data = scalar.data.to(device)
        if scalar.requires_grad:
            scalar.register_hook(partial(_mean, count=processes.count))
    shares = dict(base.model.named_parameters())
    for name, (held, _) in twice.items():
        path, _, last = name.rpartition(".")
        setattr(coprocessor.get_submodule(path), last, shares[held])
    return together


def clip(weights: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients so that their norm over all processes is at most `limit`.

    Returns:
        The norm before.
    """
    learning = [weight for weight in weights if weight.grad is not None]
    grads = [cast(Tensor, weight.grad) for weight in learning]
    shares = [grad for grad in grads if isinstance(grad, DTensor)]
    wholes = [grad for grad in grads if not isinstance(grad, DTensor)]
    norms = [_whole(get_total_norm(each)) for each in (shares, wholes) if each]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    clip_grads_with_norm_(learning, limit, norm)
    return norm


def share_of(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its share, or all of one that has none."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(share: Tensor, weight: Tensor) -> Tensor:
    """Undo `share_of`, for a tensor of a weight's shape."""
    if not isinstance(weight, DTensor):
        return share
    return DTensor.from_local(
        share.to(weight.device),
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )


def gathered(weights: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole weights in the host's memory, one after the other; all processes take part.

    Args:
        weights: Shares, or whole ones.
        keep: Whether this process gets them.
    """
    found = {}
    for name, weight in weights.items():
        whole = _whole(weight.detach())
        if keep:
            found[name] = whole.cpu()
    return found


def _decoders(together: Sharded) -> list[PreTrainedModel]:
    """Models without head among the modules."""
    models = [each for each in together.modules() if isinstance(each, PreTrainedModel)]
    return [model for model in models if model.base_model is model]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _mean(grad: Tensor, *, count: int) -> Tensor:
    """A gradient's mean over processes."""
    total = grad.clone()
    distributed.all_reduce(total)
    return total / count


def _tie_cache(decoder: PreTrainedModel, _: Any, kwargs: dict[str, Any], output: Any) -> None:
    """Let the backward of a decoder that fills a cache begin at its output.

    Gradients that reach a layer by its keys and values alone would find its weights gone: a layer
    gathers them when a gradient reaches its output.
    """
    cache, hidden = kwargs.get(cache_keyword(type(decoder))), output.last_hidden_state
    if cache is None or not hidden.requires_grad:
        return
    keys, values = key_values(cache)
    tied = _Tie.apply(hidden, *keys, *values)
    replace_key_values(cache, tied[: len(keys)], tied[len(keys) :])


class _Tie(torch.autograd.Function):
    """Hands tensors on, with no gradient for the one they came with: zeros, and not none."""

    @staticmethod
    def forward(ctx, hidden, *others):  # noqa: ANN001, ANN002, ANN205
        ctx.zeros = partial(torch.zeros, hidden.shape, dtype=hidden.dtype, device=hidden.device)
        return tuple(other.view_as(other) for other in others)

    @staticmethod
    def backward(ctx, *grad_outputs):  # noqa: ANN001, ANN002, ANN205
        return ctx.zeros(), *grad_outputs
