"""Claim: one pass over many anchors is a training step several times as fast as a loop.

A step is the loss of all ahead tokens and every gradient of the coprocessor. The peers reach
the same loss and gradients through transformers' own path (`sdpa` and `DynamicCache`):

    reread  reads the text again for each anchor, then coprocessor, base and backward
    slice   reads the text once; each anchor's passes go on from slices of its keys and values
    dense   the paper's own form: text and all groups as one sequence under one dense mask

Base and coprocessor hold weights of one dtype for all of them, by default the one in which this
machine multiplies faster. Beside bf16 weights a trainer keeps fp32 masters; casting them for each
anchor would only slow the loops. The start is `paper`, whose
latents see one another, so that a peer writes an anchor's latents in one forward.

Re-reading costs a few times the arithmetic of the one pass; the rest of the ratio is what a loop
loses on small products and on calls. So a CPU with slow products bounds the ratio: the line
"products alone" is what it would be if a step were nothing but the one pass's dense products.

    python benchmarks/one_pass.py --repeats 5
"""

import argparse
from dataclasses import dataclass

import torch
from random_base import chosen_dtype, random_base
from ratio import Ratio, in_turn, report
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from deliberate.core import Base, Coprocessor, build, coprocessor_config
from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.cache import Reading
from deliberate.core.groups import ahead_tokens, sample_anchors

TARGETS = {"reread": 8.0, "slice": 4.0}
LOSS_TOLERANCE = 2e-3
"""Relative; bf16 keeps 8 bits."""
GRADIENT_TOLERANCE = 0.05
"""Of the gradients' difference to their size, over all weights together."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one training step works on."""

    base: Base
    coprocessor: Coprocessor
    token_ids: Tensor
    """One text: (1, token)."""
    anchors: Tensor
    """(1, anchors)."""
    ahead: int

    @property
    def latents(self) -> int:
        """Latents after each anchor."""
        return self.coprocessor.config.latents


def one_pass(step: Step) -> float:
    """All groups in one forward of the coprocessor and one of the base."""
    reading = step.base.read(step.token_ids)
    latents = step.coprocessor(reading, step.anchors)
    losses = ahead_losses(
        step.base, reading, step.anchors, latents, ahead=step.ahead, positions="after"
    )
    loss = losses.mean()
    loss.backward()
    return loss.item()


def reread(step: Step) -> float:
    """An anchor at a time, each with its own reading of the text."""
    return sum(
        group_loss(step, step.base.read(step.token_ids[:, : anchor + 1]), anchor)
        for anchor in step.anchors[0].tolist()
    )


def slice_prefill(step: Step) -> float:
    """An anchor at a time, each from a slice of one reading of the text."""
    reading = step.base.read(step.token_ids)
    return sum(group_loss(step, reading, anchor) for anchor in step.anchors[0].tolist())


def group_loss(step: Step, reading: Reading, anchor: int) -> float:
    """One anchor's share of the loss, its gradients added to the coprocessor's."""
    base, begin = step.base, anchor + 1
    after = torch.arange(begin, begin + step.latents + step.ahead - 1)[None]
    latents = step.coprocessor.trunk(
        inputs_embeds=step.coprocessor.soft_tokens[None],
        position_ids=after[:, : step.latents],
        past_key_values=sliced(reading, begin),
        use_cache=True,
    ).last_hidden_state
    targets = step.token_ids[0, begin : begin + step.ahead]
    hidden = base.trunk(
        inputs_embeds=torch.cat([latents, base.embed(targets[None, :-1])], 1),
        position_ids=after,
        past_key_values=sliced(reading, begin),
        use_cache=True,
    ).last_hidden_state
    logits = base.model.lm_head(hidden[0, step.latents - 1 :])
    loss = cross_entropy(logits.float(), targets) / step.anchors.shape[1]
    loss.backward()
    return loss.item()


def sliced(reading: Reading, length: int) -> DynamicCache:
    """A cache over the text's first tokens that shares the reading's memory."""
    cache = DynamicCache()
    for keys, values in zip(reading.keys, reading.values, strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :length], values[:, :, :length]
        cache.layers.append(layer)
    return cache


def dense(step: Step) -> float:
    """The paper's form: the text and every group's tokens as one sequence."""
    base, count, length = step.base, step.anchors.shape[1], step.token_ids.shape[1]
    reading = base.read(step.token_ids)
    size = step.latents + step.ahead - 1
    at = step.anchors[0, :, None] + 1 + torch.arange(size)
    latents = step.coprocessor.trunk(
        inputs_embeds=step.coprocessor.soft_tokens.repeat(count, 1)[None],
        position_ids=at[:, : step.latents].reshape(1, -1),
        attention_mask=dense_mask(step, step.latents)[:, :, length:],
        past_key_values=sliced(reading, length),
        use_cache=True,
    ).last_hidden_state
    targets = ahead_tokens(step.token_ids, step.anchors, ahead=step.ahead)[0]
    groups = torch.cat([latents.view(count, step.latents, -1), base.embed(targets[:, :-1])], 1)
    hidden = base.trunk(
        inputs_embeds=torch.cat([reading.embeds, groups.flatten(0, 1)[None]], 1),
        position_ids=torch.cat([torch.arange(length), at.flatten()])[None],
        attention_mask=dense_mask(step, size),
        use_cache=False,
    ).last_hidden_state[0, length:]
    predicting = hidden.view(count, size, -1)[:, step.latents - 1 :].flatten(0, 1)
    loss = cross_entropy(base.model.lm_head(predicting).float(), targets.flatten())
    loss.backward()
    return loss.item()


