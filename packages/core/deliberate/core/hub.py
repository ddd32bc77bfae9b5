"""Names of models: a folder first, then a Hub id."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)

from deliberate.core.errors import DeliberateError

_NOT_FILES = ["*/*", "consolidated*"]  # other formats, and all weights once more
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]*")
_FILES = ["*.json", "*.safetensors", "tokenizer.model", "*.txt"]


def resolve(name: str, *, revision: str | None, what: str) -> tuple[Path, str]:
    """The folder that holds a model's files, fetched from the Hub where it is not a folder.

    Args:
        name: A folder or a Hub id.
        revision: Branch, tag or commit on the Hub.
        what: What is looked for, for the message.

    Returns:
        The folder, and the commit where it came from the Hub.

    Raises:
        DeliberateError: neither a folder nor to be had from the Hub.
    """
    folder = Path(name)
    if name and folder.is_dir():
        return folder, ""
    if name and folder.is_file():
        raise DeliberateError(f"{name!r} is a file and not a {what}'s folder: name the folder")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise DeliberateError(
            f"{revision!r:.80} cannot be a revision of {what} {name!r}: give a branch, a tag or a "
            "commit"
        )
    try:
        snapshot = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_FILES, ignore_patterns=_NOT_FILES
            )
        )
    except HFValidationError as error:
        raise DeliberateError(
            f"no {what} at {name!r}: it is neither a folder nor a Hub id like 'user/repo'"
        ) from error
    except RevisionNotFoundError as error:
        raise DeliberateError(f"{what} {name!r} has no revision {revision!r} on the Hub") from error
    except (HTTPError, OSError) as error:
        raise DeliberateError(_sentence(name, what, error)) from error
    _check_links(snapshot, name, what)
    return snapshot, snapshot.name


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


def _sentence(name: str, what: str, error: Exception) -> str:
    # Where nothing is cached, the client says so, and why it had to look there comes as the cause.
    root = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(root, HfHubHTTPError):
        return f"no {what} {name!r} from the Hub: {_reason(root)}; check the id, or give a folder"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"no {what} {name!r} here, and the Hub cannot be reached: "
            "give a folder, or try again with a network"
        )
    return f"cannot fetch {what} {name!r}: {' '.join(str(error).split())}"


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    return {
        401: "it is private or does not exist, or the token is wrong (HF_TOKEN)",
        403: "the token may not read it",
        404: "there is none",
    }.get(status, f"it answered {status}")
