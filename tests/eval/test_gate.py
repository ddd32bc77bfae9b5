"""What a gate keeps is what a plain count says, and is checked on other texts than it is of."""

import json

import numpy as np
import pytest

from deliberate.core.checkpoint import Trained
from deliberate.core.gate import asks
from deliberate.core.passages import Passage
from deliberate.eval import Sample, evaluate
from deliberate.eval.gate import Gains, GainsObserved, Gate, curve, halves, is_gain, keeping

RANDOM = np.random.default_rng(0)


def gains_of(gain, entropy, documents, passages=None):
    gain = np.asarray(gain, dtype=np.float32)
    return Gains(
        entropy=np.asarray(entropy, dtype=np.float32),
        gains={"1": gain, "all": gain / 2},
        passages=np.asarray(documents if passages is None else passages),
        documents=np.asarray(documents),
    )


def made(texts=40, anchors=30, *, helpful=1.0, seed=0):
    """Gains that grow with the entropy, and differ from text to text."""
    random = np.random.default_rng(seed)
    documents = np.repeat(np.arange(texts), anchors)
    entropy = random.gamma(2, 1, size=len(documents))
    own = random.normal(0, 0.1, size=texts)[documents]
    gain = helpful * 0.1 * entropy + own + random.normal(0, 0.2, size=len(documents))
    return gains_of(gain, entropy, documents)


def test_a_curve_is_what_is_counted_anchor_by_anchor():
    entropy = RANDOM.gamma(2, 1, size=300).round(1)  # some are equal
    gain = RANDOM.normal(0.3, 1, size=300)
    points = curve(entropy, gain)
    assert 2 < len(points) <= 41
    for point in points:
        asked = [asks(each, point["threshold"]) for each in entropy.tolist()]
        kept = sum(one for one, yes in zip(gain.tolist(), asked, strict=True) if yes)
        assert point["calls_percent"] == pytest.approx(100 * sum(asked) / 300)
        assert point["gain_percent"] == pytest.approx(100 * kept / sum(gain.tolist()))
    calls = [point["calls_percent"] for point in points]
    assert calls == sorted(calls, reverse=True)


def test_all_calls_keep_all_of_the_gain_and_none_keep_none_of_it():
    for points in (curve(made().entropy, made().gains["1"].astype(float)), curve(*np.ones((2, 9)))):
        first, last = points[0], points[-1]
        assert (first["calls_percent"], first["gain_percent"]) == (100, 100)
        assert (last["calls_percent"], last["gain_percent"]) == (0, 0)
        assert json.loads(json.dumps(points, allow_nan=False)) == points


def test_chance_keeps_as_much_as_it_asks():
    random = np.random.default_rng(3)
    for point in curve(random.gamma(2, 1, size=200_000), random.normal(0.5, 1, size=200_000)):
        assert point["gain_percent"] == pytest.approx(point["calls_percent"], abs=2)


def test_where_there_is_no_gain_there_is_no_share_of_it():
    assert curve(np.array([1.0, 2.0]), np.array([-1.0, 0.5])) == []
    assert keeping(np.array([1.0, 2.0]), np.array([-1.0, 0.5]), percent=90) is None


def test_the_threshold_is_that_of_the_fewest_calls_that_keep_enough():
    for _ in range(50):
        entropy = RANDOM.gamma(2, 1, size=40).round(1)
        gain = RANDOM.normal(0.5, 1, size=40)
        if gain.sum() <= 0:
            continue
        enough = [
            threshold
            for threshold in sorted({*entropy.tolist()})
            if gain[entropy >= threshold].sum() >= 0.9 * gain.sum()
        ]
        assert keeping(entropy, gain, percent=90) == enough[-1]


def test_halves_have_no_document_in_common_and_all_anchors_between_them():
    whole = made(texts=21)
    first, second = halves(whole, seed=4)
    assert not {*first.documents} & {*second.documents}
    assert (len({*first.documents}), len({*second.documents})) == (10, 11)
    assert len(first.entropy) + len(second.entropy) == len(whole.entropy)
    assert {*halves(whole, seed=5)[0].documents} != {*first.documents}
    single = gains_of(np.ones(40), np.ones(40), np.zeros(40), np.repeat(np.arange(8), 5))
    first, second = halves(single, seed=4)
    assert not {*first.passages} & {*second.passages}


