"""`deliberate pull`: a coprocessor from the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.terminal import emit, harmless

if TYPE_CHECKING:
    from deliberate.core.pull import Pulled


def pull(
    repo: Annotated[
        str,
        typer.Argument(
            metavar="USER/REPO[@REVISION]", help="What to fetch from the Hub.", show_default=False
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Put it in a folder of its own.",
            show_default="the Hub's cache",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Fetch a coprocessor from the Hub, compare its checksum, and say what it is.

    What is in the Hub's cache is not fetched again, and is found without a network. A private
    repository needs HF_TOKEN, or `hf auth login`.
    """
    from deliberate.core.pull import pull as fetched

    pulled = fetched(repo, output=output)
    if as_json:
        emit(_described(pulled))
        return
    for what, said in _shown(pulled).items():
        typer.echo(f"{what:10}{harmless(said)}")


def _described(pulled: "Pulled") -> dict[str, Any]:
    return {
        "id": pulled.id,
        "commit": pulled.commit,
        "folder": str(pulled.folder),
        "base": pulled.base,
        "coprocessor": pulled.settings,
        "fingerprint": pulled.fingerprint,
        "parameters": pulled.parameters,
        "dtype": pulled.dtype,
        "bytes": pulled.size,
        "verified": pulled.verified,
        "usage": pulled.usage,
    }


def _shown(pulled: "Pulled") -> dict[str, str]:
    from deliberate.core.kinds import KINDS
    from deliberate.core.verdict import counted

    base, kind, count = pulled.base, pulled.settings["kind"], pulled.settings["latents"]
    latents = counted(count, "latent") if KINDS[kind].writes_latents else "no latents"
    at = f" at {base['revision']}" if base["revision"] else ""
    checked = "checksum is right" if pulled.verified else "no checksum to compare"
    return {
        "fetched": f"{pulled.id}, commit {pulled.commit}, {checked}",
        "base": f"{base['id']}{at}, fingerprint {base['fingerprint']}",
        "kind": f"{kind}, {latents}",
        "size": f"{pulled.parameters:,} parameters in {pulled.dtype}, {pulled.size:,} bytes",
        "folder": str(pulled.folder),
        "use": pulled.usage,
    }
