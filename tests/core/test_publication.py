"""What would be published is gathered and checked here, and nobody is contacted."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.core.local_paths import without_folders
from deliberate.core.publication import PublishError, prepare

REPO = "someone/thinker"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/someone/x.txt", "x.txt"),
        ("~/x/", "x"),
        ("../x.txt", "x.txt"),
        ("C:\\me\\x.txt", "x.txt"),
        ("file:///home/me/x.txt", "x.txt"),
        ("user/repo", "user/repo"),
        ("stdlib (held out)", "stdlib (held out)"),
        ("stdlib, /home/me/x.txt, ~/y.txt, a/b (held out)", "stdlib, x.txt, y.txt, a/b (held out)"),
        ([{"a": "/b/c"}, 1.5, None], [{"a": "c"}, 1.5, None]),
    ],
)
def test_a_local_path_is_cut_to_its_last_part_and_all_else_kept(value, shown):
    assert without_folders(value) == shown


def test_a_recipe_that_cannot_be_read_is_refused(run):
    (run / "recipe.yaml").write_text("data: [")
    with pytest.raises(PublishError, match="mend it, or remove it"):
        prepare(run, REPO)


def test_preparing_contacts_nobody(hub, run):
    prepare(run, REPO, private=True)
    assert not hub.requests


def test_a_run_that_was_not_evaluated_is_refused_unless_that_is_said(hub, run):
    (run / "eval.json").unlink()
    with pytest.raises(PublishError, match=r"`deliberate eval .*/run` first, or add --without-ev"):
        prepare(run, REPO)
    assert "It was not evaluated" in prepare(run, REPO, without_evaluation=True).card
    assert not hub.requests


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"revision": "a" * 40}, "is a commit"),
        ({"revision": "../x"}, "cannot be a revision"),
        ({"tag": "a b"}, "cannot be a revision"),
        ({"tag": "v1", "create_pr": True}, "leave out --tag or --create-pr"),
        ({"licence": "Apache 2"}, "no licence as the Hub names them"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nobody_is_asked(hub, run, named, sentence):
    with pytest.raises(DeliberateError, match=sentence):
        prepare(run, REPO, **named)
    assert not hub.requests


@pytest.mark.parametrize("repo", ["thinker", "a/b/c", "a b/c", "", "/c", "a/", "a/b..c", "a/../b"])
def test_a_name_that_is_no_repository_id_is_refused(run, repo):
    with pytest.raises(PublishError, match="give 'user/repo'"):
        prepare(run, repo)


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(PublishError, match="no run folder at 'nowhere/at-all'"):
        prepare("nowhere/at-all", REPO)
    with pytest.raises(CheckpointError, match="is not a coprocessor"):
        prepare(tmp_path, REPO)


def test_damaged_weights_are_refused(run):
    weights = run / "model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, weights)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        prepare(run, REPO)
    weights.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="cannot read"):
        prepare(run, REPO)


@pytest.mark.parametrize(
    "changes",
    [
        {"perplexity": {"base": {"1": "high"}}},
        {"change_percent": {}},
        {"change_percent": []},
        {"fingerprints": []},
    ],
)
def test_an_evaluation_that_lacks_its_numbers_is_refused(run, report, changes):
    (run / "eval.json").write_text(json.dumps(report(run, **changes)))
    with pytest.raises(DeliberateError, match=r"run `deliberate eval.*` again, or remove it"):
        prepare(run, REPO)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_evaluation_that_cannot_be_read_is_refused(run, content):
    (run / "eval.json").write_text(content)
    with pytest.raises(DeliberateError, match=r"run `deliberate eval.*` again, or remove it"):
        prepare(run, REPO)


def test_an_evaluation_of_other_weights_is_refused(run, report):
    (run / "eval.json").write_text(json.dumps(report(run, fingerprints={"latents": "0" * 16})))
    with pytest.raises(DeliberateError, match="measured other weights"):
        prepare(run, REPO)
