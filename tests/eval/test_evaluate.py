"""Perplexity by token ahead, its controls and its intervals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.augment import tokenize
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError, DeliberateError, TextError
from deliberate.core.measure import Condition, Losses, measure
from deliberate.core.passages import Passage, passages
from deliberate.core.texts import documents
from deliberate.core.verdict import columns, verdict
from deliberate.eval import Sample, evaluate
from deliberate.eval.bootstrap import changes, resampled_unit
from deliberate.eval.controls import shuffled, shuffled_but_last
from deliberate.eval.table import Table


def trained(coprocessor):
    return Trained(coprocessor=coprocessor.requires_grad_(False), id="tiny", fingerprint="f")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(6):
        letters = generator.choice(list("abcdefgh .\n"), size=90 + 20 * index)
        (folder / f"{index}.txt").write_text("".join(letters))
    return folder


@pytest.mark.parametrize(
    ("kind", "controls"),
    [
        ("hidden", {"shuffled", "shuffled_but_last"}),
        ("pause", {"shuffled", "shuffled_but_last"}),
        ("continued", set()),
    ],
)
def test_any_kind_is_measured_and_what_writes_no_latents_has_no_controls(
    llama, make, corpus, kind, controls
):
    report = evaluate(
        llama,
        trained(make(llama, "warm", kind=kind)),
        data=str(corpus),
        sample=Sample(length=40, ahead=8, anchors=5),
    ).to_dict()
    assert report["change_percent"].keys() == {"latents"} | controls
    assert report["change_percent"]["latents"]["1"]["value"] != 0


def test_a_pause_token_is_a_baseline_too(llama, make, corpus):
    few = {"data": str(corpus), "sample": Sample(length=40, ahead=8, anchors=5)}
    writer = trained(make(llama, "warm"))
    pause = trained(make(llama, "warm", kind="pause"))
    report = evaluate(llama, writer, soft=pause, **few).to_dict()
    assert columns(report)["soft"] == "pause token"
    alone = evaluate(llama, pause, **few).to_dict()
    assert report["change_percent"]["soft"] == alone["change_percent"]["latents"]


def test_the_base_trained_on_is_not_said_to_have_latents(llama, make, corpus):
    few = {"data": str(corpus), "sample": Sample(length=40, ahead=8, anchors=5)}
    continued = trained(make(llama, "warm", kind="continued"))
    soft = trained(make(llama, "warm", kind="soft", latents=2))
    report = evaluate(llama, continued, soft=soft, **few).to_dict()
    assert columns(report) == {"latents": "kind continued", "soft": "soft embedding"}
    assert "latents" not in verdict({**report, "documents": 10})


def test_the_report_has_every_key_that_is_promised(llama, make, corpus):
    soft = trained(make(llama, "warm", kind="soft"))
    report = evaluate(
        llama,
        trained(make(llama, "warm")),
        soft=soft,
        data=str(corpus),
        sample=Sample(length=40, ahead=8, anchors=5),
    ).to_dict()
    names = {"latents", "shuffled", "shuffled_but_last", "soft"}
    tokens = {"1", "2", "4", "8"}
    assert report["perplexity"].keys() == names | {"base"}
    assert report["change_percent"].keys() == names
    for name in names:
        assert report["perplexity"][name].keys() == tokens
        for token, change in report["change_percent"][name].items():
            ratio = report["perplexity"][name][token] / report["perplexity"]["base"][token]
            assert change["value"] == pytest.approx(100 * (ratio - 1), rel=1e-6)
            assert change["low"] <= change["value"] <= change["high"]
    assert report["parameters"]["soft"] == 3 * 16
    assert report["fingerprints"]["base"] == "llama"
    assert report["setting"]["latents"] == 3
    assert report["soft_setting"]["kind"] == "soft"


def test_measured_losses_are_those_of_the_text_at_each_anchor(base, start, make):
    coprocessor = make(base, start)
    chosen = [
        Passage(document=0, token_ids=list(range(2, 22))),
        Passage(document=1, token_ids=list(range(40, 50))),
        Passage(document=1, token_ids=list(range(5, 30))),
    ]
    losses = measure(
        base, {"latents": Condition(writer=coprocessor)}, chosen, anchors=10**12, ahead=4, batch=2
    )
    # With more anchors than places every place is an anchor, so the sums can be made by hand.
    order = sorted(range(3), key=lambda i: -len(chosen[i].token_ids))
    for row, index in enumerate(order):
        token_ids = torch.tensor([chosen[index].token_ids])
        anchors = torch.arange(token_ids.shape[1] - 4)[None]
        assert int(losses.anchors[row]) == anchors.shape[1]
        assert int(losses.documents[row]) == chosen[index].document
        with torch.no_grad():
            reading = base.read(token_ids)
            by_hand = ahead_losses(
                base,
                reading,
                anchors,
                coprocessor(reading, anchors),
                ahead=4,
                positions=coprocessor.config.positions,
            )
            logits = base.model(input_ids=token_ids).logits[0, :-1]
            plain = torch.nn.functional.cross_entropy(logits, token_ids[0, 1:], reduction="none")
        expected = by_hand[0].sum(0).double()
        torch.testing.assert_close(losses.sums["latents"][row], expected, atol=1e-3, rtol=1e-5)
        own = plain.unfold(0, 4, 1).sum(0).double()
        torch.testing.assert_close(losses.sums["base"][row], own, atol=1e-3, rtol=1e-5)


def test_another_text_s_latents_are_the_partner_s():
    latents, partners = torch.arange(36.0).view(3, 2, 3, 2), torch.tensor([2, 0, 0])
    assert torch.equal(shuffled(latents, partners), latents[[2, 0, 0]])
    mixed = shuffled_but_last(latents, partners)
    assert torch.equal(mixed[:, :, :2], latents[[2, 0, 0]][:, :, :2])
    assert torch.equal(mixed[:, :, 2], latents[:, :, 2])


def partners_of(base, coprocessor, documents):
    """What a condition is told, and what is noted of it, one batch of passages of one length."""
    seen = []

    def change(latents, partners):
        seen.append(partners.tolist())
        return latents

    chosen = [Passage(document=number, token_ids=list(range(2, 22))) for number in documents]
    losses = measure(
        base, {"any": Condition(writer=coprocessor, change=change)}, chosen, anchors=2, ahead=4
    )
    return seen[0], losses.partners.tolist()


def test_a_partner_is_of_another_document_where_there_is_one(llama, make):
    coprocessor = make(llama, "warm")
    rows, noted = partners_of(llama, coprocessor, [0, 0, 0, 5, 0])
    assert rows == [3, 3, 3, 4, 3]
    assert noted == [5, 5, 5, 0, 5]
    assert partners_of(llama, coprocessor, [7, 7, 7]) == ([1, 2, 0], [7, 7, 7])
    assert partners_of(llama, coprocessor, [7]) == ([0], [7])


def test_the_report_says_whether_latents_were_another_document_s(llama, make, corpus, tmp_path):
    few = {"sample": Sample(length=20, ahead=4, anchors=2, texts=8)}
    whole = evaluate(llama, trained(make(llama, "warm")), data=str(corpus), **few)
    assert whole.shuffled_from == whole.to_dict()["shuffled_from"] == "document"
    (tmp_path / "one.txt").write_text("abcdefgh " * 20)
    one = evaluate(llama, trained(make(llama, "warm")), data=str(tmp_path / "one.txt"), **few)
    assert one.shuffled_from == "passage"


def test_the_seed_reaches_the_resampling_and_changes_are_made_once(
    llama, make, corpus, monkeypatch
):
    asked = []

    def counted(losses, name, *, against, seed):
        asked.append((name, against, seed))
        return changes(losses, name, against=against, seed=seed)

    monkeypatch.setattr("deliberate.eval.table.changes", counted)
    sample = Sample(length=20, ahead=4, anchors=2, texts=8, seed=5)
    report = evaluate(llama, trained(make(llama, "warm")), data=str(corpus), sample=sample)
    assert report.to_dict() == report.to_dict()
    names = ("shuffled", "shuffled_but_last")
    pairs = [("latents", "base"), *((name, "base") for name in names)]
    pairs += [("latents", name) for name in names]
    assert asked == [(*pair, 5) for pair in pairs]


@pytest.mark.parametrize(("kind", "latents"), [("full", 3), ("soft", 2), ("pause", 2)])
def test_a_baseline_does_not_depend_on_the_text_and_has_as_many_latents(
    llama, make, corpus, kind, latents
):
    soft = trained(make(llama, "warm", kind=kind, latents=latents))
    with pytest.raises(CheckpointError, match=f"'{kind}' with {latents} .* soft or pause with 3"):
        evaluate(llama, trained(make(llama, "warm")), soft=soft, data=str(corpus))


def losses_of(difference, documents=None):
    passages, base = len(difference), torch.full((len(difference), 1), 20.0, dtype=torch.double)
    return Losses(
        sums={"base": base, "latents": base + torch.tensor(difference)[:, None].double()},
        counts=torch.full((passages, 1), 10),
        documents=torch.tensor(documents) if documents else torch.arange(passages),
        partners=torch.arange(passages),
    )


def test_the_interval_covers_a_known_change_about_as_often_as_it_says():
    generator, hits = np.random.default_rng(1), 0
    for seed in range(200):
        drawn = generator.normal(-0.2, 0.5, size=60)
        [change] = changes(losses_of(drawn), "latents", seed=seed)
        hits += change.low <= 100 * math.expm1(-0.02) <= change.high
    assert 0.90 <= hits / 200 <= 0.99


def test_no_difference_has_no_width():
    [change] = changes(losses_of([0.0] * 30), "latents")
    assert (change.value, change.low, change.high) == (0, 0, 0)


def test_documents_are_resampled_whole_where_there_are_enough():
    generator = np.random.default_rng(2)
    shared = np.repeat(generator.normal(0, 1, size=20), 50)
    many = losses_of(shared, documents=np.repeat(np.arange(20), 50).tolist())
    alone = losses_of(shared)
    assert resampled_unit(many) == "document"
    width = [c.high - c.low for c in (changes(many, "latents")[0], changes(alone, "latents")[0])]
    assert width[0] > 4 * width[1]
    assert resampled_unit(losses_of([0.1, 0.2])) == "passage"


def test_passages_never_cross_documents(llama, corpus):
    texts = documents(str(corpus))
    for passage in passages(texts, llama.tokenizer, length=30, least=10, limit=1000):
        text = llama.tokenizer.decode(passage.token_ids)
        assert 10 <= len(passage.token_ids) <= 30
        assert text.replace(" ", "") in texts["text"][passage.document].replace(" ", "")


@pytest.fixture
def starting(save_base):
    """A tokenizer that begins each text with a start token, as Llama's and Gemma's do."""
    tokenizer = AutoTokenizer.from_pretrained(save_base("llama"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<end> $A", pair="<end> $A $B", special_tokens=[("<end>", 0)]
    )
    return tokenizer


def test_each_passage_begins_with_the_start_token_where_a_text_does(llama, starting, corpus):
    texts = documents(str(corpus))
    cut = {"length": 30, "least": 10, "limit": 1000}
    letters = [0] * len(texts)
    for passage in passages(texts, starting, **cut):
        prefilled = tokenize(replace(llama, tokenizer=starting), "a")
        assert passage.token_ids[0] == prefilled[0] == starting.bos_token_id
        assert starting.bos_token_id not in passage.token_ids[1:]
        assert 10 <= len(passage.token_ids) <= 30
        letters[passage.document] += len(passage.token_ids) - 1
    for text, counted in zip(texts["text"], letters, strict=True):
        assert len(text) - counted < 9  # only a remainder that is too short is left out
    plain = passages(texts, llama.tokenizer, **cut)
    assert starting.bos_token_id not in {passage.token_ids[0] for passage in plain}


def test_a_short_text_is_cut_shorter_unless_a_length_is_asked_for(llama, make, tmp_path):
    (tmp_path / "one.txt").write_text("abcdefgh " * 40)

    def measured(**sample):
        few = Sample(ahead=4, anchors=2, **sample)
        data = str(tmp_path / "one.txt")
        return evaluate(llama, trained(make(llama, "warm")), data=data, sample=few).drawn

    halved = measured()
    assert (halved.length_wanted, halved.length, len(halved.passages)) == (64, 16, 23)
    assert measured(length=60).length == 60
    assert measured(texts=3).length == 64


def test_texts_too_short_are_refused_with_the_way_out(llama, make, tmp_path):
    coprocessor = trained(make(llama, "warm"))
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(TextError, match=r"34 to 40 tokens: give longer texts, .*--ahead"):
        evaluate(llama, coprocessor, data=str(tmp_path / "short.txt"), sample=Sample(length=40))
    (tmp_path / "one.txt").write_text("abcdefgh " * 4)
    one = {"data": str(tmp_path / "one.txt"), "sample": Sample(length=60, ahead=4)}
    with pytest.raises(
        TextError, match=r"one passage of at most 60 .* need 2: give more text, .* --against none"
    ):
        evaluate(llama, coprocessor, **one)
    alone = evaluate(llama, coprocessor, controls=[], **one)
    assert alone.to_dict()["passages"] == 1
    with pytest.raises(DeliberateError, match=r"64 positions, too few .* smaller --ahead"):
        evaluate(llama, coprocessor, data=str(tmp_path / "one.txt"), sample=Sample(ahead=61))


def test_tables_show_tokens_as_far_as_is_measured():
    def shown(ahead):
        none = torch.zeros(1, dtype=torch.long)
        counts = torch.ones(1, ahead, dtype=torch.long)
        losses = Losses(sums={}, counts=counts, documents=none, partners=none)
        return Table(losses=losses, seed=0).tokens

    assert shown(64) == [1, 2, 4, 8, 16, 32, 64]
    assert shown(63) == shown(32) == [1, 2, 4, 8, 16, 32]
    assert shown(3) == [1, 2]
