"""Thoughts in texts: what is read without them, where they stood, and what latents are drawn to."""

import pytest
import torch
from datasets import Dataset

from deliberate.core import load_base, tokens
from deliberate.core.coprocessor import coprocessor_config
from deliberate.core.kinds import build
from deliberate.core.packing import Packer, Wanted, pack
from deliberate.core.problem_texts import problem_texts
from deliberate.core.problems import FAMILIES, problems
from deliberate.core.thoughts import NONE, Thought, apart, outside, padded, spelled

TAGS = ("<think>", "</think>")


@pytest.fixture(scope="module")
def nano():
    return load_base()


@pytest.mark.parametrize(
    ("text", "read", "found"),
    [
        ("no thought", "no thought", []),
        ("a<think>b\nc</think> d", "a d", [Thought(1, "b\nc")]),
        ("<think></think>x<think>y</think>", "x", [Thought(0, ""), Thought(1, "y")]),
        ("a<think>b", "a<think>b", []),
        ("a</think>b<think>", "a</think>b<think>", []),
        ("a<think>b<think>c</think>d</think>", "ad</think>", [Thought(1, "b<think>c")]),
    ],
)
def test_a_text_and_its_thoughts_come_apart(text, read, found):
    assert apart(text, TAGS) == (read, found)


def test_what_opens_a_thought_is_no_pattern():
    assert apart("a(.*b).*c", ("(.*", ").*")) == ("ac", [Thought(1, "b")])


@pytest.mark.parametrize("stretch", [tokens.STRETCH, 64])
def test_rows_are_those_of_the_texts_without_thoughts(nano, monkeypatch, stretch):
    texts = [
        f"x{n} = {n} *<think> {n} + {n} =</think> {2 * n}\ny = x<think></think> + 1\n" * 9
        for n in range(40)
    ]
    plain = [apart(text, TAGS)[0] for text in texts]
    without = Packer(nano.tokenizer, length=48)(plain)
    monkeypatch.setattr(tokens, "STRETCH", stretch)
    monkeypatch.setattr("deliberate.core.packing.STRETCH", stretch)
    wanted = Wanted(thought=TAGS, latents=4)
    rows = Packer(nano.tokenizer, length=48, wanted=wanted)(texts)
    assert rows["token_ids"] == without["token_ids"]
    decode = nano.tokenizer.decode
    seen = 0
    for ids, marks, thoughts in zip(
        *(rows[name] for name in ("token_ids", "marks", "thoughts")), strict=True
    ):
        assert marks == sorted(set(marks))
        for mark, thought in zip(marks, thoughts, strict=True):
            assert len(thought) == 4
            before, own = (
                decode(ids[: mark + 1]),
                decode([each for each in thought if each != NONE]),
            )
            assert before.endswith("*" if own else "x"), before
            assert own == "" or own.endswith(" ="), own
            seen += 1
    assert seen > 600


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("alpha<think>x</think> beta", "alpha"),
        (
            "in a: \N{CJK UNIFIED IDEOGRAPH-4E8C}<think>x</think> 42",
            "\N{CJK UNIFIED IDEOGRAPH-4E8C}",
        ),
        ("we ret<think>x</think>urn 42", "we"),
        ("see<think>x</think>", "see"),
        ("im<think>x</think>port", None),
        ("<think>x</think>abc", None),
    ],
)
def test_no_token_up_to_the_anchor_has_read_behind_the_thought(nano, text, before):
    packer = Packer(nano.tokenizer, length=999, wanted=Wanted(thought=TAGS, latents=2))
    packer([text])
    read = [nano.tokenizer.decode(packer.tokens[: mark + 1]) for mark in packer.marks]
    assert len(read) == len(packer.thoughts) == (before is not None)
    assert all(each.endswith(before) for each in read)


def test_a_cut_leaves_thoughts_whole():
    text = "ab<think>cd</think>ef"
    assert [outside(place, text, TAGS) for place in (1, 2, 5, 18, 19)] == [1, 2, 2, 2, 19]


def test_the_first_of_many_texts_may_have_no_thoughts(nano):
    texts = Dataset.from_dict({"text": ["abc " * 9] * 1000 + ["abc<think>d</think> e " * 9] * 99})
    for wanted in (Wanted(thought=TAGS, latents=3), Wanted(markers=["think"])):
        rows = pack(texts, nano.tokenizer, length=32, wanted=wanted)
        assert rows[0]["marks"] == []
        assert any(rows["marks"])


def test_rows_of_a_dataset_have_their_thoughts(nano):
    texts = Dataset.from_dict({"text": ["abc<think>def</think> ghi " * 40]})
    rows = pack(texts, nano.tokenizer, length=32, wanted=Wanted(thought=TAGS, latents=3))
    row = rows.with_format("torch")[0]
    assert row["thoughts"].shape == (len(row["marks"]), 3)


@pytest.mark.parametrize("latents", [1, 2, 5, 16])
def test_latents_are_drawn_to_the_last_tokens_of_text_and_thought(latents):
    row, draw = torch.arange(100, 130), torch.Generator().manual_seed(0)
    marks = torch.tensor([2, 9, 20])
    ids = [[7, 8, 9], [], list(range(20))]
    thoughts = torch.tensor([padded(each, latents=latents) for each in ids])
    anchors = torch.randint(30, (40,), generator=draw).sort().values
    found = spelled(row, anchors, latents=latents, marks=marks, thoughts=thoughts)
    for anchor, own in zip(anchors.tolist(), found.tolist(), strict=True):
        thought = ids[marks.tolist().index(anchor)] if anchor in marks else []
        text = [100] * latents + row[: anchor + 1].tolist() + thought
        assert own == text[-latents:]
    plain = spelled(row, anchors, latents=latents)
    assert torch.equal(plain[:, -1], row[anchors])


def test_problems_are_the_same_with_thoughts_and_without(monkeypatch):
    monkeypatch.setattr("deliberate.core.problem_texts.TEXTS", {"train": 400, "validation": 40})
    plain, thinking = problem_texts("train"), problem_texts("train", thought=TAGS)
    assert {name: apart(text, TAGS)[0] for name, text in thinking.items()} == plain
    found = [apart(text, TAGS)[1] for name, text in thinking.items() if name.startswith("answered")]
    assert all(found)
    assert not any(TAGS[0] in text for name, text in thinking.items() if name.startswith("worked"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thought_goes_as_far_as_the_answer(family):
    drawn = problems(family, steps=3)
    for problem in [next(drawn) for _ in range(20)]:
        if problem.thought:
            assert f"{problem.question}{problem.thought} {problem.answer}\n" in problem.worked
        else:
            assert family in {"sorting", "variables"}


def test_latents_begin_at_the_size_of_embeddings(unlike_base):
    coprocessor = build(coprocessor_config(start="thought", latents=3), unlike_base)
    latents = coprocessor(unlike_base.read(torch.arange(20)[None]), torch.tensor([[5, 12]]))
    vocabulary = unlike_base.embed(torch.arange(unlike_base.vocab))
    size = vocabulary.square().mean().sqrt().expand(1, 2, 3)
    torch.testing.assert_close(latents.square().mean(-1).sqrt(), size, rtol=1e-3, atol=0)
