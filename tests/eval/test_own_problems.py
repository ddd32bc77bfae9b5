"""A user's own questions: which are asked, and that right is what decoding gives."""

import json
from dataclasses import replace
from itertools import islice

import pytest

from deliberate.core.augment import prefill, tokenize
from deliberate.core.base import load_base
from deliberate.core.checkpoint import Trained, load_coprocessor
from deliberate.core.errors import TextError
from deliberate.core.generate import Sampling, generate
from deliberate.core.pairs import PairFormat
from deliberate.core.problems import problems
from deliberate.eval import Subject
from deliberate.eval.accuracy import ask_problems
from deliberate.eval.own_problems import OwnProblems

FORM = PairFormat(question="question", answer="answer")
SPOKEN = replace(FORM, template="Q: {question}\nA:", separator=" ")


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows(pairs):
    return [{"question": question, "answer": answer} for question, answer in pairs]


@pytest.fixture
def trained(llama, make):
    return Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")


@pytest.mark.parametrize("form", [replace(FORM, separator=" "), SPOKEN], ids=["bare", "spoken"])
def test_right_is_what_nano_decodes_greedily_up_to_the_line_end(tmp_path, form):
    base = load_base("nano")
    nano = load_coprocessor("nano", base=base)
    made = [*islice(problems("sorting", steps=2), 12), *islice(problems("symbols", steps=1), 12)]
    asked = [problem.question for problem in made]
    caches = prefill(base, [tokenize(base, form.asked(question)) for question in asked])
    sampling = Sampling(max_tokens=24, stop=("\n",))
    decoded = {
        name: generate(base, caches, sampling, coprocessor=writer)
        for name, writer in (("base", None), ("latents", nano.coprocessor))
    }
    pairs, expected = [], {name: [] for name in decoded}
    for number, question in enumerate(asked):
        texts = {each[number].text.strip() for each in decoded.values()}
        for answer in sorted({*filter(None, texts), "12"}):
            pairs.append((question, answer))
            ids = base.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
            for name, each in decoded.items():
                *said, _ = each[number].token_ids
                expected[name].append(each[number].finish == "stop" and said == ids)
    source = written(tmp_path / "own.jsonl", rows(pairs))
    chosen = OwnProblems(sources=(source,), form=form)
    found = ask_problems(base, Subject(trained=nano, controls=("shuffled",)), chosen)
    assert {name: found.right[name] for name in decoded} == expected
    assert all(0 < sum(each) < len(pairs) for each in expected.values())


def test_each_file_is_a_family_without_steps(tmp_path, llama, trained):
    few = written(tmp_path / "few.jsonl", rows([("ab", "c"), ("cd", "e")]))
    more = written(tmp_path / "more.jsonl", rows([(letter, 7) for letter in "klmno"]))
    chosen = OwnProblems(sources=(few, more), form=FORM)
    assert [problem.answer for problem in chosen.problems()] == ["c", "e", *["7"] * 5]
    found = ask_problems(llama, Subject(trained=trained, controls=()), chosen).to_dict()
    counts = {family: cells["all"]["problems"] for family, cells in found["families"].items()}
    assert counts == {"few.jsonl": 2, "more.jsonl": 5}
    assert [*found["families"]["few.jsonl"]] == ["all"]
    assert (found["problems"], found["left_out"], found["count"]) == (7, 0, None)
    assert (found["sources"], found["pairs"]["separator"]) == ([few, more], "\n")


def test_files_of_one_name_are_called_by_their_paths(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    sources = tuple(
        written(tmp_path / folder / "test.jsonl", rows([("x", "y"), ("z", "y")])) for folder in "ab"
    )
    chosen = OwnProblems(sources=sources, form=FORM)
    assert {problem.family for problem in chosen.problems()} == {*sources}


def test_some_of_a_file_are_drawn_by_the_seed_in_its_order(tmp_path):
    source = written(tmp_path / "own.jsonl", rows([(f"{n:03}", "y") for n in range(50)]))
    few = OwnProblems(sources=(source,), form=FORM, count=5)
    asked = [problem.question for problem in few.problems()]
    assert asked == [problem.question for problem in few.problems()] == sorted(asked)
    assert len({*asked}) == 5
    assert asked != [problem.question for problem in replace(few, seed=1).problems()]
    assert len(replace(few, count=80).problems()) == 50


def test_white_space_at_an_answers_end_is_no_part_of_it_and_lines_inside_are(tmp_path):
    source = written(tmp_path / "own.jsonl", rows([("x", " a\nb \n"), ("y", "c")]))
    found = OwnProblems(sources=(source,), form=FORM).problems()
    assert [problem.answer for problem in found] == [" a\nb", "c"]


def test_what_does_not_fit_the_positions_is_left_out_and_told(tmp_path, llama, trained):
    # The tiny Llama has 64 positions, a token a letter, and the last three questions fit alone.
    pairs = [("a" * 70, "b"), ("a" * 50, "b"), ("c" * 49, "d"), ("e" * 9, "f" * 45)]
    source = written(tmp_path / "own.jsonl", rows(pairs))
    chosen = OwnProblems(sources=(source,), form=FORM)
    told = []
    found = ask_problems(llama, Subject(trained=trained), chosen, on_note=told.append)
    assert [problem.answer for problem in found.problems] == ["b", "d"]
    (said,) = told
    assert said.startswith("2 of 4 questions left out: ")
    assert said.endswith("64 positions for a question, 3 latents and the longest answer")
    assert found.to_dict()["left_out"] == 2
    with pytest.raises(TextError, match=r"64 positions, and 0 of 4 questions of .* 40 latents"):
        ask_problems(llama, Subject(trained=trained, room=40), chosen)


def test_one_question_and_chains_of_thought_are_refused(tmp_path, llama, trained):
    one = OwnProblems(
        sources=(written(tmp_path / "one.jsonl", rows([("x", "y"), ("", "")])),), form=FORM
    )
    with pytest.raises(TextError, match=r"one.jsonl' holds one question: give at least 2"):
        one.problems()
    two = replace(one, sources=(written(tmp_path / "two.jsonl", rows([("x", "y"), ("z", "v")])),))
    with pytest.raises(TextError, match=r"cue is chosen on problems that are not asked, and of 2"):
        ask_problems(llama, Subject(trained=trained, controls=(), chains=("cot",)), two)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sources": ()}, "sources must name at least one file"),
        ({"count": 1}, "count must be at least 2"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        OwnProblems(**{"sources": ("own.jsonl",), "form": FORM, **settings})
