"""Tokens, keys and passwords are in nothing that is kept, shown or published."""

import json

import pytest
import torch

from deliberate.core import publication
from deliberate.core.checkpoint import read_config
from deliberate.core.errors import CheckpointError
from deliberate.core.redaction import command_line, values_without_secrets, without_secrets
from deliberate.core.weights_file import verify
from deliberate.eval.made import made_by
from deliberate.serve.settings import Settings

# None of them is one: only their forms are those of their makers.
SECRETS = [
    "hf_" + "a1B2" * 8,
    "sk-" + "proj-" + "a1B2" * 8,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "AKIA" + "A1B2" * 4,
    "eyJ" + "a1B2" * 4 + "." + "a1B2" * 4 + "." + "a1B2" * 4,
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:6])
@pytest.mark.parametrize("around", ["{}", "--to={}", "HF_TOKEN={} x", "https://h/?a={}&b", "'{}'"])
def test_tokens_are_known_by_their_form(secret, around):
    assert secret not in without_secrets(around.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "https://me:pass-word@host/rows.jsonl",
        "s3://pass-word@bucket",
        "--api-key=pass-word",
        "DELIBERATE_API_KEY=pass-word",
        "https://host/x?token=pass-word&y=1",
        "Authorization: Bearer pass-word",
        "password=pass-word",
        'password="pass-word and more"',
        "x.secret='pass-word;pass-word'",
        "--set address=http://host/x?token=pass-word",
        "a=password=pass-word",
    ],
)
def test_passwords_are_known_by_their_place(text):
    assert "pass-word" not in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "deliberate eval runs/mine -o out --max-tokens=40 --set data.new_tokens=3",
        "coprocessor.soft_input=last_token",
        "https://huggingface.co/someone/model@main",
        "someone@example.org",
        "hf_home sk-learn risk-free-of-any-risk",
    ],
)
def test_all_else_stays_as_it_is(text):
    assert without_secrets(text) == text


def test_the_word_after_a_secret_option_is_hidden():
    typed = ["deliberate", "serve", "--api-key", "mine", "--port", "1", "--token", "--token"]
    assert command_line(typed) == "deliberate serve --api-key '***' --port 1 --token '***'"
    typed = ["deliberate", "eval", "--every-token", "runs/mine"]
    assert command_line(typed) == "deliberate eval --every-token runs/mine"


@pytest.mark.parametrize("part", ["a", "_", "_.", "a-", "-eyJ", "a=", "x='", "bearer ", "://a"])
def test_a_long_text_takes_no_longer_than_its_length(part):
    """By the square of the length, this would take minutes."""
    assert len(without_secrets(part * 100_000)) == len(part) * 100_000


def test_plain_values_lose_their_secrets_and_nothing_else():
    value = {"a": [SECRETS[0], 1, None, {"b": "https://u:p@h"}], "c": True}
    assert values_without_secrets(value) == {
        "a": ["***", 1, None, {"b": "https://***@h"}],
        "c": True,
    }


def test_a_result_does_not_keep_a_token_that_was_typed():
    made = made_by(f"deliberate eval x --token {SECRETS[0]}", torch.device("cpu"))
    assert SECRETS[0] not in json.dumps(made)


def test_nothing_that_is_published_holds_a_secret(coprocessor_path, no_home, tmp_path):
    config = read_config(coprocessor_path)
    recipe = {"data": {"train": f"https://me:pass-word@host/{SECRETS[0]}.jsonl"}}
    config |= {"recipe": recipe}
    del config["checksum"]
    config["checksum"] = "0" * 64
    (coprocessor_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="checksum"):
        publication.prepare(coprocessor_path, "someone/tiny")
    del config["checksum"]
    (coprocessor_path / "config.json").write_text(json.dumps(config))
    (coprocessor_path / "recipe.yaml").write_text(json.dumps(recipe))
    prepared = publication.prepare(coprocessor_path, "someone/tiny", without_evaluation=True)
    for name, content in prepared.files.items():
        if name != "model.safetensors":
            assert isinstance(content, bytes)
            assert SECRETS[0].encode() not in content, name
            assert b"pass-word" not in content, name


def test_what_is_published_without_folders_still_has_its_checksum(
    coprocessor_path, no_home, tmp_path
):
    prepared = publication.prepare(coprocessor_path, "someone/tiny", without_evaluation=True)
    sent = prepared.files["config.json"]
    content = sent if isinstance(sent, bytes) else sent.read_bytes()
    assert verify(coprocessor_path, json.loads(content))


@pytest.mark.parametrize("name", ["api_key", "engine_key"])
def test_settings_do_not_show_a_key_and_take_it_in_ascii_alone(name):
    assert "mine" not in repr(Settings(**{name: "mine"}))
    with pytest.raises(ValueError, match=f"{name} must be of ASCII characters"):
        Settings(**{name: "m\xefne"})
