"""What a run begins from: a fresh coprocessor, or a trained one.

    train.init --its settings--> recipe        train.init --its weights--> coprocessor

Source: arXiv:2412.17747, section A.2.
"""

from typing import Any, cast

import torch

from deliberate.core.adapted import AdaptedCoprocessor
from deliberate.core.base import Base
from deliberate.core.checkpoint import (
    find_coprocessor,
    load_coprocessor,
    read_config,
    settings_of,
)
from deliberate.core.coprocessor import STARTS, Coprocessor, CoprocessorConfig, coprocessor_config
from deliberate.core.kinds import build
from deliberate.core.trunk_coprocessor import TrunkCoprocessor
from deliberate.train.sections import TrainSection


def settled(init: str | None, stated: dict[str, Any]) -> CoprocessorConfig:
    """A recipe's settings of the coprocessor: as stated, or those of the one it begins from.

    Args:
        init: A trained coprocessor's folder or Hub id.
        stated: What the recipe says of the coprocessor.

    Raises:
        ValueError: the recipe states what cannot be, or what the trained one is not.
        DeliberateError: there is no such coprocessor.
    """
    config = coprocessor_config(**stated)
    if init is None:
        return config
    folder = find_coprocessor(init)
    trained = settings_of(read_config(folder), folder)
    names = {*STARTS.get(stated.get("start", ""), ()), *stated} - {"start"}
    odd = sorted(name for name in names if getattr(config, name) != getattr(trained, name))
    if odd:
        told = ", ".join(f"coprocessor.{name} {getattr(trained, name)!r}" for name in odd)
        raise ValueError(
            f"train.init is {init!r}, which has {told}, and the recipe says otherwise: leave out "
            "the coprocessor's settings, they are those of train.init"
        )
    return trained


def begin(config: CoprocessorConfig, settings: TrainSection, base: Base) -> tuple[Coprocessor, str]:
    """The coprocessor that learns, in fp32, and the fingerprint of what it begins from, if any.

    Args:
        config: Its settings.
        settings: How it is trained.
        base: The base that it serves.

    Raises:
        CheckpointError: what it begins from is damaged, or serves another base.
        DeliberateError: there is no such coprocessor.
    """
    torch.manual_seed(settings.seed)
    if settings.init is None:
        return build(config, base).float(), ""
    trained = load_coprocessor(settings.init, base=base, dtype=torch.float32)
    coprocessor = trained.coprocessor.requires_grad_()
    if settings.adapt_rank is not None:
        coprocessor = AdaptedCoprocessor(
            cast(TrunkCoprocessor, coprocessor), rank=settings.adapt_rank
        )
    return coprocessor, trained.fingerprint
