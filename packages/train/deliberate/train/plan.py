"""What a run will take, before anything is loaded: FLOPs, memory, tokens, hours.

    recipe --> Shape --formulas--> Plan --rate, devices--> hours

The formulas and the measurements that back them are in `docs/scaling.md`.
"""

from dataclasses import dataclass
from pathlib import Path

from deliberate.core.ahead_loss import FEWEST_ROWS, LOGITS_AT_ONCE
from deliberate.core.base import EMBEDDED
from deliberate.core.errors import DeliberateError, UnsupportedModelError
from deliberate.core.grouped_attention import CHUNK_SCORES, WORKING_COPIES
from deliberate.train.recipe import Recipe
from deliberate.train.shape import Shape, shape_of
from deliberate.train.sharding import check_sharding

_FLOAT = 4  # bytes
_ADAM = 2  # moments, in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run takes."""

    parameters: dict[str, int]
    """Weights of the base, and of what learns."""

    flops: dict[str, float]
    """FLOPs of one optimizer step, by part."""

    memory: dict[str, int]
    """Bytes on each device at the peak, by part."""

    tokens: int
    """Text tokens in one optimizer step."""

    targets: int
    """Ahead tokens in one optimizer step that the loss is on."""

    steps: int
    """Optimizer steps."""

    devices: int
    """Devices that share each batch."""

    def hours(self, rate: float) -> float:
        """How long the run takes.

        Args:
            rate: FLOPs a second that each device reaches.
        """
        return sum(self.flops.values()) * self.steps / (rate * self.devices) / 3600


DOUBT = 2
"""A plan this many times too large is refused before the run begins."""


def plan(recipe: Recipe, *, devices: int = 1) -> Plan:
    """Work out what a recipe takes.

    Args:
        recipe: What would be trained.
        devices: Devices that share each batch, and the weights where the recipe says so.

    Raises:
        DeliberateError: the base's architecture is not known here, the batch does not divide, or
            weights are to be shared and there is one device.
    """
    check_sharding(recipe, devices)
    if recipe.train.batch % devices:
        raise DeliberateError(
            f"train.batch is {recipe.train.batch} and there are {devices} devices, each of which "
            f"takes as many of its rows: set train.batch to a multiple of {devices}"
        )
    shape = shape_of(recipe)
    rows = recipe.train.batch * recipe.train.accumulate
    return Plan(
        parameters={"base": shape.base, "trained": shape.trained},
        flops={part: float(rows * each) for part, each in _flops_of_row(recipe, shape).items()},
        memory=_memory(recipe, shape, devices),
        tokens=rows * recipe.data.length,
        targets=rows * _anchors(recipe) * (recipe.objective.ahead - recipe.objective.skip),
        steps=recipe.train.steps,
        devices=devices,
    )


def check_memory(found: Plan, limit: int) -> None:
    """See that a plan fits the memory of each device.

    Raises:
        DeliberateError: it does not; names the largest part and what to lower.
    """
    needed = sum(found.memory.values())
    if needed <= limit:
        return
    part = max(found.memory, key=lambda name: found.memory[name])
    lower = _LOWER[part]
    raise DeliberateError(
        f"the run needs {needed / 1e9:.1f} GB on each device and there are {limit / 1e9:.1f}, most "
        f"of it for {part}: {lower}"
    )


def check_fits(recipe: Recipe, limit: int, *, devices: int = 1) -> None:
    """See that a run can fit a device, before any weight is read.

    The base and what learns must fit; the rest of the plan, which errs on the high side for some
    families, must not be more than twice too large. A base whose configuration is not in a folder
    here or in the recipe is not checked, nor one whose layers cannot be counted.

    Args:
        recipe: What would be trained.
        limit: Bytes of memory that each device has.
        devices: Devices that share each batch, and the weights where the recipe says so.

    Raises:
        DeliberateError: they do not; names what to choose.
    """
    if not _is_known(recipe):
        return
    try:
        found = plan(recipe, devices=devices)
    except UnsupportedModelError:  # what the run itself cannot do, loading the base will say
        return
    weights = {name: found.memory[name] for name in _WEIGHTS if name in found.memory}
    needed = sum(weights.values())
    if needed > limit:
        part = max(weights, key=lambda name: weights[name])
        raise DeliberateError(
            f"base and coprocessor need {needed / 1e9:.1f} GB and there are {limit / 1e9:.1f}: "
            f"{_LOWER[part]}"
        )
    if sum(found.memory.values()) > DOUBT * limit:
        check_memory(found, limit)


def _is_known(recipe: Recipe) -> bool:
    """Whether the base's configuration can be had without a network."""
    named = recipe.base.id == EMBEDDED or recipe.base.architecture is not None
    return named or Path(recipe.base.id).is_dir()


_WEIGHTS = ("base", "coprocessor", "optimizer", "gathered weights")

_SHARE = "or share them among more devices (train.shard full)"

_FEWER = f"coprocessor.kind lora of a lower rank, or fewer coprocessor.layers, {_SHARE}"

_LOWER = {
    "base": f"choose a smaller base, or base.dtype bfloat16, {_SHARE}",
    "coprocessor": f"choose {_FEWER}",
    "optimizer": f"choose {_FEWER}",
    "gathered weights": "choose a base with a smaller vocabulary or narrower layers",
    "text keys and values": "lower train.batch (and raise train.accumulate) or data.length",
    "activations": "set train.recompute, or lower train.batch (and raise train.accumulate), "
    "objective.anchors, objective.ahead or coprocessor.latents",
    "logits and scores": "choose a base with a smaller vocabulary",
}


