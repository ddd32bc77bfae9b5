"""Names of models: a folder first, then a Hub id.

name --resolve--> a folder here      user/repo@revision --fetch--> a folder of the Hub's cache
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from deliberate.core import hub_id
from deliberate.core.errors import DeliberateError
from deliberate.core.hub_id import HubId
from deliberate.core.patience import asked_to_wait, patiently, root_of, status_of
from deliberate.core.redaction import without_secrets

LOGIN = "set HF_TOKEN, or run `hf auth login`"
"""How someone says to the Hub who they are."""

_NOT_FILES = ["*/*", "consolidated*"]  # other formats, and all weights once more
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a model's files are."""

    folder: Path
    """The folder that holds them."""

    hub: HubId | None = None
    """What was asked of the Hub, where they came from there."""

    commit: str = ""
    """Which commit it is, where they came from there."""


def resolve(name: str, *, revision: str | None, what: str, bare: bool = False) -> Found:
    """The folder that holds a model's files, fetched from the Hub where it is not a folder.

    Args:
        name: A folder or a Hub id, as `hub_id.parse` reads it.
        revision: Branch, tag or commit on the Hub, where the id does not say it.
        what: What is looked for, for the message.
        bare: Whether an id may lack a user.

    Raises:
        DeliberateError: neither a folder nor to be had from the Hub.
    """
    found = here(name, what=what)
    if found is None:
        which = named(name, revision=revision, what=what, bare=bare)
        found = fetch(which, what=what, files=MODEL_FILES)
    return found


def here(name: str, *, what: str) -> Found | None:
    """The folder of that name, if there is one.

    Raises:
        DeliberateError: it is a file.
    """
    if not name or name.startswith(hub_id.SCHEME):
        return None
    folder = Path(name)
    if folder.is_file():
        raise DeliberateError(f"{name!r} is a file and not a {what}'s folder: name the folder")
    return Found(folder=folder) if folder.is_dir() else None


def named(name: str, *, revision: str | None, what: str, bare: bool = False) -> HubId:
    """A Hub id, with the revision that was named beside it.

    Raises:
        DeliberateError: it is no id, or there are two revisions.
    """
    parsed = hub_id.parse(name, what=what, bare=bare)
    if revision is None or revision == parsed.revision:
        return parsed
    hub_id.check_revision(revision, of=f"{what} {parsed.repo!r}")
    if parsed.revision is not None:
        raise DeliberateError(
            f"{what} {name!r} names revision {parsed.revision!r}, and {revision!r} is asked for "
            "beside it: give one"
        )
    return HubId(repo=parsed.repo, revision=revision)


def fetch(which: HubId, *, what: str, files: Sequence[str], again: bool = False) -> Found:
    """The folder of the Hub's cache that holds a revision's files, fetched if they are not there.

    Where the Hub cannot be reached, what is in the cache is taken.

    Args:
        which: The repository and the revision.
        what: What is looked for, for the message.
        files: Patterns of the files that are needed.
        again: Whether what is in the cache is replaced.

    Raises:
        DeliberateError: the Hub refuses, has none, or cannot be reached and nothing is cached.
    """
    try:
        snapshot = Path(
            patiently(
                lambda: snapshot_download(
                    which.repo,
                    revision=which.revision,
                    allow_patterns=list(files),
                    ignore_patterns=_NOT_FILES,
                    force_download=again,
                )
            )
        )
    except RevisionNotFoundError as error:
        raise DeliberateError(
            f"{what} {which.repo!r} has no revision {which.revision!r} on the Hub: see "
            f"{page_of(which.repo)}/tree/main for those it has"
        ) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise DeliberateError(_sentence(which, what, error)) from error
    _check_links(snapshot, str(which), what)
    return Found(folder=snapshot, hub=which, commit=snapshot.name)


def page_of(repo: str) -> str:
    """The address of a repository's page."""
    return f"{endpoint()}/{repo}"


def endpoint() -> str:
    """The Hub's address, as it may be shown: HF_ENDPOINT may have a password in it."""
    return without_secrets(constants.ENDPOINT)


def _check_links(snapshot: Path, name: str, what: str) -> None:
    """See that what was fetched is the Hub's: its links lead to what the client keeps, and there.

    Raises:
        DeliberateError: one leads elsewhere.
    """
    kept = snapshot.parents[2].resolve()  # of all repositories: clients may share files
    for path in snapshot.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(kept):
            raise DeliberateError(
                f"{what} {name!r} holds {path.name!r}, a link that leads out of the Hub's cache: "
                f"remove {str(snapshot)!r} and fetch it again"
            )


def _sentence(which: HubId, what: str, error: Exception) -> str:
    # Where nothing is cached, the client says so, and why it had to look there comes as the cause.
    root = root_of(error)
    if status_of(root) is not None:
        return f"no {what} {str(which)!r} from the Hub: {_reason(root, which.repo)}"
    if isinstance(root, OfflineModeIsEnabled):
        return (
            f"no {what} {str(which)!r} here, and HF_HUB_OFFLINE says to ask nobody: give a folder, "
            "or unset it"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"no {what} {str(which)!r} here, and the Hub cannot be reached: "
            "give a folder, or try again with a network"
        )
    reason = without_secrets(" ".join(str(root).split()).rstrip(".")) or type(root).__name__
    return f"cannot fetch {what} {str(which)!r}: {reason}; run the same command again"


def _reason(error: BaseException, repo: str) -> str:
    status, page = status_of(error), page_of(repo)
    if isinstance(error, GatedRepoError):
        return f"it is gated: ask for access at {page}, then {LOGIN}"
    if status == 429:
        seconds = asked_to_wait(error)
        wait = "a few minutes" if seconds is None else f"{seconds} seconds"
        return f"it has had too many requests: try again in {wait}"
    return {
        401: f"it is private or does not exist, or the token is wrong: check the id, or {LOGIN}",
        403: f"the token may not read it: see {page}, and {LOGIN} as someone who may",
        404: f"there is none: check the id, give a folder, or {LOGIN} if it is private",
    }.get(status or 0, f"it answered {status}: try again later, or give a folder")
