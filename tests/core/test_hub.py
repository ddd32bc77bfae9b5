"""What a Hub id comes to when the Hub refuses, or cannot be reached."""

import huggingface_hub.constants
import pytest

from deliberate.core import hub as names
from deliberate.core.errors import DeliberateError

REPO = "someone/thinker"


def refused(name: str, revision: str | None = None) -> str:
    """The one sentence that an id comes to."""
    with pytest.raises(DeliberateError) as error:
        names.resolve(name, revision=revision, what="coprocessor")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "set HF_TOKEN, or run `hf auth login`"),
        (403, "/someone/else, and set HF_TOKEN, or run `hf auth login`"),
        (404, "check the id, give a folder, or set HF_TOKEN"),
        (500, "try again later"),
    ],
)
def test_an_id_that_the_hub_refuses_is_one_sentence_with_the_way_out(
    hub, impatient, status, way_out
):
    hub.refusals["GET"] = status
    told = refused("someone/else")
    assert "no coprocessor 'someone/else' from the Hub" in told
    assert way_out in told


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_file_that_the_hub_refuses_is_one_sentence(hub, status):
    hub.add(REPO, {"config.json": b"{}"})
    hub.refusals["/resolve/"] = status
    assert "no coprocessor 'someone/thinker'" in refused(REPO)


def test_a_private_repository_is_found_with_a_token_and_without_one_it_says_how(hub, monkeypatch):
    hub.add(REPO, {"config.json": b"{}"}, private=True)
    assert names.resolve(REPO, revision=None, what="coprocessor").commit
    monkeypatch.delenv("HF_TOKEN")
    hub.add("someone/other", {"config.json": b"{}"}, private=True)
    assert "it is private or does not exist" in refused("someone/other")


def test_a_gated_model_says_where_to_ask(hub):
    hub.add(REPO, {"config.json": b"{}"}).gated = True
    assert f"it is gated: ask for access at {hub.url}/{REPO}, then set HF_TOKEN" in refused(REPO)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "not there", "thinker", "hf://a", "a/b@", "a/b@../c"]
)
def test_what_is_neither_a_folder_nor_an_id_is_refused_and_nobody_is_asked(hub, name):
    refused(name)
    assert not hub.requests


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub):
    repository = hub.add(REPO, {"config.json": b"1"})
    repository.tags["v1"] = first = repository.commits[-1].sha
    repository.commit("more", added={"config.json": b"2"}, removed=set())
    for name, content in {"v1": b"1", first: b"1", "main": b"2"}.items():
        for written in (f"{REPO}@{name}", f"hf://{REPO}@{name}"):
            found = names.resolve(written, revision=None, what="coprocessor")
            assert (found.folder / "config.json").read_bytes() == content
            assert found.commit == repository.at(name).sha


def test_a_revision_that_is_not_there_is_named(hub):
    hub.add(REPO, {"config.json": b"{}"})
    assert "has no revision 'v2'" in refused(REPO, "v2")
    assert "has no revision 'v2'" in refused(f"{REPO}@v2")


def test_an_id_without_a_network_is_one_sentence(hub, impatient, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub cannot be reached: give a folder" in refused("someone/else")


def test_a_folder_of_that_name_comes_first_and_hf_means_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / REPO).mkdir(parents=True)
    assert names.resolve(REPO, revision=None, what="coprocessor").hub is None
    assert not hub.requests
    hub.add(REPO, {"config.json": b"{}"})
    assert names.resolve(f"hf://{REPO}", revision=None, what="coprocessor").commit


def test_an_id_that_is_not_here_while_nobody_may_be_asked_names_the_setting(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "'someone/else' here, and HF_HUB_OFFLINE says to ask nobody" in refused("someone/else")
    assert not hub.requests


def test_a_base_comes_with_the_template_of_its_conversations_and_any_tokenizer(hub):
    wanted = {"config.json", "chat_template.jinja", "spiece.model", "merges.txt"}
    files = dict.fromkeys(wanted | {"pytorch_model.bin", "onnx/model.json", "README.md"}, b"{}")
    hub.add(REPO, files)
    found = names.resolve(REPO, revision=None, what="base model")
    assert {path.name for path in found.folder.iterdir()} == wanted


def test_a_password_in_the_address_of_the_hub_is_in_no_sentence(hub, impatient, monkeypatch):
    address = hub.url.replace("//", "//me:pass-word@")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    hub.refusals["GET"] = 403
    told = refused("someone/else")
    assert "//***@127.0.0.1" in told
    assert "pass-word" not in told
