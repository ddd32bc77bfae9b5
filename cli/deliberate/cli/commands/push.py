"""`deliberate push`: a coprocessor and its card to the Hub."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.terminal import emit, note, spelled_out

if TYPE_CHECKING:
    from rich.console import Console

    from deliberate.core.publication import Publication


def push(
    run: Annotated[
        str, typer.Argument(help="Folder of a training run, or `nano`.", show_default=False)
    ],
    repo: Annotated[str, typer.Argument(help="`user/repo` on the Hub.", show_default=False)],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="Only you may see the repository.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="BRANCH",
            help="Push to this branch, made if missing.",
            show_default="the main branch",
        ),
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it as a pull request.")
    ] = False,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="NAME", help="Name the commit, such as `v1`.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Of the weights, such as `apache-2.0`."),
    ] = None,
    without_evaluation: Annotated[
        bool,
        typer.Option("--without-evaluation", help="Push a run of which nothing was measured."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and contact nobody.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Publish a coprocessor on the Hub: settings, weights, recipe, what was measured, a model card.

    It is one commit, or nothing: after a cut, the same command goes on. Weights are compared with
    their checksum first. The token is HF_TOKEN, or that of `hf auth login`.
    """
    from deliberate.core.publication import prepare
    from deliberate.core.publish import publish

    publication = prepare(
        run,
        repo,
        private=private,
        revision=revision,
        create_pr=create_pr,
        tag=tag,
        licence=licence,
        without_evaluation=without_evaluation,
    )
    result = _described(publication)
    if dry_run:
        emit(result) if as_json else _show(publication)
        return
    if not as_json:
        note(_seen(publication))
    published = publish(publication)
    result |= {"dry_run": False, "url": published.url, "commit": published.commit}
    emit(result) if as_json else typer.echo(published.url)


def _described(publication: "Publication") -> dict[str, Any]:
    return {
        "repo": publication.repo,
        "url": publication.url,
        "private": publication.private,
        "branch": publication.branch,
        "pull_request": publication.create_pr,
        "tag": publication.tag,
        "dry_run": True,
        "files": [{"path": name, "bytes": size} for name, size in publication.sizes.items()],
        "card": publication.card,
    }


def _seen(publication: "Publication") -> str:
    """Who will see what."""
    names = ", ".join(publication.files)
    if publication.private:
        return f"private, for you and whom you let in: {names}"
    return (
        f"public, for anyone to read and to copy: {names} (the recipe names your data, without "
        "folders)"
    )


def _show(publication: "Publication") -> None:
    """Show what would be sent: on a terminal with a picture of the card, otherwise its text."""
    from rich.console import Console

    seen = "private" if publication.private else "public"
    where = f" on branch {publication.branch!r}" if publication.branch else ""
    as_what = "as a pull request" if publication.create_pr else "in one commit"
    tagged = f", with tag {publication.tag!r}" if publication.tag else ""
    typer.echo(f"Would publish at {publication.url} ({seen}){where}, {as_what}{tagged}:")
    for name, size in publication.sizes.items():
        typer.echo(f"{size:>15,} bytes  {name}")
    typer.echo(f"\n{_seen(publication)}\n\nREADME.md:\n")
    console = Console()
    if console.is_terminal:
        _picture(console, spelled_out(publication.card))
    else:
        typer.echo(publication.card)


def _picture(console: "Console", card: str) -> None:
    """The card as the Hub shows it, as far as a terminal can: metadata in a box, then the text."""
    from rich.markdown import Markdown
    from rich.panel import Panel
    from rich.syntax import Syntax

    _, metadata, text = card.split("---\n", 2)
    box = Syntax(metadata.strip(), "yaml", background_color="default", word_wrap=True)
    console.print(Panel(box, title="metadata", title_align="left"))
    console.print(Markdown(text))
