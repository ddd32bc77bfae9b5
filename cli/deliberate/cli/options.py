"""Options that several commands share, each said once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deliberate.cli.devices import check_device

EMBEDDED = "nano"
"""Name of the base and the coprocessor that ship inside the package."""


class Dtype(StrEnum):
    """In which numbers a base's weights, and so its caches, are held."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


BaseName = Annotated[
    str,
    typer.Option("--base", metavar="NAME", help="The frozen model: `nano`, a folder or a Hub id."),
]

ImpliedBaseName = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="NAME",
        help="The frozen model: `nano`, a folder or a Hub id.",
        show_default="the one that the cache or the coprocessor names, else nano",
    ),
]

CoprocessorName = Annotated[
    str,
    typer.Option(
        "--coprocessor", metavar="NAME", help="Writes the latents: `nano`, a folder or a Hub id."
    ),
]

ImpliedCoprocessorName = Annotated[
    str | None,
    typer.Option(
        "--coprocessor",
        metavar="NAME",
        help="Writes the latents: `nano`, a folder or a Hub id.",
        show_default="the one that the cache names, else nano",
    ),
]

Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        callback=check_device,
        help="`cpu`, `cuda`, `cuda:1`, …; `auto` is cuda where there is one.",
    ),
]

DtypeName = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype", help="Numbers to compute in.", show_default="float32; bfloat16 on cuda"
    ),
]

BatchSize = Annotated[
    int, typer.Option("--batch", min=1, metavar="N", help="Texts computed at once.")
]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="Where to write.", show_default="see above"
    ),
]

Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.")]

Force = Annotated[bool, typer.Option("--force", help="Make everything again, over what exists.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