def dense_mask(step: Step, size: int) -> Tensor:
    """Additive mask (1, 1, sequence, sequence) of the text and groups of `size` tokens."""
    length, count = step.token_ids.shape[1], step.anchors.shape[1]
    total = length + count * size
    index = torch.arange(total)
    group = (index - length) // size
    text_seen = torch.where(index < length, index, step.anchors[0][group.clamp(min=0)])
    same = (group[:, None] == group) & (index >= length) & (index[:, None] >= index)
    seen = same | ((index < length) & (index <= text_seen[:, None]))
    dtype = step.base.model.dtype
    mask = torch.zeros(total, total, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    return mask[None, None]


WAYS = {"one pass": one_pass, "reread": reread, "slice": slice_prefill, "dense": dense}


def check_same(step: Step) -> None:
    """Stop unless every way gives the same loss and gradients.

    Raises:
        SystemExit: one of them differs.
    """
    results = {}
    for name, way in WAYS.items():
        step.coprocessor.zero_grad()
        loss = way(step)
        parts = [parameter.grad.flatten().float() for parameter in step.coprocessor.parameters()]
        results[name] = loss, torch.cat(parts)
    wanted_loss, wanted = results.pop("one pass")
    for name, (loss, gradient) in results.items():
        off = abs(loss - wanted_loss) / wanted_loss
        bent = float((gradient - wanted).norm() / wanted.norm())
        if off > LOSS_TOLERANCE or bent > GRADIENT_TOLERANCE:
            raise SystemExit(f"{name} differs: its loss by {off:.1e}, its gradients by {bent:.1e}")
        print(f"{name:>8}: loss {loss:.5f} ({off:.0e} off), gradients {bent:.0e} off")


def product_seconds(step: Step) -> float:
    """Time of the dense products of one pass alone, at the rate this machine reaches."""
    trunk, count = step.base.trunk, step.anchors.shape[1]
    read, written = step.token_ids.shape[1], count * step.latents
    fed = count * (step.latents + step.ahead - 1)
    # A forward is one product a weight, a gradient one more: of the input, and of the weight.
    runs = {read: 1, written: 3, fed: 2}
    total = 0.0
    for rows, times in runs.items():
        for module in trunk.modules():
            if isinstance(module, torch.nn.Linear):
                fed_rows = torch.randn(rows, module.in_features, dtype=step.base.model.dtype)
                one = {"product": lambda m=module, x=fed_rows: torch.mm(x, m.weight.t())}
                total += times * in_turn(one, repeats=3)["product"]
    return total


def main() -> None:
    """Check that the ways agree, time them in turn, print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of the text")
    parser.add_argument("--anchors", type=int, default=32)
    parser.add_argument("--latents", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    options = parser.parse_args()
    dtype = chosen_dtype(options.dtype)

    base = random_base(
        hidden=options.hidden,
        layers=options.layers,
        vocabulary=options.vocabulary,
        positions=options.tokens + options.latents + options.ahead,
        dtype=dtype,
    )
    coprocessor = build(coprocessor_config(start="paper", latents=options.latents), base)
    generator = torch.Generator().manual_seed(1)
    step = Step(
        base,
        coprocessor,
        torch.randint(options.vocabulary, (1, options.tokens), generator=generator),
        sample_anchors(
            1,
            anchors=options.anchors,
            last=options.tokens - 1 - options.ahead,
            generator=generator,
        ),
        options.ahead,
    )
    check_same(step)
    coprocessor.zero_grad()
    runs = {name: lambda way=way: way(step) for name, way in WAYS.items()}
    seconds = in_turn(runs, repeats=options.repeats)
    ours = seconds["one pass"]
    print(f"\n{dtype}\n{'':>8}  {'ms a step':>9}  {'x one pass':>10}  target")
    for name, each in seconds.items():
        target = f">= {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:>8}  {each * 1e3:9.1f}  {each / ours:10.2f}  {target}")
    floor = product_seconds(step)
    print(
        f"products alone: {floor * 1e3:.1f} ms a step, so against reread at most "
        f"{seconds['reread'] / floor:.1f} and against slice {seconds['slice'] / floor:.1f}"
    )
    report(
        "one_pass",
        {
            name: Ratio(value=seconds[name] / ours, target=target, at_least=True)
            for name, target in TARGETS.items()
        },
    )


if __name__ == "__main__":
    main()