def _anchors(recipe: Recipe) -> int:
    objective = recipe.objective
    if recipe.data.pairs is not None:
        return 1
    room = recipe.data.length - objective.ahead - objective.delay
    return room if objective.place == "every" else min(objective.anchors, room)


def _group_tokens(recipe: Recipe, shape: Shape) -> tuple[int, int]:
    """A row's tokens through the coprocessor and through the base."""
    if not shape.writes_latents:
        return 0, 0
    latents, anchors = recipe.coprocessor.latents, _anchors(recipe)
    fed = latents + recipe.objective.ahead - 1 + min(recipe.objective.delay, 1)
    return anchors * latents if shape.coprocessor_layers else 0, anchors * fed


def _flops_of_row(recipe: Recipe, shape: Shape) -> dict[str, float | int]:
    """FLOPs of one row: two a weight and token forward, two for each gradient."""
    length = recipe.data.length
    soft, fed = _group_tokens(recipe, shape)
    predicted = _anchors(recipe) * recipe.objective.ahead if shape.writes_latents else length
    seen = length / 2 + recipe.coprocessor.latents
    # Two products forward; five in the backward, which computes the scores again.
    scores = 14 * shape.queries * seen * (shape.coprocessor_layers * soft + shape.layers * fed)
    causal = 4 * shape.queries * shape.layers * length * length / 2
    head = (4 if shape.writes_latents else 6) * shape.vocab * shape.hidden * predicted
    return {
        "text": 2 * shape.trunk * length,
        "coprocessor": (6 * shape.trained_trunk + 4 * shape.shared_trunk)
        * (soft + length * bool(shape.text_flops)),
        "base": 4 * shape.trunk * fed,
        "head": head,
        "attention": scores + causal,
    }


def _memory(recipe: Recipe, shape: Shape, devices: int) -> dict[str, int]:
    """Bytes on each of the devices that share a batch."""
    width = 4 if recipe.base.dtype == "float32" else 2
    rows, length = recipe.train.batch // devices, recipe.data.length
    soft, fed = (rows * tokens for tokens in _group_tokens(recipe, shape))
    read = rows * length * (2 * shape.layers * shape.values + 2 * shape.hidden) * width
    predicted = rows * _anchors(recipe) * recipe.objective.ahead
    logits = max(LOGITS_AT_ONCE, FEWEST_ROWS * shape.vocab) * (2 * width + 2 * _FLOAT)
    return {
        **_weights(recipe, shape, width, devices),
        "text keys and values": read,
        "activations": _activations(recipe, shape, soft, fed, rows * length, width)
        + 2 * predicted * shape.hidden * width,
        "logits and scores": logits + WORKING_COPIES * CHUNK_SCORES * _FLOAT,
    }


def _weights(recipe: Recipe, shape: Shape, width: int, devices: int) -> dict[str, int]:
    """What a device holds of weights, gradients and moments, and gathers of them."""
    base, learning = shape.base * width, _FLOAT * (2 * shape.trained + shape.frozen)
    moments = _FLOAT * _ADAM * shape.trained
    if recipe.train.shard == "none":
        cast = shape.trained_trunk + (shape.shared_trunk if shape.frozen else 0)
        casts = (width != _FLOAT) * width * cast  # autocast keeps its copies
        return {"base": base, "coprocessor": learning + casts, "optimizer": moments}
    outside = width * (shape.base - shape.trunk)
    outside += 2 * _FLOAT * (shape.trained - shape.trained_trunk)
    learns = shape.trained_trunk // (shape.coprocessor_layers or shape.layers)
    layer = max(shape.trunk // shape.layers, learns)
    # A backward has a layer's weights and, as they arrive, the next one's, and its gradients both
    # as they were computed and in fp32 to be scattered.
    return {
        "base": -(-base // devices),
        "coprocessor": -(-learning // devices),
        "optimizer": -(-moments // devices),
        "gathered weights": outside + 2 * width * layer + (width + _FLOAT) * learns,
    }


def _activations(recipe: Recipe, shape: Shape, soft: int, fed: int, text: int, width: int) -> int:
    """What the backward needs of the group passes.

    A frozen layer keeps its gated feed-forward's three vectors, queries, keys, values and output
    of attention, and three of the residual stream in fp32; one that learns also the inputs of
    its linear layers.
    """
    frozen = width * (3 * shape.inner + 2 * shape.queries + 2 * shape.values)
    frozen += _FLOAT * 3 * shape.hidden
    learning = width * (4 * shape.inner + 3 * shape.queries + 2 * shape.values)
    learning += _FLOAT * 7 * shape.hidden
    # One layer's backward holds three gradients of its feed-forward's width beside what was kept.
    undone = width * 3 * shape.inner * max(soft, fed)
    if recipe.train.recompute:
        kept = _FLOAT * shape.hidden
        layers = kept * (soft * shape.coprocessor_layers + fed * shape.layers)
        return layers + max(soft * learning, fed * frozen) + undone
    kept = learning * soft * shape.coprocessor_layers + frozen * fed * shape.layers
    return kept + undone + (learning * text * shape.layers if shape.text_flops else 0)
