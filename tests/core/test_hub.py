"""What a Hub id comes to when the Hub refuses, or cannot be reached."""

import huggingface_hub.constants
import pytest

from deliberate.core import hub as names
from deliberate.core.errors import DeliberateError

REPO = "someone/thinker"


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_an_id_that_the_hub_refuses_is_one_sentence(hub, status):
    hub.refusals["GET"] = status
    with pytest.raises(
        DeliberateError, match=r"no coprocessor 'someone/else' from the Hub"
    ) as error:
        names.resolve("someone/else", revision=None, what="coprocessor")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_file_that_the_hub_refuses_is_one_sentence(hub, status):
    hub.add(REPO, {"config.json": b"{}"})
    hub.refusals["/resolve/"] = status
    with pytest.raises(DeliberateError, match=r"no coprocessor 'someone/thinker'") as error:
        names.resolve(REPO, revision=None, what="coprocessor")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "not there"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(hub, name):
    with pytest.raises(DeliberateError, match="neither a folder nor a Hub id"):
        names.resolve(name, revision=None, what="coprocessor")
    assert not hub.requests


def test_a_revision_that_is_not_there_is_named(hub):
    hub.add(REPO, {"config.json": b"{}"})
    with pytest.raises(DeliberateError, match="has no revision 'v2'"):
        names.resolve(REPO, revision="v2", what="coprocessor")


def test_an_id_without_a_network_is_one_sentence(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DeliberateError, match="the Hub cannot be reached: give a folder") as error:
        names.resolve("someone/else", revision=None, what="coprocessor")
    assert "\n" not in str(error.value)
