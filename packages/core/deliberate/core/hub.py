"""Names of models: a folder first, then a Hub id."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from deliberate.core.errors import DeliberateError

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
    if folder.is_dir():
        return folder, ""
    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except HFValidationError as error:
        raise DeliberateError(
            f"no {what} at {name!r}: it is neither a folder nor a Hub id like 'user/repo'"
        ) from error
    except LocalEntryNotFoundError as error:
        raise DeliberateError(
            f"no {what} {name!r} here, and the Hub cannot be reached: "
            "give a folder, or try again with a network"
        ) from error
    except HfHubHTTPError as error:
        raise DeliberateError(
            f"no {what} {name!r} on the Hub: {_reason(error)}; check the id, or give a folder"
        ) from error
    except OSError as error:
        raise DeliberateError(f"cannot fetch {what} {name!r}: {error}") from error
    return snapshot, snapshot.name


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    return {
        401: "it is private or does not exist (set HF_TOKEN to read a private one)",
        403: "the token may not read it",
        404: "there is none",
    }.get(status, f"it answered {status}")