def test_what_is_kept_is_checked_on_the_other_half_alone():
    whole = made()
    found = Gate(gains=whole, seed=7).to_dict()["tokens"]
    for name in ("1", "all"):
        kept = found[name]["kept"]
        first, second = halves(whole, seed=7)
        chosen = keeping(first.entropy, first.gains[name].astype(float), percent=90)
        assert kept["threshold"] == chosen
        asked = second.entropy >= chosen
        gain = second.gains[name].astype(float)
        assert kept["calls_percent"]["value"] == pytest.approx(100 * asked.mean())
        share = 100 * gain[asked].sum() / gain.sum()
        assert kept["gain_percent"]["value"] == pytest.approx(share)
        for interval in (kept["calls_percent"], kept["gain_percent"]):
            assert interval["low"] < interval["value"] < interval["high"]
        assert (kept["chosen_on"], kept["checked_on"], kept["share_percent"]) == (20, 20, 90)
        assert found[name]["gain_nats"] == pytest.approx(whole.gains[name].mean(), rel=1e-5)


def test_of_two_documents_one_is_chosen_on_and_its_passages_are_resampled():
    texts = made(texts=60)
    two = gains_of(texts.gains["1"], texts.entropy, texts.documents % 2, texts.documents)
    kept = Gate(gains=two, seed=0).to_dict()["tokens"]["1"]["kept"]
    assert (kept["chosen_on"], kept["checked_on"]) == (1, 1)


def test_nothing_is_kept_where_the_half_that_checks_has_no_clear_gain_of_its_own():
    texts, anchors, seed = 60, 10, 7
    documents = np.repeat(np.arange(texts), anchors)
    entropy = np.random.default_rng(1).gamma(2, 1, size=len(documents))
    first, second = halves(gains_of(np.ones(len(entropy)), entropy, documents), seed=seed)
    large = np.isin(documents, np.unique(first.documents))
    few = documents == second.documents[0]  # in sum a gain, and that of one document alone
    gain = np.where(large, 1.0, np.where(few, 1.0, -0.03))
    whole = gains_of(gain, entropy, documents)
    assert is_gain(whole.gains["1"], documents, seed=seed)
    assert halves(whole, seed=seed)[1].gains["1"].sum() > 0
    found = Gate(gains=whole, seed=seed).to_dict()["tokens"]
    assert [found[name]["kept"] for name in ("1", "all")] == [None, None]


@pytest.mark.parametrize("whole", [made(helpful=0), made(helpful=-1), made(texts=8)])
def test_nothing_is_kept_of_what_is_no_gain_or_of_too_few_texts(whole):
    found = Gate(gains=whole, seed=0).to_dict()["tokens"]
    assert [found[name]["kept"] for name in ("1", "all")] == [None, None]


@pytest.mark.parametrize(
    ("kind", "delays"), [("full", (0,)), ("lora", (2, 0)), ("continued", (0,))]
)
def test_the_report_has_the_gate_of_its_first_delay(fresh, make, tmp_path, kind, delays):
    for index in range(4):
        (tmp_path / f"{index}.txt").write_text("some words of a text " * (3 + index))
    llama = fresh()
    writer = Trained(coprocessor=make(llama, "warm", kind=kind), id="tiny", fingerprint="f")
    sample = Sample(length=40, ahead=8, anchors=None, delays=delays)
    report = evaluate(llama, writer, data=str(tmp_path), sample=sample)
    result = report.to_dict()
    if kind == "continued":
        assert result["gate"] is None
        return
    gate = json.loads(json.dumps(result["gate"], allow_nan=False))
    assert (gate["signal"], gate["unit"]) == ("entropy", "nats")
    assert gate["tokens"].keys() == {"1", "all"}
    sums, counts = report.losses.sums, report.losses.counts
    gain = (sums["base"] - sums["latents"]).sum(0) / counts.sum(0)
    assert gate["tokens"]["1"]["gain_nats"] == pytest.approx(float(gain[0]), rel=1e-4)
    assert gate["tokens"]["all"]["gain_nats"] == pytest.approx(float(gain.mean()), rel=1e-4)
    assert len(report.gate.gains.entropy) == result["anchors"]


def test_an_anchor_s_mean_is_of_the_tokens_that_it_has(llama):
    import torch

    from deliberate.core.measure import Observed

    observed = Observed(
        losses={
            "base": torch.tensor([[[3.0, 4.0, 9.0], [5.0, 1.0, 1.0]]]),
            "latents": torch.tensor([[[1.0, 1.0, 1.0], [6.0, 1.0, 1.0]]]),
        },
        counted=torch.tensor([[[True, True, False], [False, False, False]]]),
        anchors=torch.tensor([[4, 4]]),
        entropy=torch.tensor([[2.0, 1.0]]),
        passages=[0],
    )
    gains = GainsObserved("latents", [Passage(document=3, token_ids=[1, 2])])
    gains(observed)
    assert gains.found.gains["1"].tolist() == [2.0]
    assert gains.found.gains["all"].tolist() == [2.5]
    assert (gains.found.entropy.tolist(), gains.found.documents.tolist()) == ([2.0], [3])
