"""AdamW or Muon, two rates, a warm-up and a cosine; all a function of the step."""

import math

from torch import Tensor
from torch.optim import AdamW

from deliberate.core.coprocessor import Coprocessor
from deliberate.train.muon import Muon
from deliberate.train.recipe import Recipe
from deliberate.train.sharding import shared_like


def make_optimizer(coprocessor: Coprocessor, recipe: Recipe) -> AdamW:
    """Matrices decay; vectors do not, and soft tokens neither, at a rate of their own.

    With `train.optimizer: muon` the matrices' steps are orthogonal.
    """
    settings = recipe.train
    soft = coprocessor.soft_parameters()
    apart = {id(parameter) for parameter in soft}
    network = [p for p in coprocessor.parameters() if id(p) not in apart]
    muon = settings.optimizer == "muon"
    orthogonal = [parameter for parameter in network if muon and parameter.ndim == 2]
    matrices = [parameter for parameter in network if parameter.ndim > (2 if muon else 1)]
    vectors = [parameter for parameter in network if parameter.ndim < 2]
    decay, peak = settings.weight_decay, settings.learning_rate
    soft_peak = peak if settings.soft_learning_rate is None else settings.soft_learning_rate
    groups = [
        {"params": orthogonal, "peak": peak, "weight_decay": decay, "orthogonal": True},
        {"params": matrices, "peak": peak, "weight_decay": decay},
        {"params": vectors, "peak": peak, "weight_decay": 0.0},
        {"params": soft, "peak": soft_peak, "weight_decay": 0.0},
    ]
    return (Muon if muon else AdamW)(
        [group for group in groups if group["params"]],
        lr=peak,
        betas=(0.9, settings.beta2),
    )


def set_rate(optimizer: AdamW, recipe: Recipe, step: int) -> float:
    """Set each group's rate for `step`; returns the share of the peak."""
    settings = recipe.train
    if step < settings.warmup:
        share = (step + 1) / settings.warmup
    else:
        span = max(1, settings.steps - settings.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / span))
        share = settings.final_rate + (1 - settings.final_rate) * cosine
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return share


def optimizer_tensors(optimizer: AdamW) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, for a checkpoint without pickle."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`; of what is in shares these are this process's."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        held = shared_like(value, weights[int(index)]) if value.ndim else value
        state.setdefault(int(index), {})[key] = held
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
