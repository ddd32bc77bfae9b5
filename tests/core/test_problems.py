"""Made problems: right by another way of solving them, held apart, and the same for a seed."""

import re
from itertools import islice

import pytest

from deliberate.core.problems import FAMILIES, MOST, MOST_STEPS, problems


def solved(problem):
    """The answer from the words of the question alone."""
    question, numbers = problem.question, re.findall(r"\d+", problem.question)
    if problem.family == "symbols":
        return str(eval(question.rstrip("= ")))
    if problem.family == "sorting":
        return " ".join(sorted(numbers, key=int))
    if problem.family == "comparison":
        facts = re.findall(r"(\w+) is \w+ than (\w+)\.", question)
        (top,) = {more for more, _ in facts} - {less for _, less in facts}
        return top
    if problem.family == "variables":
        told, asked = question.rstrip("= ").split(". ")
        known = {}
        for line in told.split(", "):
            exec(line, {}, known)
        return str(known[asked])
    value = int(numbers[0])
    for sentence in re.split(r"(?<=\.) ", question)[1:-1]:
        (number,) = map(int, re.findall(r"\d+", sentence))
        if "times" in sentence:
            value *= number
        elif re.search("buys|finds|given|picks", sentence):
            value += number
        else:
            value -= number
    return str(value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 5, MOST_STEPS])
def test_the_answer_is_right_and_the_way_has_as_many_steps(family, steps):
    for problem in islice(problems(family, steps=steps), 60):
        assert (problem.family, problem.steps, len(problem.work)) == (family, steps, steps)
        assert problem.answer == solved(problem)
        assert all(0 <= int(number) <= MOST for number in re.findall(r"\d+", problem.worked))
        assert problem.pair == f"{problem.question} {problem.answer}\n"
        assert problem.worked.endswith(f"\nSo {problem.answer}\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_no_question_is_of_both_splits_and_a_seed_gives_the_same_ones(family):
    def drawn(split, seed):
        return [
            each.question for each in islice(problems(family, steps=2, split=split, seed=seed), 400)
        ]

    trained = {question for seed in range(3) for question in drawn("train", seed)}
    assert not trained & {question for seed in range(3) for question in drawn("validation", seed)}
    assert drawn("train", 1) == drawn("train", 1) != drawn("train", 2)
    assert len(set(drawn("train", 1))) > 200


@pytest.mark.parametrize(
    ("family", "chosen", "told"),
    [
        ("riddles", {"steps": 2}, "no family 'riddles' of problems: known are symbols, words"),
        ("words", {"steps": 0}, "steps must be from 1 to 12, got 0"),
        ("words", {"steps": 2, "split": "test"}, "'train' or 'validation', got 'test'"),
    ],
)
def test_what_there_is_not_is_refused_at_once(family, chosen, told):
    with pytest.raises(ValueError, match=told):
        problems(family, **chosen)
