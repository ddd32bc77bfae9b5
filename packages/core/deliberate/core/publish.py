"""Publishing a coprocessor: what goes to the Hub, and how.

    run folder --prepare--> Publication --publish--> one commit in a repository

`prepare` reads and checks everything and contacts nobody; `publish` sends exactly that. Folders
of this machine that the run's files name are left out of what is sent.
"""

import json
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from deliberate.core import fingerprint, plain_json, plain_yaml, weights_file
from deliberate.core.card import Subject, write_card
from deliberate.core.checkpoint import (
    CONFIG,
    EMBEDDED_FOLDERS,
    read_config,
    settings_of,
)
from deliberate.core.errors import DeliberateError
from deliberate.core.local_paths import without_folders
from deliberate.core.redaction import values_without_secrets
from deliberate.core.weights_file import CHECKSUM, WEIGHTS

CARD, EVALUATION, RECIPE = "README.md", "eval.json", "recipe.yaml"


class PublishError(DeliberateError):
    """A coprocessor that cannot be published, or not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Exactly what is to be sent."""

    repo: str
    """Hub id, `user/repo`."""

    private: bool
    """Whether only its owner may see it."""

    files: dict[str, Path | bytes]
    """Name in the repository to a file here, or to the content itself."""

    card: str
    """The model card, which is also among the files."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @property
    def url(self) -> str:
        """Where it is to be found."""
        return f"{constants.ENDPOINT}/{self.repo}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where it went."""

    url: str
    """The repository's page."""

    commit: str
    """The revision that holds exactly what was sent."""


def prepare(run: str | Path, repo: str, *, private: bool = False) -> Publication:
    """Gather what publishing a run would send; nobody is contacted.

    Args:
        run: Folder of a training run, or the name of an embedded coprocessor.
        repo: Hub id, `user/repo`.
        private: Whether only its owner may see it.

    Raises:
        PublishError: the id cannot be used, or there is no such folder. What is wrong with the
            folder itself comes as another `DeliberateError`.
    """
    _check_repo(repo)
    folder = EMBEDDED_FOLDERS.get(str(run), Path(run))
    if not folder.is_dir():
        raise PublishError(
            f"no run folder at {str(run)!r}: give the folder that `deliberate train` wrote"
        )
    config = read_config(folder)
    settings_of(config, folder)
    weights_file.verify(folder, config)
    parameters, dtype = _weights(folder / WEIGHTS)
    identity = fingerprint.of_coprocessor(folder, config["coprocessor"])
    evaluation = _read_evaluation(folder / EVALUATION, identity)
    card = write_card(
        Subject(
            repo=repo,
            config=values_without_secrets(config),
            fingerprint=identity,
            parameters=parameters,
            dtype=dtype,
            evaluation=evaluation,
        )
    )
    files: dict[str, Path | bytes] = {CARD: card.encode()}
    for name in (CONFIG, WEIGHTS, RECIPE, EVALUATION):
        if (folder / name).is_file():
            _check_inside(folder / name, folder)
            files[name] = _without_folders(folder / name)
    return Publication(repo=repo, private=private, files=files, card=card)


