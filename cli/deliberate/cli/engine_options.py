"""Options of `deliberate serve` that say who decodes answers."""

from enum import StrEnum
from typing import Annotated

import typer


class EngineKind(StrEnum):
    """Who decodes answers."""

    OWN = "own"
    VLLM = "vllm"


Engine = Annotated[
    EngineKind, typer.Option("--engine", help="Who decodes: this server, or a vLLM server.")
]

Url = Annotated[
    str,
    typer.Option(
        "--engine-url", metavar="URL", help="Of the vLLM server, run with --enable-prompt-embeds."
    ),
]

Model = Annotated[
    str,
    typer.Option(
        "--engine-model", help="What it calls the base.", show_default="the base's own name"
    ),
]

Key = Annotated[
    str,
    typer.Option(
        "--engine-key",
        metavar="KEY",
        envvar="DELIBERATE_ENGINE_KEY",
        show_envvar=True,
        help="What it asks for.",
    ),
]

Timeout = Annotated[
    float, typer.Option("--engine-timeout", metavar="S", help="Seconds it may take for a token.")
]


def check(engine: EngineKind, url: str) -> None:
    """See that a vLLM server is named where one is meant.

    Raises:
        typer.BadParameter: it is not, or only one of both is said.
    """
    if (engine is EngineKind.VLLM) != bool(url):
        raise typer.BadParameter(
            f"--engine {engine.value} and --engine-url {url!r} do not go together: say "
            "--engine vllm --engine-url http://host:8000, or neither"
        )
