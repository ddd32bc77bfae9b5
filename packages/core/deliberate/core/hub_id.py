"""Ids of models on the Hub, as people write them.

user/repo, user/repo@revision, hf://user/repo@revision --parse--> HubId, and nobody is asked
"""

import re
from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from deliberate.core.errors import DeliberateError

SCHEME = "hf://"

_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]*")


class NotAnIdError(DeliberateError):
    """A text that cannot be an id of the Hub's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubId:
    """A repository on the Hub, and which of its revisions is meant."""

    repo: str
    """`user/repo`; some models of old have no user."""

    revision: str | None = None
    """Branch, tag or commit; none is the main branch."""

    def __str__(self) -> str:
        """As it is written: `user/repo@revision`, or `user/repo`."""
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def parse(name: str, *, what: str, bare: bool = False) -> HubId:
    """The repository and the revision that an id names.

    Args:
        name: `user/repo` or `user/repo@revision`, with or without `hf://` before it.
        what: What is looked for, for the message.
        bare: Whether a name without a user is an id, as `gpt2` is.

    Raises:
        NotAnIdError: it cannot be an id.
        DeliberateError: it names a revision that cannot be.
    """
    repo, at, revision = name.removeprefix(f"{SCHEME}models/").removeprefix(SCHEME).partition("@")
    if not _is_repo(repo) or ("/" not in repo and not bare):
        raise NotAnIdError(
            f"no {what} at {name!r:.200}: it is neither a folder nor a Hub id like 'user/repo' or "
            "'user/repo@revision'"
        )
    if at:
        check_revision(revision, of=f"{what} {repo!r}")
    return HubId(repo=repo, revision=revision if at else None)


def check_revision(revision: str, *, of: str) -> None:
    """See that a text may name a branch, a tag or a commit.

    Args:
        revision: The text.
        of: What it is a revision of, for the message.

    Raises:
        DeliberateError: it may not.
    """
    if not _REVISION.fullmatch(revision):
        raise DeliberateError(
            f"{revision!r:.80} cannot be a revision of {of}: give a branch, a tag or a commit"
        )


def _is_repo(text: str) -> bool:
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True
