"""Bases and coprocessors as the options name them."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from deliberate.cli.devices import AUTO
from deliberate.cli.options import Dtype
from deliberate.cli.terminal import PATIENCE

if TYPE_CHECKING:
    import torch

    from deliberate.core.base import Base
    from deliberate.core.checkpoint import Trained


def chosen_device(name: str, *, hint: str = "--device") -> "torch.device":
    """The device of that name; `auto` is cuda where there is one, each process's own of several.

    Raises:
        typer.BadParameter: there is no such device here.
    """
    import torch

    if name == AUTO:
        own = os.environ.get("LOCAL_RANK", "")
        cuda = f"cuda:{own}" if own.isdecimal() else "cuda"
        name = cuda if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the second without CUDA
        raise typer.BadParameter(
            f"no device {name!r} here: use `cpu`, or `auto`", param_hint=hint
        ) from error
    return device


def chosen_dtype(dtype: Dtype | None, device: "torch.device") -> "torch.dtype":
    """The dtype that was asked for, or the one that suits the device."""
    import torch

    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {
        Dtype.FLOAT32: torch.float32,
        Dtype.BFLOAT16: torch.bfloat16,
        Dtype.FLOAT16: torch.float16,
    }[dtype]


def load_base(
    name: str,
    *,
    dtype: "torch.dtype",
    device: "torch.device",
    revision: str = "",
    named_by: str = "",
) -> "Base":
    """Load a base.

    Args:
        name: `nano`, a folder or a Hub id.
        dtype: In which its weights are held.
        device: Where they are held.
        revision: Commit on the Hub, where one is noted.
        named_by: The file that names this base, where the user did not.

    Raises:
        DeliberateError: it cannot be loaded; says who named it.
    """
    from deliberate.core.base import load_base as load

    with patient_bars(), _said_by(named_by):
        return load(name, revision=revision or None, dtype=dtype, device=device)


def base_fingerprint(name: str, *, revision: str = "", named_by: str = "") -> str:
    """What identifies a base, without loading it; arguments and errors are those of `load_base`."""
    from deliberate.core.base import base_fingerprint as of

    with patient_bars(), _said_by(named_by):
        return of(name, revision=revision or None)


@contextmanager
def _said_by(named_by: str) -> Generator[None]:
    """Say in a failure which file names the base, where the user did not.

    Raises:
        DeliberateError: the block raised it.
    """
    from deliberate.core.errors import DeliberateError

    try:
        yield
    except DeliberateError as error:
        if not named_by:
            raise
        raise DeliberateError(
            f"{error} ({named_by!r} names this base; say with --base where it is now)"
        ) from error


def load_coprocessor(name: str, base: "Base") -> "Trained":
    """Load a coprocessor for its base."""
    from deliberate.core.checkpoint import load_coprocessor as load

    with patient_bars():
        return load(name, base=base)


@contextmanager
def patient_bars() -> Generator[None]:
    """While the block runs, transformers shows its bars only when they last, datasets nothing.

    What datasets has to say of a file that it cannot read is in the error that follows.
    """
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity
    from transformers.utils import logging

    def patient(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return factory(*args, **{"delay": PATIENCE, "leave": False, **kwargs})

    hook = getattr(logging, "set_tqdm_hook", None)  # transformers 5.0 has none: no bars at all
    before = hook(patient) if hook else logging.disable_progress_bar()
    said = get_verbosity()
    set_verbosity(CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        set_verbosity(said)
        enable_progress_bars()
        if hook:
            hook(before)
        else:
            logging.enable_progress_bar()
