"""The Hub fails in every way that we could think of: success after all, or one sentence."""

import time

import pytest
from huggingface_hub import get_session
from huggingface_hub.utils import logging as hub_logging

from deliberate.core import patience
from deliberate.core.checkpoint import FILES
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.publication import PublishError, prepare
from deliberate.core.publish import publish
from deliberate.core.pull import pull

# The Hub's own client uploads large files in a way that its HTTP library wants to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.usefixtures("impatient"),
]

REPO = "someone/thinker"
PUSHING = [
    "POST /api/repos/create", "GET /api/models/", "POST /api/validate-yaml", "/preupload/",
    "/objects/batch", "PUT /uploads/", "/commit/", "/refs", "/tag/", "/branch/",
]  # fmt: skip
PULLING = ["GET /api/models/[^/]+/[^/]+/revision", "/tree/", "GET /.*/resolve/.*/config.json"]


@pytest.fixture
def fault(hub):
    """Have something go wrong with the next requests that match."""

    def add(pattern: str, **how: object) -> None:
        hub.fail(pattern, **how)

    return add


@pytest.fixture
def shared(hub, run):
    """A repository with a coprocessor."""
    return hub.add(REPO, {name: (run / name).read_bytes() for name in FILES if name != "README.md"})


def pushed(run) -> object:
    """What a push with everything in it comes to."""
    return publish(prepare(run, REPO, revision="trial", tag="v1"))


def refused(call) -> str:
    """The one sentence that a call comes to."""
    with pytest.raises(DeliberateError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("route", PUSHING)
def test_a_push_survives_an_answer_that_passes(hub, run, fault, route, status):
    fault(route, status=status)
    assert pushed(run).commit == hub.repositories[REPO].branches["trial"][-1].sha


@pytest.mark.parametrize("route", PUSHING)
def test_a_push_survives_a_connection_that_is_cut(hub, run, fault, route):
    fault(route, cut=10)
    assert pushed(run).commit == hub.repositories[REPO].branches["trial"][-1].sha
    assert len(hub.repositories[REPO].branches["trial"]) == 2


@pytest.mark.parametrize("route", ["POST /api/repos/create", "/commit/", "PUT /uploads/"])
def test_a_push_waits_as_long_as_it_is_asked_to(hub, run, fault, impatient, route):
    fault(route, status=429, headers={"Retry-After": "7"})
    pushed(run)
    assert max(impatient.slept) in {7, 8}  # the Hub's client adds one


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 429, 500, 502])
@pytest.mark.parametrize("route", PUSHING)
def test_a_push_that_stays_refused_is_one_sentence_and_shows_nothing(
    hub, run, fault, route, status, capfd
):
    repository = hub.add(REPO, {"notes.txt": b"mine"})
    fault(route, status=status, times=99)
    before = list(repository.commits)
    if "create" in route and status in {401, 403}:
        # Who may not make a repository may still write to one that is there.
        assert pushed(run).commit == repository.branches["trial"][-1].sha
    else:
        told = refused(lambda: pushed(run))
        seen = repository.branches.get("trial", before)[-1]
        assert REPO in told or hub.url in told or seen.sha in told
        assert (seen.files == before[-1].files) == (route != "/tag/")
    assert repository.commits == before
    assert "uploads/" not in capfd.readouterr().err


def test_a_tag_that_somebody_else_made_meanwhile_is_not_taken_for_ours(hub, run, fault):
    fault("/tag/", status=409)
    assert "published as commit" in refused(lambda: pushed(run))
    repository = hub.repositories[REPO]
    repository.tags["v1"] = repository.branches["trial"][-1].sha
    assert pushed(run).commit == repository.tags["v1"]


def test_a_tag_whose_answer_is_lost_is_found_to_be_there(hub, run, fault):
    fault("/tag/", lost=True)
    assert hub.repositories.get(REPO) is None
    assert pushed(run).commit == hub.repositories[REPO].tags["v1"]


def test_an_upload_that_was_cut_goes_on_with_what_is_missing(hub, run, fault):
    fault("PUT /uploads/", cut=1000, times=6)
    told = refused(lambda: publish(prepare(run, REPO)))
    assert "run the same command again, it goes on" in told
    assert [len(repository.commits) for repository in hub.repositories.values()] == [1]
    fault("/commit/", status=403)
    refused(lambda: publish(prepare(run, REPO)))
    puts = sum("PUT" in line for line in hub.requests)
    publish(prepare(run, REPO))
    assert sum("PUT" in line for line in hub.requests) == puts
    assert len(hub.repositories[REPO].commits) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, run, fault):
    fault("/commit/", lost=True)
    published = publish(prepare(run, REPO))
    assert published.commit == hub.repositories[REPO].commits[-1].sha
    assert len(hub.repositories[REPO].commits) == 2


def test_a_pull_request_whose_answer_is_lost_is_not_made_twice(hub, run, fault):
    repository = hub.add(REPO, {"notes.txt": b"theirs"})
    fault("/commit/", lost=True)
    refused(lambda: publish(prepare(run, REPO, create_pr=True)))
    assert list(repository.branches) == ["refs/pr/1"]
    fault("/commit/", status=503)
    publish(prepare(run, REPO, create_pr=True))
    assert list(repository.branches) == ["refs/pr/1", "refs/pr/2"]


