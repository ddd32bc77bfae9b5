"""Which texts are ids of the Hub's, and what they name."""

import pytest

from deliberate.core import hub
from deliberate.core.errors import DeliberateError
from deliberate.core.hub_id import HubId, parse


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("someone/thinker", "someone/thinker", None),
        ("someone/thinker@v1.0", "someone/thinker", "v1.0"),
        ("someone/thinker@refs/pr/3", "someone/thinker", "refs/pr/3"),
        ("hf://someone/thinker", "someone/thinker", None),
        ("hf://someone/thinker@" + "a" * 40, "someone/thinker", "a" * 40),
        ("hf://models/someone/thinker@main", "someone/thinker", "main"),
        ("models/thinker", "models/thinker", None),
    ],
)
def test_an_id_names_a_repository_and_a_revision(name, repo, revision):
    found = parse(name, what="coprocessor")
    assert found == HubId(repo=repo, revision=revision)
    assert parse(str(found), what="coprocessor") == found


@pytest.mark.parametrize(
    "name",
    [
        "", "thinker", "a/b/c", "not there", "hf://", "hf://thinker", "hf://datasets/a/b", "/a/b",
        "../a", "a/../b", "a--b/c", "https://huggingface.co/a/b", "someone/thinker.git", "a/b c",
        "caf\u00e9/b", "x" * 300,
    ],
)  # fmt: skip
def test_what_cannot_be_an_id_is_refused(name):
    with pytest.raises(DeliberateError, match="neither a folder nor a Hub id") as error:
        parse(name, what="coprocessor")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "revision", ["", "../x", "a b", "a@b", "-x", "a..b", "v1/../../x", "a%2Fb"]
)
def test_what_cannot_be_a_revision_is_refused(revision):
    with pytest.raises(DeliberateError, match="cannot be a revision"):
        parse(f"someone/thinker@{revision}", what="coprocessor")
    with pytest.raises(DeliberateError, match="cannot be a revision"):
        hub.named("someone/thinker", revision=revision, what="coprocessor")


def test_only_a_model_of_old_may_lack_a_user():
    assert parse("gpt2", what="base model", bare=True) == HubId(repo="gpt2")


def test_two_revisions_are_refused_unless_they_are_the_same():
    with pytest.raises(DeliberateError, match="'v1', and 'v2' is asked for"):
        hub.named("someone/thinker@v1", revision="v2", what="coprocessor")
    assert hub.named("someone/thinker@v1", revision="v1", what="coprocessor").revision == "v1"
