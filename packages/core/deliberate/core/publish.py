"""Sending a coprocessor to the Hub: one commit, or nothing that anyone sees.

    Publication --publish--> one commit in a repository, its tag

Large files go first, to where nobody finds them; the commit names them all at once. So what is cut
leaves the repository as it was, and the same command again sends what is still missing.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from deliberate.core.card_tables import PLOTS
from deliberate.core.hub import LOGIN, endpoint, page_of
from deliberate.core.hub_results import FOLDER
from deliberate.core.patience import asked_to_wait, bounded, patiently, root_of, status_of
from deliberate.core.publication import RECIPE, Publication, PublishError
from deliberate.core.redaction import without_secrets
from deliberate.core.run_results import EVALUATION
from deliberate.core.weights_file import WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where it went."""

    url: str
    """The repository's page, or the pull request's."""

    commit: str
    """The revision that holds exactly what was sent."""


def publish(publication: Publication) -> Published:
    """Send a publication to the Hub: repository and branch are made if missing.

    The token is the one that `huggingface_hub` finds: `HF_TOKEN`, or the stored login.

    Args:
        publication: From `prepare`.

    Raises:
        PublishError: there is no token, or the Hub refuses or cannot be reached.
    """
    repo, branch = publication.repo, publication.branch
    with _explained(publication):
        token = get_token()
        if token is None:
            raise PublishError(
                f"no token for the Hub: {LOGIN}, with one that may write "
                "(https://huggingface.co/settings/tokens)"
            )
        patiently(lambda: _check_card(publication.card, token))
        api = HfApi(token=token)
        if not publication.create_pr:
            _make_place(api, publication)
        present = patiently(lambda: api.model_info(repo, revision=branch))
        if publication.private and not present.private:
            # What is public may have been copied before anyone makes it private again.
            raise PublishError(
                f"{repo!r} exists and is public: make it private in its settings, "
                "push to another name, or push without --private"
            )
        tagged = _tagged(api, publication, present)
        commit = _commit(api, publication, present)
        if publication.tag is not None and tagged != commit.oid:
            _tag(api, publication, commit, tagged)
    return Published(url=commit.pr_url or page_of(repo), commit=commit.oid)


def _check_card(card: str, token: str) -> None:
    """See that the Hub takes the card's metadata, before anything large is sent."""
    answer = get_session().post(
        f"{constants.ENDPOINT}/api/validate-yaml",
        json={"repoType": "model", "content": card},
        headers=build_hf_headers(token=token),
    )
    hf_raise_for_status(answer)


def _make_place(api: HfApi, publication: Publication) -> None:
    repo, branch = publication.repo, publication.branch
    patiently(lambda: api.create_repo(repo, private=publication.private or None, exist_ok=True))
    if branch is not None and not branch.startswith("refs/"):
        patiently(lambda: api.create_branch(repo, branch=branch, exist_ok=True))


def _commit(api: HfApi, publication: Publication, present: ModelInfo) -> CommitInfo:
    stale = _stale(publication, present)
    with bounded():  # the client tries again by itself here
        api.preupload_lfs_files(
            publication.repo,
            additions=_additions(publication),
            revision=publication.branch,
            create_pr=publication.create_pr,
            free_memory=False,
        )
    return patiently(
        # Anew each time, so that a commit whose answer was lost is found to be there already.
        lambda: api.create_commit(
            publication.repo,
            operations=[*_additions(publication), *map(CommitOperationDelete, stale)],
            commit_message="Publish a coprocessor",
            revision=publication.branch,
            create_pr=publication.create_pr,
        ),
        once_sent=publication.create_pr,  # or there would be two
    )


def _additions(publication: Publication) -> list[CommitOperationAdd]:
    """The files to be sent, as they are now.

    Raises:
        PublishError: the weights are others than those that were checked.
    """
    made = [CommitOperationAdd(name, content) for name, content in publication.files.items()]
    [weights] = [each.upload_info for each in made if each.path_in_repo == WEIGHTS]
    if weights.sha256.hex() != publication.weights:
        raise PublishError(
            f"{str(publication.files[WEIGHTS])!r} was changed since it was checked, such as by a "
            "run that goes on: run the same command again"
        )
    return made


