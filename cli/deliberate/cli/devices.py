"""Names of devices, as far as they can be told from others without torch."""

import re

import typer

DEVICES = (
    "cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia",
    "xla", "lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone",
)  # fmt: skip
"""Types that torch has a name for, on whatever machine."""

AUTO = "auto"
"""cuda where there is one."""

EXTENSIONS = "torch.backends"
"""Entry points of packages that bring other types of devices."""


def check_device(name: str) -> str:
    """A device's name, if any machine may have such a device.

    Raises:
        typer.BadParameter: none has.
    """
    kind, colon, number = name.partition(":")
    if name == AUTO or (kind in DEVICES and (not colon or re.fullmatch("[0-9]+", number))):
        return name
    from importlib.metadata import entry_points  # late, for it is seldom asked

    if not entry_points(group=EXTENSIONS):
        raise typer.BadParameter(
            f"no device {name!r} here: use `cpu`, or `auto`", param_hint="--device"
        )
    return name
