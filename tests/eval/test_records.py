"""Records of questions, their comparison, and the test of paired answers."""

import math

import pytest

from deliberate.core.errors import DeliberateError
from deliberate.eval.bench.mcnemar import McNemar, mcnemar
from deliberate.eval.bench.records import Record, compare, read, write


def record(number, *, base=False, latents=False, question="q", **more):
    return Record(
        id=f"task/{number}",
        question=f"{question}{number}",
        target="t",
        base=base,
        latents=latents,
        answers={"base": 0, "latents": "a\u2028b"},
        scores={"base": {"acc": float(base)}, "latents": {"acc": float(latents)}},
        **more,
    )


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (3, 9), (12, 12), (0, 24), (10, 14)])
def test_few_differing_questions_are_tested_exactly(pair):
    scipy = pytest.importorskip("scipy.stats")
    gained, lost = pair
    test = McNemar(gained=gained, lost=lost)
    assert test.exact
    expected = scipy.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert test.p == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pair", [(10, 15), (40, 41), (30, 30), (100, 50), (2000, 1500)])
def test_many_differing_questions_are_tested_by_chi_square_with_continuity_correction(pair):
    scipy = pytest.importorskip("scipy.stats")
    gained, lost = pair
    test = McNemar(gained=gained, lost=lost)
    assert not test.exact
    statistic = max(0, (abs(gained - lost) - 1)) ** 2 / (gained + lost)
    assert test.p == pytest.approx(scipy.chi2.sf(statistic, 1), rel=1e-9)


def test_the_test_by_hand():
    assert McNemar(gained=1, lost=5).p == pytest.approx(2 * (1 + 6) / 2**6)
    assert McNemar(gained=30, lost=10).p == pytest.approx(math.erfc(math.sqrt(19**2 / 40 / 2)))
    counted = mcnemar([True, True, False, False], [True, False, True, True])
    assert (counted.gained, counted.lost) == (2, 1)


def test_records_come_back_as_they_were(tmp_path):
    records = [record(number, base=number > 1) for number in range(3)]
    write(tmp_path / "a.jsonl", records)
    assert read(tmp_path / "a.jsonl") == records


def test_two_runs_are_compared_question_by_question_in_any_order(tmp_path):
    first = [record(n, base=n < 5, latents=n < 6) for n in range(10)]
    second = [record(n, base=n < 5, latents=n in {0, 1, 7, 8, 9}) for n in reversed(range(10))]
    write(tmp_path / "a.jsonl", first)
    write(tmp_path / "b.jsonl", second)
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl").to_dict()
    assert (found["first"], found["second"], found["difference"]) == (60, 50, -10)
    assert (found["gained"], found["lost"], found["questions"]) == (3, 4, 10)
    alone = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", condition="base").to_dict()
    assert (alone["gained"], alone["lost"], alone["p"]) == (0, 0, 1)


def test_records_of_different_questions_are_refused_by_name(tmp_path):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(a, [record(n) for n in range(3)])
    write(b, [record(n) for n in range(2)])
    for one, two in ((a, b), (b, a)):
        with pytest.raises(DeliberateError, match=r"question 'task/2' is not in .*b\.jsonl"):
            compare(one, two)
    write(b, [record(0), record(1, question="other"), record(2)])
    with pytest.raises(DeliberateError, match="question 'task/1' is another one"):
        compare(a, b)


@pytest.mark.parametrize("line", ["{}", "nothing", "[1]", "3", "\udc80"])
def test_a_file_of_something_else_is_refused_by_its_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    write(path, [record(0)])
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(DeliberateError, match="line 2 of"):
        read(path)
    path.write_text("\n")
    with pytest.raises(DeliberateError, match="holds no records"):
        read(path)