def _stale(publication: Publication, present: ModelInfo) -> Sequence[str]:
    """What an earlier push left there that would speak falsely of these weights."""
    ours = (f"{PLOTS}/", f"{FOLDER}/")
    there = {sibling.rfilename for sibling in present.siblings or []}
    earlier = {name for name in there if name in {RECIPE, EVALUATION} or name.startswith(ours)}
    return sorted(earlier - set(publication.files))


def _tagged(api: HfApi, publication: Publication, present: ModelInfo) -> str | None:
    """The commit that has the tag already.

    Raises:
        PublishError: it cannot be the one that is to be made.
    """
    if publication.tag is None:
        return None
    found = _commit_of_tag(api, publication)
    if found not in {None, present.sha}:
        raise PublishError(
            f"tag {publication.tag!r} is at another commit of {publication.repo!r}: choose "
            "another tag, or delete that one on the Hub"
        )
    return found


def _tag(api: HfApi, publication: Publication, commit: CommitInfo, tagged: str | None) -> None:
    """Tag a commit.

    Raises:
        PublishError: the tag is another commit's.
    """
    repo, tag = publication.repo, publication.tag or ""
    if tagged is None:
        # One that is there may be ours, its answer lost, or somebody's who was faster.
        patiently(lambda: api.create_tag(repo, tag=tag, revision=commit.oid, exist_ok=True))
        tagged = _commit_of_tag(api, publication)
    if tagged != commit.oid:
        raise PublishError(
            f"published as commit {commit.oid}, but tag {tag!r} is not at it: push again with "
            "another tag"
        )


def _commit_of_tag(api: HfApi, publication: Publication) -> str | None:
    refs = patiently(lambda: api.list_repo_refs(publication.repo))
    return {tag.name: tag.target_commit for tag in refs.tags}.get(publication.tag or "")


@contextmanager
def _explained(publication: Publication) -> Generator[None]:
    """Turn what the Hub's client raises into one sentence.

    Raises:
        PublishError: the client raised something.
    """
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PublishError(_sentence(root_of(error), publication)) from error


def _sentence(error: BaseException, publication: Publication) -> str:
    repo, hub, status = publication.repo, endpoint(), status_of(error)
    if not isinstance(error, HfHubHTTPError) or status is None:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it answered without {reason}"
        return (
            f"cannot publish at {hub}: {without_secrets(reason)}; run the same command again, "
            "it goes on"
        )
    if status == 429:
        seconds = asked_to_wait(error)
        wait = "a few minutes" if seconds is None else f"{seconds} seconds"
        return f"{hub} has had too many requests: run the same command again in {wait}"
    said = _said(error)
    odd = f"{hub} does not accept {repo!r} as it is{said}: change that, and run the command again"
    changed = f"{repo!r} was changed meanwhile{said}: see {publication.url}, and run the same again"
    return {
        400: odd,
        401: f"{hub} does not accept the token: {LOGIN}, with one that may write",
        403: f"the token may not write to {repo!r}{said}: check whose it is, and that it may write",
        404: _absent(error, publication),
        409: changed,
        412: changed,
        413: odd,
        422: odd,
    }.get(
        status,
        f"{hub} answered {status} for {repo!r}{said}: run the same command again, it goes on",
    )


def _absent(error: BaseException, publication: Publication) -> str:
    """What it comes to that something is not there."""
    repo, branch = publication.repo, publication.branch
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repo!r} has no branch {branch!r}: see {publication.url}/tree/main for those it has"
        )
    if publication.create_pr:
        return (
            f"{endpoint()} has no repository {repo!r} for a pull request: check the id, or leave "
            "out --create-pr to make it"
        )
    return f"{endpoint()} has no place for {repo!r}: check the name of the user or organization"


def _said(error: HfHubHTTPError) -> str:
    """What the Hub says beside the number, where it says something."""
    said = without_secrets(" ".join((error.server_message or "").split()))
    return f" ({said:.200})" if said else ""
