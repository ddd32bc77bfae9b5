"""Recipes and results that somebody damaged or forged are refused in one sentence."""

import json
import os
import random
from dataclasses import asdict

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import forged_text, mutate

from deliberate.core import plain_json, plain_yaml, publication
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import DeliberateError, RecipeError
from deliberate.eval import Subject
from deliberate.eval.bench import records
from deliberate.eval.results import Results
from deliberate.train import load_recipe
from deliberate.train.recipe import dump

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(PLAIN)
def test_plain_values_are_read_as_they_were_written(value):
    assert plain_json.parse(json.dumps(value)) == value
    assert plain_json.parse(json.dumps(value, ensure_ascii=False)) == value
    assert plain_yaml.parse(yaml.safe_dump(value)) == value


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_json_or_a_value_error(text):
    try:
        found = plain_json.parse(text)
    except ValueError:
        return
    assert found == json.loads(text)


@given(st.text("ab:-[]{}&*!<? \n\"'#|>", max_size=40))
def test_any_text_is_yaml_or_a_value_error(text):
    try:
        found = plain_yaml.parse(text)
    except ValueError:
        return
    assert found == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' twice"),
        ("[NaN]", "NaN"),
        ("[-1e999]", "-1e999"),
        ("[" * 65 + "]" * 65, "nested"),
        ("[" * 10**6, "nested"),
        ("1" * 5000, "digits"),
        (b"\xff", "utf-8"),
        ('"\\udc00"', "half a character"),
    ],
)
def test_json_that_readers_disagree_on_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        plain_json.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "train: !!python/object/apply:os.system ['touch owned']",
        "train: !!python/name:os.system",
        "train: !!python/object/new:type {}",
        "train: {steps: 1, steps: 2}",
        "train: {steps: 1}\ntrain: {steps: 2}",
        "[" * 100_000,
        "a: " * 100,
        "train: 2026-02-31",
        "\0",
        "- a\n- b",
        "train: [1]",
        "train: {steps: {}}",
        "? [a]\n: b",
        "<<: *x",
        "train: {steps: .nan}",
        "coprocessor: {latents: [4]}",
        "data: {train: {path: {}}}",
        "base: {id: 1}",
        "%TAG ! tag:a,2000:\n---\ntrain: !x {}",
    ],
)
def test_a_hostile_recipe_is_refused_and_does_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises((RecipeError, ValueError)) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert {each.name for each in tmp_path.iterdir()} == {"recipe.yaml"}


def test_a_recipe_that_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero"):
        with pytest.raises(RecipeError, match="not a regular file"):
            load_recipe(path)


def test_what_is_written_of_a_recipe_is_read_again(tmp_path):
    recipe = load_recipe(changes=["data.train=[a.txt, {path: b.txt, weight: 2}]"])
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def damaged(text):
    """Draws damage to a text of JSON."""

    def draw(seed):
        rng = random.Random(seed)
        if seed % 3:
            return forged_text(rng, text).encode()
        return mutate(rng, text.encode())

    return st.integers(0, 2**32).map(draw)


def test_damaged_results_are_refused_or_read(tmp_path, llama, make):
    coprocessor = make(llama, "warm").requires_grad_(requires_grad=False)
    subject = Subject(trained=Trained(coprocessor=coprocessor, id="tiny", fingerprint="f"))
    results = Results.new(llama, [subject], "deliberate eval tiny")
    results.add("problems", {"a": 1}, seconds=1.0, result={"x": {"y": [1, 2]}})
    path = tmp_path / "results.json"

    @given(damaged(json.dumps(results.to_dict())))
    @settings(max_examples=80)
    def refused_or_read(content):
        path.write_bytes(content)
        try:
            Results.read(tmp_path, like=results)
        except DeliberateError as error:
            assert "\n" not in str(error)  # noqa: PT017

    refused_or_read()


def test_damaged_records_are_refused_or_read(tmp_path):
    record = records.Record(
        id="a", question="q", target="t", base=True, latents=False,
        answers={"base": 1, "latents": 2}, scores={"base": {"acc": 1.0}, "latents": {"acc": 0.0}},
    )  # fmt: skip
    path = tmp_path / "records.jsonl"

    @given(damaged(json.dumps(asdict(record))))
    def refused_or_read(content):
        path.write_bytes(content)
        try:
            found = records.read(path)
        except DeliberateError:
            return
        for each in found:
            assert isinstance(each.base, bool)
            assert isinstance(each.id, str)

    refused_or_read()


def test_a_damaged_evaluation_is_refused_or_published(coprocessor_path, no_home):
    identity = publication.prepare(coprocessor_path, "someone/tiny", without_evaluation=True)
    [fingerprint] = [
        line.split("`")[1]
        for line in identity.card.splitlines()
        if line.startswith("- Fingerprint")
    ]
    change = {"1": {"value": -3.0, "low": -3.5, "high": -2.5}}
    report = {
        "perplexity": {"base": {"1": 10.0}, "latents": {"1": 9.7}},
        "change_percent": {"latents": change},
        "latents_against": {"soft": change},
        "anchors": 640, "passages": 20, "documents": 1, "resampled": "passage", "data": "x",
        "length": 64, "fingerprints": {"latents": fingerprint},
    }  # fmt: skip

    @given(damaged(json.dumps(report)))
    @settings(max_examples=80)
    def refused_or_published(content):
        (coprocessor_path / "eval.json").write_bytes(content)
        try:
            publication.prepare(coprocessor_path, "someone/tiny")
        except DeliberateError as error:
            assert "\n" not in str(error)  # noqa: PT017

    refused_or_published()
