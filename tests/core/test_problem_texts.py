"""The source `problems`: held apart line by line, in two forms, and mixed like any other."""

import re
from collections import Counter

import pytest

from deliberate.core import problem_texts as made
from deliberate.core.errors import TextError
from deliberate.core.pairs import PairFormat, read_pairs
from deliberate.core.problems import CUE, FAMILIES, is_validation
from deliberate.core.texts import documents, hold_out, validation_texts

QUESTION = re.compile(r"Sort [\d ]+:|.*\?|[(\d].* =|.*, .*\. [a-z] =")
FAMILY = {
    "symbols": r"[(\d].* =",
    "words": r".* has .*\?",
    "comparison": r".*est\?",
    "sorting": r"Sort [\d ]+:",
    "variables": r".*, .*\. [a-z] =",
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(made, "TEXTS", {"train": 1600, "validation": 400})


def questions(text):
    """What stands in a text where a question can be: at the beginning of a line."""
    lines = [line.removeprefix(CUE) for line in text.splitlines()]
    return [found[0] for line in lines if (found := QUESTION.match(line))]


def test_no_held_out_question_stands_in_a_training_text_not_even_in_another_s_work():
    train, held = made.problem_texts("train"), made.problem_texts("validation")
    assert (len(train), len(held)) == (1600, 400)
    trained = {question for text in train.values() for question in questions(text)}
    assert not any(map(is_validation, trained))
    worked = [text for name, text in train.items() if name.startswith("worked/")]
    sums = {line for text in worked for line in text.splitlines() if re.match(r"\d+ . \d+ =", line)}
    assert len(sums) > 100
    asked = [questions(text)[0] for text in held.values()]  # the first line is always a question
    assert all(map(is_validation, asked))
    assert trained.isdisjoint(asked)


def test_a_text_is_worked_out_or_answered_at_once_throughout():
    texts = made.problem_texts("train")
    worked = {name for name, text in texts.items() if "\nSo " in text}
    assert worked == {name for name in texts if name.startswith("worked/")}
    assert len(worked) == len(texts) / made.WORKED
    for name, text in texts.items():
        lines = text.splitlines()
        problems = sum(line.startswith("So ") for line in lines) if name in worked else len(lines)
        assert 1 <= problems <= made.MOST_IN_TEXT
        assert text.count(CUE) == (problems if name in worked else 0)
        if name not in worked:
            assert all(QUESTION.match(line)[0] != line for line in lines)  # an answer is behind it


def test_families_are_as_frequent_as_one_another_and_short_problems_more_than_long_ones():
    found = dict.fromkeys(FAMILIES, 0)
    steps = Counter()
    for name, text in made.problem_texts("train").items():
        if name.startswith("answered/"):
            for question in questions(text):
                (family,) = (f for f, form in FAMILY.items() if re.fullmatch(form, question))
                found[family] += 1
                if family == "sorting":
                    steps[question.count(" ") - 1] += 1
    assert max(found.values()) < 1.2 * min(found.values())
    assert sorted(steps) == list(made.STEPS)
    for number in made.STEPS:
        assert 0.7 * steps[1] / number < steps[number] < 1.4 * steps[1] / number


def test_the_texts_are_the_same_each_time_and_fewer_are_the_first_of_more(monkeypatch):
    texts = made.problem_texts("train")
    assert made.problem_texts("train") == texts
    monkeypatch.setattr(made, "TEXTS", {"train": 100, "validation": 100})
    assert list(made.problem_texts("train").items()) == list(texts.items())[:100]


def test_they_are_a_source_with_held_out_texts_of_its_own():
    texts, held = hold_out(documents("problems"), "problems")
    assert (len(texts), len(held)) == (1600, 400)
    assert texts["name"][0] == "worked/00000"
    named, both = validation_texts([{"path": "stdlib"}, {"path": "problems", "weight": 2.0}])
    assert named == "stdlib, problems (held out)"
    assert len(both) == 400 + len(documents("stdlib", split="validation"))
    assert documents("problems", split="validation")["text"] == held["text"]


def test_what_they_are_not_is_refused():
    with pytest.raises(ValueError, match="'train' or 'validation', got 'test'"):
        made.problem_texts("test")
    with pytest.raises(TextError, match="'problems' has no columns"):
        read_pairs("problems", PairFormat(question="question", answer="answer"))
