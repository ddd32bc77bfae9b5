"""`deliberate push`: a coprocessor and its card to the Hub."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.terminal import emit

if TYPE_CHECKING:
    from deliberate.core.publish import Publication


def push(
    run: Annotated[
        str, typer.Argument(help="Folder of a training run, or `nano`.", show_default=False)
    ],
    repo: Annotated[str, typer.Argument(help="`user/repo` on the Hub.", show_default=False)],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="Only you may see the repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and contact nobody.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Publish a coprocessor on the Hub: settings, weights, recipe, evaluation and model card.

    The token is HF_TOKEN, or that of `hf auth login`.
    """
    from deliberate.core.publish import prepare, publish

    publication = prepare(run, repo, private=private)
    result = _described(publication)
    if dry_run:
        emit(result) if as_json else typer.echo(_shown(publication))
        return
    published = publish(publication)
    result |= {"dry_run": False, "url": published.url, "commit": published.commit}
    emit(result) if as_json else typer.echo(published.url)


def _described(publication: "Publication") -> dict[str, Any]:
    return {
        "repo": publication.repo,
        "url": publication.url,
        "private": publication.private,
        "dry_run": True,
        "files": [{"path": name, "bytes": size} for name, size in publication.sizes.items()],
        "card": publication.card,
    }


def _shown(publication: "Publication") -> str:
    seen = "private" if publication.private else "public"
    files = [f"{size:>15,} bytes  {name}" for name, size in publication.sizes.items()]
    return "\n".join([
        f"Would publish at {publication.url} ({seen}), in one commit:",
        *files,
        "",
        "README.md:",
        "",
        publication.card,
    ])
