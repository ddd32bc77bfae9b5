"""The program `deliberate`: its commands, and how their failures are shown.

To add a command, import its function and register it below, a line each.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from deliberate.cli.commands.augment import augment
from deliberate.cli.commands.compare import compare
from deliberate.cli.commands.evaluate import evaluate
from deliberate.cli.commands.export_embeds import export_embeds
from deliberate.cli.commands.generate import generate
from deliberate.cli.commands.inspect import inspect
from deliberate.cli.commands.prefill import prefill
from deliberate.cli.commands.pull import pull
from deliberate.cli.commands.push import push
from deliberate.cli.commands.serve import serve
from deliberate.cli.commands.train import train
from deliberate.cli.failures import INTERRUPTED, repairable, sentence
from deliberate.cli.terminal import note

app = typer.Typer(
    help="Deliberation in latent space: a coprocessor thinks over a frozen model's cache.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help needs no rich, which would double the time it takes
)
app.command()(train)
app.command()(prefill)
app.command()(augment)
app.command()(generate)
app.command("eval")(evaluate)
app.command()(serve)
app.command()(compare)
app.command("export-embeds")(export_embeds)
app.command()(inspect)
app.command()(push)
app.command()(pull)


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"deliberate {_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and show a failure that its reader can repair as one line.

    Args:
        arguments: What was typed after `deliberate`; by default the process's own.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a wrong use, 130 after Ctrl-C.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # What was typed goes along as the context's object: results say what made them.
        code = app(typed, prog_name="deliberate", standalone_mode=False, obj=["deliberate", *typed])
        code = code or 0
    except TyperException as error:
        note(f"deliberate: {sentence(error)} (`--help` tells more)")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output left, as `head` does: not worth a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except repairable() as error:
        note(f"deliberate: {sentence(error)}")
        return 1
    if code == INTERRUPTED:
        note("deliberate: interrupted; every file written so far is whole")
    return code


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("deliberate")
    except metadata.PackageNotFoundError:
        return "(not installed)"
