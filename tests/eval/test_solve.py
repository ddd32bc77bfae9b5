"""Made problems: right by one forward is right by decoding, and what is said of how many."""

from dataclasses import replace
from math import comb

import pytest

from deliberate.core.augment import prefill, tokenize
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError, TextError
from deliberate.core.generate import Sampling, generate
from deliberate.core.measure import Condition
from deliberate.core.problems import FAMILIES, Problem, is_validation
from deliberate.eval import Subject
from deliberate.eval import solve as solving
from deliberate.eval.accuracy import Accuracy, ask_problems
from deliberate.eval.problem_set import ProblemSet
from deliberate.eval.solve import solve

LONGEST = 12
STOPS = ("\n", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""A random base seldom comes to a line's end by itself, so that here these letters are ends too."""


@pytest.fixture
def base(unlike_base):
    return unlike_base


def decoded(base, questions, coprocessor=None, every=None):
    """The tokens that greedy decoding gives up to where it stops, or none if it does not."""
    caches = prefill(base, [tokenize(base, question) for question in questions])
    sampling = Sampling(max_tokens=LONGEST, stop=STOPS, every=every)
    found = generate(base, caches, sampling, coprocessor=coprocessor)
    return [each.token_ids if each.finish == "stop" else None for each in found]


def problem(question, answer):
    return Problem(family="words", steps=1, question=question, work=(), answer=answer)


def test_right_by_one_forward_is_what_greedy_decoding_gives(base, start, make, monkeypatch):
    ends = {0, *base.tokenizer("".join(STOPS))["input_ids"]}
    monkeypatch.setattr(solving, "_Ends", lambda base: ends.__contains__)
    # Nor does it begin answers with a space.
    monkeypatch.setattr(solving, "FORM", replace(solving.FORM, separator=""))
    writers = {"latents": make(base, start), "soft": make(base, start, kind="soft")}
    questions = [f"{a}{b * (1 + i % 5)}" for i, a in enumerate("abcdef") for b in "klmn"]
    by_name = {"base": decoded(base, questions)}
    by_name |= {name: decoded(base, questions, writer) for name, writer in writers.items()}
    by_name["every:2"] = decoded(base, questions, writers["latents"], every=2)
    asked, expected = [], {name: [] for name in by_name}
    for number, question in enumerate(questions):
        for tokens in {tuple(each[number][:-1]) for each in by_name.values() if each[number]}:
            letters = base.tokenizer.convert_ids_to_tokens(list(tokens))
            if not letters or {"<unk>", "<end>"} & {*letters}:
                continue
            # As it is, and with one letter less or more, which is another answer.
            for answer in {"".join(letters), "".join(letters[:-1]) or "x", "".join(letters) + "x"}:
                asked.append(problem(question, answer))
                ids = base.tokenizer(answer)["input_ids"]
                for name, each in by_name.items():
                    expected[name].append(each[number] is not None and each[number][:-1] == ids)
    conditions = {name: Condition(writer=writer) for name, writer in writers.items()}
    conditions["every:2"] = Condition(writer=writers["latents"], every=2)
    assert solve(base, conditions, asked) == expected
    right = [sum(each) for each in expected.values()]
    assert sum(right) > 0  # a writer of random weights may never write letters alone
    assert max(right) < len(asked)


def test_an_answer_that_ends_with_its_line_or_its_text_is_right(llama, monkeypatch):
    ends = solving._Ends(llama)
    line, letter = llama.tokenizer("\na")["input_ids"]
    assert ends(line)
    assert ends(llama.tokenizer.eos_token_id)
    assert not ends(letter)


def of(base, trained, right, families):
    count = len(families)
    problems = [
        replace(problem("q", "a"), family=each, steps=1 + n % 2) for n, each in enumerate(families)
    ]
    assert all(len(each) == count for each in right.values())
    return Accuracy(
        base=base, trained=trained, baselines={}, asked=ProblemSet(), problems=problems, right=right
    )


def test_shares_differences_and_the_test_are_those_of_the_problems(llama, make):
    right = {
        "base": [True, False, False, False, True, False, False, False],
        "latents": [True, True, True, True, False, False, True, True],
        "zero": [False] * 8,
    }
    trained = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    accuracy = of(llama, trained, right, ["words"] * 6 + ["sorting"] * 2)
    cell = accuracy._cell([True] * 8)
    assert cell["percent"]["base"]["value"] == 25
    difference = cell["against_base"]["latents"]
    assert difference["value"] == pytest.approx(100 * (6 - 2) / 8)
    assert (difference["gained"], difference["lost"]) == (5, 1)
    assert difference["p"] == pytest.approx(2 * (comb(6, 0) + comb(6, 1)) / 2**6)
    assert difference["low"] < difference["value"] < difference["high"]
    against = cell["latents_against"]["zero"]
    assert (against["value"], against["gained"], against["lost"]) == (75, 6, 0)
    some = accuracy._cell([False] * 6 + [True] * 2)
    assert (some["problems"], some["percent"]["latents"]["value"]) == (2, 100)


def test_each_family_and_number_of_steps_has_its_cell(llama, make):
    trained = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    chosen = ProblemSet(families=("symbols", "sorting"), steps=(2, 1), count=3)
    told = []
    found = ask_problems(
        llama,
        Subject(trained=trained, controls=("zero",)),
        chosen,
        on_problems=lambda done, total: told.append((done, total)),
    ).to_dict()
    assert found["total"]["problems"] == found["problems"] == 12
    assert found["total"]["percent"].keys() == {"base", "latents", "zero"}
    for family in ("symbols", "sorting"):
        assert list(found["families"][family]) == ["all", "1", "2"]
        assert found["families"][family]["all"]["problems"] == 6
    assert told[0] == (0, 12)
    assert told[-1] == (12, 12)


def test_problems_are_held_out_different_and_the_same_each_time():
    chosen = ProblemSet(count=30, steps=(1, 3))
    drawn = chosen.problems()
    assert len({each.question for each in drawn}) == len(drawn) == 30 * 2 * len(FAMILIES)
    assert all(is_validation(each.question) for each in drawn)
    assert chosen.problems() == drawn != ProblemSet(count=30, steps=(1, 3), seed=1).problems()
    # Where there are fewer than are wanted, all are asked once.
    few = ProblemSet(count=2000, families=("comparison",), steps=(1,)).problems()
    assert len({each.question for each in few}) == len(few) < 2000


@pytest.mark.parametrize("split", ["validation", "train"])
def test_solved_problems_of_the_other_split_stand_before_a_question(split):
    plain = ProblemSet(count=20, steps=(1, 2))
    shown = replace(plain, shots=3)
    for one, own in zip(plain.problems(split), shown.problems(split), strict=True):
        *solved, question = own.question.split("\n")
        assert own == replace(one, question=own.question)
        assert question == one.question
        assert len(solved) == 3
        for line in solved:
            asked, _, _ = line.rpartition(ENDS[one.family])
            assert not is_validation(asked + ENDS[one.family])
            assert asked + ENDS[one.family] != question
    assert shown.problems(split) == shown.problems(split)


ENDS = {"symbols": "=", "words": "?", "comparison": "?", "sorting": ":", "variables": "="}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shots": -1}, "shots must be at least 0, got -1"),
        ({"families": ("symbol",)}, "no family 'symbol' of problems: known are symbols, words"),
        ({"steps": (0,)}, "steps must be from 1 to 12, got 0"),
        ({"count": 1}, "count must be at least 2"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_problems_that_there_are_not_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ProblemSet(**settings)


def test_a_base_trained_on_answers_in_the_place_of_the_base(llama, make, monkeypatch):
    ends = {0, *llama.tokenizer("".join(STOPS))["input_ids"]}
    monkeypatch.setattr(solving, "_Ends", lambda base: ends.__contains__)
    form = replace(solving.FORM, separator="")
    monkeypatch.setattr(ProblemSet, "form", property(lambda asked: form))
    coprocessor = make(llama, "warm", kind="continued")
    trained_on = coprocessor.answering(llama)
    trained_on.trunk.norm.weight.data.neg_()  # so that it learned to answer otherwise
    questions = [f"{a}{b}" for a in "abcdef" for b in "klmn"]
    said = zip(questions, decoded(trained_on, questions), strict=True)
    letters = {q: llama.tokenizer.convert_ids_to_tokens(t[:-1]) for q, t in said if t and t[:-1]}
    asked = [problem(question, "".join(each)) for question, each in letters.items()]
    monkeypatch.setattr(ProblemSet, "problems", lambda self, split="validation": asked)
    continued = Trained(coprocessor=coprocessor, id="on", fingerprint="f")
    right = ask_problems(llama, Subject(trained=continued), ProblemSet()).right
    assert right.keys() == {"base", "latents"}
    assert len(asked) > 2
    assert all(right["latents"])
    assert not all(right["base"])


def test_what_cannot_answer_is_refused(llama, make):
    continued = Trained(coprocessor=make(llama, "warm", kind="continued"), id="on", fingerprint="f")
    chosen = ProblemSet(families=("symbols",), steps=(1,), count=2)
    with pytest.raises(CheckpointError, match=r"writes no latents, which 'cot' is to be compared"):
        ask_problems(llama, Subject(trained=continued, chains=("cot",)), chosen)
    trained = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    long = ProblemSet(families=("words",), steps=(6,), count=2)
    with pytest.raises(
        TextError, match=r"64 positions, and a question of \d+ tokens with 3 latents"
    ):
        ask_problems(llama, Subject(trained=trained), long)
