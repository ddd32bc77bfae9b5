"""Questions and answers: read, tokenized with an exact boundary, and measured there."""

import json
import math
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from deliberate.core.base import load_base
from deliberate.core.errors import TextError
from deliberate.core.measure import Condition, measure
from deliberate.core.pairs import (
    PairFormat,
    Room,
    fitting,
    hold_out_pairs,
    pair_passages,
    read_pairs,
    tokenize_pairs,
)

FORM = PairFormat(question="q", answer="a", template="Q {question} A", separator=" ")
ROWS = [("one", "two three"), ("what is it", "x"), ("abc", "a longer answer"), ("d", "e.")]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "pairs.jsonl", [{"q": q, "a": a, "n": 1} for q, a in ROWS])


def tokenized(llama, source, form=FORM):
    return tokenize_pairs(read_pairs(source, form), llama.tokenizer, form)


def test_the_boundary_is_where_the_question_ends(llama, source):
    rows = tokenized(llama, source)
    for (question, answer), ids, anchor in zip(
        ROWS, rows["token_ids"], rows["anchor"], strict=True
    ):
        letters = llama.tokenizer.convert_ids_to_tokens(ids)
        assert "".join(letters[: anchor + 1]) == f"Q {question} A"
        assert "".join(letters[anchor + 1 : -1]) == f" {answer}"
        assert letters[-1] == "<end>"


def test_question_and_answer_are_what_they_are_alone_for_a_tokenizer_that_joins_letters():
    tokenizer = load_base().tokenizer
    form = replace(FORM, template="{question}", separator="")
    pairs = Dataset.from_dict({"name": ["1"], "question": ["def re"], "answer": ["turn x"]})
    [row] = tokenize_pairs(pairs, tokenizer, form)
    ends = row["anchor"] + 1
    assert tokenizer.decode(row["token_ids"][:ends]) == "<|endoftext|>def re"
    assert tokenizer.decode(row["token_ids"][ends:-1]) == "turn x"
    assert row["token_ids"][:-1] != tokenizer("def return x")["input_ids"]  # joined they differ


def test_a_question_begins_as_a_text_and_does_not_end_as_one(llama, source, save_base):
    tokenizer = AutoTokenizer.from_pretrained(save_base("llama"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<end> $A <end>", special_tokens=[("<end>", 0)]
    )
    plain = tokenized(llama, source)
    for row, bare in zip(
        tokenize_pairs(read_pairs(source, FORM), tokenizer, FORM), plain, strict=True
    ):
        assert row["token_ids"] == [0, *bare["token_ids"]]
        assert row["anchor"] == bare["anchor"] + 1


def test_an_answer_has_no_end_where_the_tokenizer_has_none(llama, source, save_base):
    tokenizer = AutoTokenizer.from_pretrained(save_base("llama"))
    tokenizer.eos_token = None
    [first, *_] = tokenize_pairs(read_pairs(source, FORM), tokenizer, FORM)["token_ids"]
    assert first == tokenized(llama, source)["token_ids"][0][:-1]


def test_only_pairs_that_fit_are_kept_and_none_is_refused(llama, source):
    rows = tokenized(llama, source)
    room = Room(length=19, latents=2, ahead=4)
    kept = fitting(rows, room, source=source)
    assert kept["token_ids"] == [ids for ids in rows["token_ids"] if len(ids) <= 19]
    assert 0 < len(kept) < len(rows)
    # The positions after the anchor hold latents and the ahead tokens of the batch's longest.
    anchors = [anchor for anchor in rows["anchor"] if anchor + 1 + 2 + 4 <= 13]
    assert fitting(rows, replace(room, length=99, positions=13), source=source)["anchor"] == anchors
    late = fitting(rows, replace(room, length=99, delay=3), source=source)
    assert late["anchor"] == [
        anchor
        for ids, anchor in zip(rows["token_ids"], rows["anchor"], strict=True)
        if len(ids) - 1 - anchor > 3
    ]
    assert len(late) == 3
    with pytest.raises(TextError, match=r"none of the 4 pairs of .* fits 5 tokens.*data\.length"):
        fitting(rows, replace(room, length=5), source=source)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"q": "x", "b": "y"}], r"no field 'a': it has q, b"),
        ([{"q": "x", "a": "y"}, {"q": "z", "a": ""}], r"pairs.jsonl' row 2 has no 'a'"),
        ([{"q": "x", "a": "y"}, {"q": None, "a": "z"}], r"pairs.jsonl' row 2 has no 'q'"),
        (
            [{"q": "x", "a": "y"}, {"q": "", "a": "z"}, {"q": "v", "a": ""}],
            r"row 2 has no 'q'",
        ),
        ([{"q": "x", "a": 0.5}], r"row 1: 'a' must be text, got 0.5"),
        ([{"q": "x", "a": True}], r"row 1: 'a' must be text, got True"),
        ([{"q": "x", "a": 1e300}], r"row 1: 'a' must be text, got 1e\+300"),
        ([{"q": 7, "a": "y"}], r"row 1: 'q' must be text, got 7"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(tmp_path, rows, told):
    with pytest.raises(TextError, match=told):
        read_pairs(written(tmp_path / "pairs.jsonl", rows), FORM)


@pytest.mark.parametrize("answers", [[72, -8, 0], [72.0, -8, None]])
def test_answers_that_are_whole_numbers_are_written_as_such(tmp_path, answers):
    rows = [{"q": "x" if answer is not None else "", "a": answer} for answer in answers]
    found = read_pairs(written(tmp_path / "pairs.jsonl", rows), FORM)["answer"]
    assert found[:] == [str(int(answer)) for answer in answers if answer is not None]


def test_a_source_without_columns_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("question answer")
    for source in ("stdlib", str(tmp_path / "x.txt")):
        with pytest.raises(TextError, match=r"no columns .* JSONL or Parquet"):
            read_pairs(source, FORM)


def test_one_pair_is_not_cut_in_two(tmp_path):
    source = written(tmp_path / "pairs.jsonl", [{"q": "long question " * 9, "a": "y"}])
    with pytest.raises(TextError, match=r"holds one pair.*data\.validation"):
        hold_out_pairs(read_pairs(source, FORM), source)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": "Question:"}, "must hold {question} once, got 'Question:'"),
        ({"template": "{question}{question}"}, "once"),
        ({"answer": "q"}, "must be two columns, got 'q' twice"),
    ],
)
def test_a_format_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        replace(FORM, **changes)


