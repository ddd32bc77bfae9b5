"""Latents asked for again every few tokens: one pass measures what decoding through caches does."""

from functools import partial

import pytest
import torch

from deliberate.core.augment import augment, extend, has_room, prefill, without_latents
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError, TextError
from deliberate.core.measure import Condition, measure, measure_late
from deliberate.core.passages import Passage
from deliberate.core.problems import Problem
from deliberate.core.verdict import columns, verdict
from deliberate.eval import Sample, evaluate
from deliberate.eval.solve import solve

AHEAD = 5


@pytest.fixture
def base(unlike_base):
    return unlike_base


def decoded_losses(base, writer, token_ids, anchor, *, ahead, every):
    """Loss by token of a text that `generate` would have decoded, a token at a time."""
    (cache,) = prefill(base, [torch.tensor(token_ids[: anchor + 1])])
    losses = []
    for step in range(ahead):
        if step % every == 0:
            cache = without_latents(base, cache) if step else cache
            if writer is not None and has_room(base, writer, len(cache.token_ids)):
                (cache,) = augment(base, writer, [cache])
        true = token_ids[anchor + 1 + step]
        losses.append(-base.logits(cache.tip[None]).log_softmax(-1)[0, true])
        cache = extend(base, cache, torch.tensor([true]))
    return torch.stack(losses)


def test_asking_again_is_measured_as_decoding_through_caches_does(base, start, make):
    writer = make(base, start)
    texts = [list(range(2, 30)), [2 + (7 * n) % 61 for n in range(base.positions)]]
    # The second has no room for a token more: its group ends with the base's positions.
    anchors = [4, base.positions - 1 - writer.config.latents - AHEAD]
    chosen = [
        Passage(document=row, token_ids=text[: anchor + 1 + AHEAD], anchor=anchor)
        for row, (text, anchor) in enumerate(zip(texts, anchors, strict=True))
    ]
    conditions = {str(every): Condition(writer=writer, every=every) for every in (1, 3)}
    losses = measure(base, conditions, chosen, anchors=1, ahead=AHEAD)
    for name, sums in losses.sums.items():
        every = AHEAD if name == "base" else int(name)
        asked = None if name == "base" else writer
        for document, found in zip(losses.documents.tolist(), sums, strict=True):
            text, anchor = chosen[document].token_ids, chosen[document].anchor
            slow = decoded_losses(base, asked, text, anchor, ahead=AHEAD, every=every)
            torch.testing.assert_close(found.float(), slow, atol=2e-4, rtol=2e-4)


def test_wherever_there_is_an_anchor_there_is_room_to_ask_again(llama, start, make):
    writer, asked = make(llama, start), []
    chosen = [Passage(document=0, token_ids=[2 + n % 60 for n in range(llama.positions)])]
    writer.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1]))
    conditions = {"again": Condition(writer=writer, every=2)}
    measure(llama, conditions, chosen, anchors=None, ahead=AHEAD)
    last = max(int(anchors.max()) for anchors in asked)
    assert last == llama.positions - 1 - writer.config.latents - AHEAD + 4
    assert has_room(llama, writer, last + 1)


def test_until_they_are_asked_for_again_latents_are_the_same_to_the_bit(llama, start, make):
    writer = make(llama, start)
    conditions = {
        "latents": Condition(writer=writer),
        "again": Condition(writer=writer, every=3),
        "never": Condition(writer=writer, every=AHEAD),
        "zero": Condition(writer=writer, change=lambda z, _: 0 * z, every=3),
    }
    chosen = [Passage(document=row, token_ids=list(range(2, 40 + row))) for row in range(3)]
    sums = measure(llama, conditions, chosen, anchors=6, ahead=AHEAD).sums
    assert torch.equal(sums["never"], sums["latents"])
    assert torch.equal(sums["again"][:, :3], sums["latents"][:, :3])
    assert not torch.isclose(sums["again"][:, 3:], sums["latents"][:, 3:]).any()
    # A change of the latents is one of all that are written.
    assert not torch.isclose(sums["zero"][:, 3:], sums["again"][:, 3:]).any()


def test_the_report_sets_asking_again_beside_asking_once(llama, make, tmp_path):
    for index in range(6):
        (tmp_path / f"{index}.txt").write_text("some words of a text " * 4)
    trained = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    measured = partial(evaluate, llama, trained, data=str(tmp_path), controls=())
    sample = Sample(length=40, ahead=8, anchors=5)
    report = measured(every=(2, 4), sample=sample).to_dict()
    assert columns(report) == {
        "latents": "latents",
        "every:2": "latents again every 2 tokens",
        "every:4": "latents again every 4 tokens",
    }
    against = report["latents_against"]["every:4"]
    assert [against["4"][key] for key in ("value", "low", "high")] == [0, 0, 0]
    assert against["8"]["low"] < against["8"]["high"]
    assert "Against latents again every 4 tokens: " in verdict(report)
    alone = measured(sample=sample).to_dict()
    assert alone["change_percent"]["latents"] == report["change_percent"]["latents"]


def test_late_latents_are_not_asked_for_again(llama, make):
    writer = make(llama, "warm")
    conditions = {"once": Condition(writer=writer), "again": Condition(writer=writer, every=2)}
    chosen = [Passage(document=number, token_ids=list(range(2, 30))) for number in range(2)]
    both = measure_late(llama, conditions, chosen, delays=[0, 1], anchors=2, ahead=4)
    assert both[0].sums.keys() == {"base", "once", "again"}
    assert both[1].sums.keys() == {"base", "once"}


def test_asking_again_where_it_means_nothing_is_refused(llama, make):
    writer = make(llama, "warm")
    continued = Trained(coprocessor=make(llama, "warm", kind="continued"), id="on", fingerprint="f")
    with pytest.raises(
        CheckpointError, match=r"'every:2' asks for latents .*'continued' writes no"
    ):
        evaluate(llama, continued, every=(2,))
    asked = [Problem(family="words", steps=1, question=each, work=(), answer="12") for each in "ab"]
    conditions = {"every:4": Condition(writer=writer, every=4)}
    with pytest.raises(
        TextError, match="after 4 tokens, and the longest answer has 4 with its end"
    ):
        solve(llama, conditions, asked)
