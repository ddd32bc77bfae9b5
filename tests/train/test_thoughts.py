"""Learning from thoughts: the loss that is added, whom it reaches, and what is refused."""

import json
import shutil

import pytest
import torch

from deliberate.core.base import load_base
from deliberate.core.errors import TextError
from deliberate.core.kinds import build
from deliberate.core.texts import validation_texts
from deliberate.train import train
from deliberate.train.data import batches, load_rows
from deliberate.train.objective import Objective, mean_square
from deliberate.train.processes import Processes

MARKER = ("objective.place=marker", "objective.markers=['?']", "objective.thought=0.5")


@pytest.fixture
def thinking(recipe, corpus):
    """A recipe whose texts have thoughts."""
    corpus.write_text("".join(f"abc <a>{'de' * (n % 4)}</a>fgh " for n in range(400)))

    def make(*changes):
        source = f"[{{path: {corpus}, thought: ['<a>', '</a>']}}]"
        return recipe(f"data.train={source}", *MARKER, "coprocessor.start=thought", *changes)

    return make


def first_batch(recipe):
    base = load_base(recipe.base.id)
    alone = Processes(device=base.device)
    rows = load_rows(recipe, base, alone)
    [batch] = batches(rows, recipe, base, step=0, share=alone)
    return base, batch


def test_anchors_are_where_thoughts_stood_and_latents_are_drawn_to_them(thinking):
    base, batch = first_batch(thinking())
    letters = base.tokenizer.convert_ids_to_tokens
    thoughts = set()
    for row, anchors, spelled in zip(batch.token_ids, batch.anchors, batch.spelled, strict=True):
        read = "".join(letters(row.tolist()))
        assert "<" not in read
        for anchor, own in zip(anchors.tolist(), spelled.tolist(), strict=True):
            assert anchor < 3 or "".join(letters(row[anchor - 3 : anchor + 1].tolist())) == "abc "
            thoughts.add("".join(letters(own)))
    assert "de" in thoughts
    assert len(thoughts) == 2  # and the last two letters of the text, where the thought is empty


def test_the_loss_is_that_of_the_tokens_ahead_and_a_share_of_the_distance(thinking):
    chosen = thinking()
    base, batch = first_batch(chosen)
    coprocessor = build(chosen.coprocessor, base)
    objective = Objective(coprocessor, base, chosen)
    whole = objective(batch.token_ids, batch.anchors, spelled=batch.spelled)
    reading = base.read(batch.token_ids)
    latents, embeds = coprocessor(reading, batch.anchors), base.embed(batch.spelled)
    ahead = coprocessor.losses(base, reading, batch.anchors, ahead=3).mean()
    size = base.embed(torch.arange(base.vocab)).square().mean()
    apart = (latents - embeds).square().mean() / size
    torch.testing.assert_close(whole, ahead + 0.5 * apart)
    torch.testing.assert_close(objective(batch.token_ids, batch.anchors), ahead)
    whole.backward()
    assert all(parameter.grad is not None for parameter in coprocessor.parameters())
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert mean_square(base) == pytest.approx(size.item())


@pytest.mark.parametrize("kind", ["soft", "pause", "continued"])
def test_kinds_that_see_no_text_or_write_no_latents_learn_without(thinking, kind):
    chosen = thinking(f"coprocessor.kind={kind}")
    base, batch = first_batch(chosen)
    objective = Objective(build(chosen.coprocessor, base), base, chosen)
    inputs = batch.token_ids, batch.anchors
    assert torch.equal(objective(*inputs, spelled=batch.spelled), objective(*inputs))


def test_latents_come_nearer_and_a_resumed_run_is_the_uninterrupted_one(thinking, tmp_path):
    changes = ["train.steps=12", "train.learning_rate=0.01", "train.checkpoint_every=6"]
    folder = train(thinking(*changes), tmp_path / "run")
    losses = [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    half = train(thinking(*changes), tmp_path / "half")
    for name in ("model.safetensors", "config.json"):
        (half / name).unlink()
    [last] = (half / "checkpoints").glob("*12*")
    shutil.rmtree(last)
    train(thinking(*changes), half, resume=True)
    assert (half / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_held_out_texts_are_read_without_thoughts(thinking):
    _, texts = validation_texts(thinking().data.train)
    assert all("<" not in text and "fgh" in text for text in texts["text"])


def test_no_thought_is_cut_where_a_single_text_is_held_out_from(thinking, corpus):
    corpus.write_text("abc fgh " * 40 + "<a>" + "de " * 200 + "</a>fgh end")
    _, texts = validation_texts(thinking().data.train)
    assert texts["text"] == ["fgh end"]


def test_held_out_texts_of_the_machine_s_own_are_read_without_thoughts():
    source = {"path": "stdlib", "thought": ('"""', '"""')}
    _, texts = validation_texts([source])
    assert all(text.count('"""') < 2 for text in texts["text"])


def test_rows_with_other_thoughts_are_other_rows(thinking, corpus):
    def fingerprint():
        base = load_base(thinking().base.id)
        return load_rows(thinking(), base, Processes(device=base.device)).fingerprint

    before = fingerprint()
    assert fingerprint() == before
    corpus.write_text(corpus.read_text().replace(">dede<", ">eded<"))
    assert fingerprint() != before


def test_made_problems_have_thoughts_when_they_are_asked_for(recipe, monkeypatch):
    monkeypatch.setattr("deliberate.core.problem_texts.TEXTS", {"train": 40, "validation": 8})
    source = "[{path: problems, thought: ['<a>', '</a>']}]"
    _, batch = first_batch(recipe(f"data.train={source}", "base.id=nano", *MARKER))
    assert batch.spelled.shape == (4, 6, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.thought=-1"], "objective.thought must be at least 0, got -1"),
        (["objective.thought=0"], "objective.thought above 0"),
        (["data.streaming=true"], "data.streaming false"),
        (["objective.place=uniform", "objective.markers=null"], "with thoughts it must be marker"),
        (
            [
                "data.question=q",
                "data.answer=a",
                "objective.place=uniform",
                "objective.markers=null",
            ],
            "thoughts go with texts",
        ),
        (["data.train=[{path: x, thought: ['<a>']}]"], "what opens and what closes"),
        (["data.train=[{path: x, thought: ['<a>', '</a>'], markers: [b]}]"], "leave one out"),
        (["data.validation=[{path: x, thought: ['<a>', '</a>']}]"], "data.validation has thought"),
    ],
)
def test_what_does_not_go_together_is_refused(thinking, changes, message):
    with pytest.raises(ValueError, match=message):
        thinking(*changes)


def test_texts_without_thoughts_are_refused_by_name(thinking, corpus):
    corpus.write_text("no thoughts here " * 99)
    with pytest.raises(TextError, match="holds one of its thoughts \\('<a>', '</a>'\\)"):
        first_batch(thinking())
