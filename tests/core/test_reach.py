"""Where the Hub cannot be reached, what is kept here is taken at once, and nobody speaks of it."""

import datasets.config
import huggingface_hub.constants
import pytest
from huggingface_hub import constants

from deliberate.core.errors import TextError
from deliberate.core.reach import hub_or_cache
from deliberate.core.texts import documents


@pytest.fixture
def unreachable(hub, monkeypatch):
    """The Hub is at an address where nobody listens."""
    for module, name in ((huggingface_hub.constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(module, name, "http://127.0.0.1:9")


def test_a_dataset_that_is_not_here_is_one_sentence_without_a_wait(unreachable, impatient, capfd):
    with pytest.raises(TextError, match="no texts at 'someone/texts' here, and the Hub cannot be"):
        documents("someone/texts")
    assert not impatient.slept
    assert not capfd.readouterr().err


def test_nobody_may_be_asked_while_the_hub_cannot_be_reached_and_no_longer(unreachable):
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_asked_whatever_it_answers(hub):
    hub.refusals["."] = 500
    with hub_or_cache():
        assert not constants.HF_HUB_OFFLINE
    assert hub.requests == ["HEAD /"]


def test_who_wants_nobody_to_be_asked_is_heeded(hub, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert not hub.requests
