"""Each domain is what measuring its rows by themselves gives."""

import json

import pytest

from deliberate.core.checkpoint import Trained
from deliberate.core.errors import TextError
from deliberate.core.pairs import PairFormat
from deliberate.eval import Sample, evaluate

ROWS = [
    {"text": "words and more words " * (1 + row % 3), "ask": "what " * 3, "kind": "ab"[row % 2]}
    for row in range(15)
]
PAIRS = PairFormat(question="ask", answer="text")


@pytest.fixture
def trained(llama, make):
    return Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")


@pytest.fixture
def written(tmp_path):
    def written(rows):
        path = tmp_path / f"{len(rows)}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return str(path)

    return written


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_a_domain_is_what_its_rows_are_by_themselves(llama, trained, written, pairs):
    given = {
        "pairs": pairs,
        "controls": ["zero"],
        "sample": Sample(length=60, ahead=4, anchors=None, seed=3),
    }
    report = evaluate(llama, trained, data=written(ROWS), domain="kind", **given).to_dict()
    assert list(report["domains"]) == ["a", "b"]  # those of most passages first
    for kind, found in report["domains"].items():
        alone = evaluate(
            llama, trained, data=written([r for r in ROWS if r["kind"] == kind]), **given
        ).to_dict()
        for key in ("anchors", "passages", "documents", "resampled"):
            assert found[key] == alone[key]
        for name, row in found["perplexity"].items():
            assert row == pytest.approx(alone["perplexity"][name], rel=2e-5)
        for name, row in found["change_percent"].items():
            for token, change in row.items():
                value = alone["change_percent"][name][token]["value"]
                assert change["value"] == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert sum(each["anchors"] for each in report["domains"].values()) == report["anchors"]
    assert "domains" not in evaluate(llama, trained, data=written(ROWS), **given).to_dict()


def test_a_number_or_nothing_is_a_domain_too_and_a_field_may_be_called_text(
    llama, trained, written
):
    rows = [{"body": row["text"], "text": None if n % 2 else 7} for n, row in enumerate(ROWS)]
    sample = Sample(length=60, ahead=4)
    data = written(rows)
    report = evaluate(llama, trained, data=data, field="body", domain="text", sample=sample)
    assert report.domains.keys() == {"None", "7"}


def test_what_is_no_domain_is_refused(llama, trained, written, tmp_path):
    sample = Sample(length=60, ahead=4)
    with pytest.raises(TextError, match="'kind' is a column of --data, and none is named"):
        evaluate(llama, trained, domain="kind", sample=sample)
    with pytest.raises(TextError, match=r"no field 'sort': it has .*ask"):
        evaluate(llama, trained, data=written(ROWS), domain="sort", sample=sample)
    with pytest.raises(TextError, match="no field 'text': it has ask, kind"):
        evaluate(llama, trained, data=written(ROWS), domain="text", sample=sample)
    with pytest.raises(TextError, match="no field 'sort'"):
        evaluate(llama, trained, data=written(ROWS), domain="sort", pairs=PAIRS, sample=sample)
    (tmp_path / "plain.txt").write_text("words and more words " * 9)
    plain = {"data": str(tmp_path / "plain.txt"), "sample": sample}
    said = r"plain.txt' is plain text, which has no field 'kind': name no field, or give JSONL"
    for named in ({"domain": "kind"}, {"field": "kind"}):
        with pytest.raises(TextError, match=said):
            evaluate(llama, trained, **plain, **named)
    many = [{"text": "words and more words", "id": str(row)} for row in range(120)]
    with pytest.raises(TextError, match=r"'id' has 120 values in .* at most 100"):
        evaluate(llama, trained, data=written(many), domain="id", sample=Sample(length=20, ahead=4))