@pytest.mark.parametrize("how", [{"status": 429, "headers": {"Retry-After": "0"}}, {"status": 503}])
@pytest.mark.parametrize("route", PULLING[:2])
def test_a_pull_survives_an_answer_that_passes(shared, fault, route, how):
    fault(route, **how)
    assert pull(REPO).verified


def test_a_download_that_is_cut_goes_on_from_there(hub, shared, fault, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    fault("GET /.*/resolve/.*/model.safetensors", cut=1000)
    assert pull(REPO).verified
    assert hub.sent == ["bytes=1000-"]


def test_weights_that_were_damaged_on_the_way_are_fetched_again(hub, shared, fault, run):
    fault("GET /.*/resolve/.*/model.safetensors", flip=True)
    pulled = pull(REPO)
    assert pulled.verified
    weights = (pulled.folder / "model.safetensors").read_bytes()
    assert weights == (run / "model.safetensors").read_bytes()


def test_weights_that_stay_damaged_are_one_sentence(shared, fault):
    fault("GET /.*/resolve/.*/model.safetensors", flip=True, times=99)
    with pytest.raises(CheckpointError, match="fetched twice"):
        pull(REPO)


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("route", ["GET /api/models/", "/tree/", "/resolve/"])
def test_a_pull_that_stays_refused_is_one_sentence(shared, fault, route, status, tmp_path):
    fault(route, status=status, times=99)
    assert REPO in refused(lambda: pull(REPO, output=tmp_path / "here"))
    assert not (tmp_path / "here").exists()


LONG = [{"Retry-After": "86400"}, {"RateLimit": '"api";r=0;t=86400', "Retry-After": "1"}]


@pytest.mark.parametrize("headers", LONG)
@pytest.mark.parametrize("route", ["GET /api/models/", "/tree/", "GET /.*/resolve/"])
def test_a_pull_has_no_more_patience_than_we_say(shared, fault, impatient, route, headers):
    fault(route, status=429, headers=headers, times=99)
    assert "try again in 86400 seconds" in refused(lambda: pull(REPO))
    assert not impatient.slept


@pytest.mark.parametrize("headers", LONG)
@pytest.mark.parametrize("route", ["POST /api/repos/create", "/preupload/", "PUT /uploads/"])
def test_a_push_has_no_more_patience_than_we_say(hub, run, fault, impatient, route, headers):
    fault(route, status=429, headers=headers, times=99)
    assert "the same command again in 86400 seconds" in refused(lambda: pushed(run))
    assert not impatient.slept


def test_a_push_waits_until_the_window_of_requests_ends(hub, run, fault, impatient):
    fault("POST /api/repos/create", status=429, headers={"RateLimit": '"api";r=0;t=55'})
    pushed(run)
    assert impatient.slept == [55]


def test_a_hub_that_is_silent_is_given_up(hub, run, shared, fault, monkeypatch):
    monkeypatch.setattr(patience, "SILENCE", 0.1)
    monkeypatch.setattr(patience, "WAITS", (0.0,))
    fault("GET /api/models/", delay=1, times=99)
    began = time.monotonic()
    assert "cannot be reached" in refused(lambda: pull(REPO))
    with pytest.raises(PublishError, match="run the same command again"):
        publish(prepare(run, REPO))
    assert time.monotonic() - began < 20
    hub.faults.clear()


def test_a_request_has_our_limits_where_it_has_none(hub, monkeypatch):
    def limits(**asked):
        with patience.bounded():
            request = get_session().build_request("GET", hub.url, **asked)
            for hook in get_session().event_hooks["request"]:
                hook(request)
        return request.extensions["timeout"]

    parts = {"connect": 10.0, "read": 120.0, "write": 120.0, "pool": 120.0}
    assert limits() == parts
    assert limits(timeout=3.0) == dict.fromkeys(parts, 3.0)


def test_a_slow_hub_is_waited_for(shared, fault, monkeypatch):
    fault("GET /", delay=0.2, times=3)
    assert pull(REPO).verified


def test_no_address_is_told_while_it_is_tried_again_and_the_client_speaks_again_afterwards(
    hub, run, fault, capfd
):
    before = hub_logging.get_verbosity()
    fault("PUT /uploads/", status=500, times=2)
    publish(prepare(run, REPO))
    assert "http" not in capfd.readouterr().err
    assert hub_logging.get_verbosity() == before


def test_the_token_is_in_no_sentence_though_the_hub_repeats_it(hub, run, fault, monkeypatch):
    token = "hf_" + "a1B2" * 8
    monkeypatch.setenv("HF_TOKEN", token)
    fault(".", status=403, says=f"the token {token} may not", times=99)
    assert "(the token *** may not)" in refused(lambda: publish(prepare(run, REPO)))
    assert token not in refused(lambda: pull(REPO))