def test_a_template_may_hold_braces():
    assert replace(FORM, template="{a} {question}").asked("{question}x") == "{a} {question}x"


@pytest.mark.parametrize("delay", [0, 2])
def test_measured_answers_are_those_of_one_plain_forward(unlike_base, start, make, source, delay):
    """Over [question, z, answer] of each pair alone, and over [question, answer] without z."""
    base, ahead = unlike_base, 6
    coprocessor = make(base, start)
    rows = fitting(
        tokenized(base, source), Room(length=40, latents=3, ahead=ahead, delay=delay), source=source
    )
    chosen = pair_passages(rows, limit=9)
    losses = measure(
        base,
        {"latents": Condition(writer=coprocessor)},
        chosen,
        anchors=5,
        ahead=ahead,
        delay=delay,
        batch=9,
    )
    for row, document in enumerate(losses.documents.tolist()):
        pair = next(each for each in chosen if each.document == document)
        count = min(ahead, len(pair.token_ids) - 1 - delay - pair.anchor)
        assert losses.counts[row].tolist() == [1] * count + [0] * (ahead - count)
        alone = measure(
            base,
            {"latents": Condition(writer=coprocessor)},
            [pair],
            anchors=1,
            ahead=count,
            delay=delay,
        )
        token_ids = torch.tensor([pair.token_ids])
        with torch.no_grad():
            plain = base.model(input_ids=token_ids).logits[0, pair.anchor + delay :]
        by_hand = torch.nn.functional.cross_entropy(
            plain[:count], token_ids[0, pair.anchor + delay + 1 :][:count], reduction="none"
        )
        for name, expected in (("base", by_hand), ("latents", alone.sums["latents"][0])):
            found = losses.sums[name][row]
            torch.testing.assert_close(
                found[:count].float(), expected.float(), atol=2e-5, rtol=1e-5
            )
            assert not found[count:].any()


def test_a_token_that_no_answer_has_is_not_measured(llama, make, source):
    rows = fitting(tokenized(llama, source), Room(length=40, latents=3, ahead=32), source=source)
    losses = measure(
        llama,
        {"latents": Condition(writer=make(llama, "warm"))},
        pair_passages(rows, limit=9),
        anchors=5,
        ahead=32,
    )
    longest = len(" a longer answer") + 1
    assert losses.counts.shape == (4, longest)
    assert losses.counts[:, -1].sum() == 1
    assert all(math.isfinite(each) for each in losses.change_percent("latents"))
    assert losses.anchors.tolist() == [1] * 4