def publish(publication: Publication) -> Published:
    """Send a publication to the Hub: the repository is made if missing, the files are one commit.

    The token is the one that `huggingface_hub` finds: `HF_TOKEN`, or the stored login.

    Args:
        publication: From `prepare`.

    Raises:
        PublishError: there is no token, or the Hub refuses or cannot be reached.
    """
    repo = publication.repo
    with _explained(repo):
        token = get_token()
        if token is None:
            raise PublishError(
                "no token for the Hub: set HF_TOKEN to one that may write "
                "(https://huggingface.co/settings/tokens), or run `hf auth login`"
            )
        api = HfApi(token=token)
        url = api.create_repo(repo, private=publication.private or None, exist_ok=True)
        present = api.model_info(repo)
        if publication.private and not present.private:
            # What is public may have been copied before anyone makes it private again.
            raise PublishError(
                f"{repo!r} exists and is public: make it private in its settings, "
                "push to another name, or push without --private"
            )
        there = {sibling.rfilename for sibling in present.siblings or []}
        # An evaluation or a recipe of earlier weights would speak falsely of these.
        stale = sorted(({RECIPE, EVALUATION} & there) - set(publication.files))
        commit = api.create_commit(
            repo,
            operations=[
                *(CommitOperationAdd(name, file) for name, file in publication.files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message="Publish a coprocessor",
        )
    return Published(url=str(url), commit=commit.oid)


def _check_repo(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PublishError(
            f"{repo!r} cannot be a repository's id: give 'user/repo' of letters, digits, "
            "'-', '_' and '.', at most 96 in all"
        ) from error
    if "/" not in repo:
        raise PublishError(f"{repo!r} does not say whose repository it is: give 'user/repo'")


def _weights(path: Path) -> tuple[int, str]:
    """How many weights there are, and their dtype."""
    parts = weights_file.header_of(path).parts.values()
    return sum(math.prod(part.shape) for part in parts), weights_file.dtypes_of(parts)


def _check_inside(path: Path, folder: Path) -> None:
    """See that a file is the folder's own, for a link would publish what it leads to.

    Raises:
        PublishError: it leads elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PublishError(
            f"{str(path)!r} is a link that leads out of its folder: put the file itself there"
        )


def _without_folders(path: Path) -> Path | bytes:
    """A file itself, or what is sent in its stead because it names folders of this machine.

    Raises:
        PublishError: it cannot be read.
    """
    if path.name == WEIGHTS:
        return path
    is_json = path.suffix == ".json"
    try:
        content = plain_json.read(path, finite=False) if is_json else plain_yaml.read(path)
    except (OSError, ValueError) as error:
        raise PublishError(
            f"cannot read {str(path)!r}: {' '.join(str(error).split())}; mend it, or remove it"
        ) from error
    shared = without_folders(values_without_secrets(content))
    if shared == content:
        return path
    if path.name == CONFIG and CHECKSUM in shared:
        shared[CHECKSUM] = weights_file.checksum(shared, path.with_name(WEIGHTS))
    if is_json:
        return (json.dumps(shared, indent=2) + "\n").encode()
    return yaml.safe_dump(shared, sort_keys=False).encode()


def _read_evaluation(path: Path, identity: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        report = plain_json.read(path, finite=False)
    except (OSError, ValueError) as error:
        raise PublishError(
            f"cannot read {str(path)!r}: {error}; run `deliberate eval` again, or remove it"
        ) from error
    if not isinstance(report, dict) or not isinstance(report.get("fingerprints"), dict):
        raise PublishError(f"{str(path)!r} is no report: run `deliberate eval` again, or remove it")
    measured = report["fingerprints"].get("latents")
    if measured != identity:
        raise PublishError(
            f"{str(path)!r} measured other weights ({measured}) than these ({identity}): "
            "run `deliberate eval` again, or remove it"
        )
    return report


@contextmanager
def _explained(repo: str) -> Generator[None]:
    """Turn what the Hub's client raises into one sentence.

    Raises:
        PublishError: the client raised something.
    """
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PublishError(_sentence(_root(error), repo)) from error


def _root(error: BaseException) -> BaseException:
    """What an error began with, or the Hub's answer on the way: uploads wrap both."""
    while error.__cause__ is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _sentence(error: BaseException, repo: str) -> str:
    endpoint = constants.ENDPOINT
    if not isinstance(error, HfHubHTTPError):
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return f"cannot publish at {endpoint}: {reason}; run the same command again"
    status = error.response.status_code
    return {
        401: f"{endpoint} does not accept the token: set HF_TOKEN to one that may write",
        403: f"the token may not write to {repo!r}: check whose it is, and that it may write",
        404: f"{endpoint} has no place for {repo!r}: check the name of the user or organization",
    }.get(status, f"{endpoint} answered {status} for {repo!r}: run the same command again")
