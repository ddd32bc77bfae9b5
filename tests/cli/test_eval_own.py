"""`deliberate eval --problems FILE`: a user's own questions, shown, kept and refused."""

import json
from pathlib import Path

import pytest

from deliberate.cli.eval_own import check_problems, own_named
from deliberate.core import load_base, save_coprocessor

PAIRS = [(letter * 3, number) for number, letter in enumerate("abcdefgh")]


def written(name, rows, question="question", answer="answer"):
    lines = [json.dumps({question: one, answer: other}) + "\n" for one, other in rows]
    Path(name).write_text("".join(lines))
    return name


@pytest.fixture
def own(offline):
    return written("test.jsonl", PAIRS)


def learned_pairs(folder, **data):
    """Has a run say that it learned pairs."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["recipe"] = {"data": {"question": "ask", "answer": "say", **data}}
    path.write_text(json.dumps(config))


def test_a_file_is_asked_and_the_json_names_it(run, coprocessor_folder, own):
    outcome = run("eval", coprocessor_folder, "--problems", own, "--against", "zero", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["sources"] == ["test.jsonl"]
    assert result["pairs"] == {
        "question": "question", "answer": "answer", "template": "{question}", "separator": "\n"
    }  # fmt: skip
    assert (result["problems"], result["left_out"], result["count"]) == (8, 0, None)
    assert result["families"].keys() == {"test.jsonl"}
    assert result["total"]["percent"].keys() == {"base", "latents", "zero"}
    assert json.loads((coprocessor_folder / "problems.json").read_text()) == result


def test_several_files_are_rows_of_a_table_that_fits_eighty_columns(run, coprocessor_folder, own):
    long = written(f"{'long' * 12}[red].jsonl", [*PAIRS, ("a" * 70, "b")])
    against = "shuffled,zero,random,reversed"
    outcome = run("eval", coprocessor_folder, "--problems", f"{own},{long}", "--against", against)
    assert outcome.code == 0, outcome.err
    assert "1 of 17 questions left out: " in outcome.err
    shown = [line for line in outcome.out.splitlines() if "tiny-llama" not in line]  # a long path
    assert max(map(len, shown)) <= 80
    assert "steps" not in outcome.out
    words = " ".join(outcome.out.split())
    assert f"16 questions of {own}, {long}, and 1 left out for lack of positions. Each " in words
    assert "another question's latents against the base: " in words
    assert r"Read as '{question}', answers after '\n'." in words


def test_columns_template_and_separator_are_as_said_or_as_the_run_learned(run, coprocessor_folder):
    learned_pairs(coprocessor_folder, template="Q {question} A", separator=" ")
    written("learned.jsonl", PAIRS, "ask", "say")
    written("other.jsonl", PAIRS, "q", "say")
    few = ("--against", "none", "--json", "--count", "3")

    def asked(*options):
        outcome = run("eval", coprocessor_folder, *few, "--problems", *options)
        assert outcome.code == 0, outcome.err
        result = json.loads(outcome.out)
        assert result["problems"] == 3
        return [*result["pairs"].values()]

    assert asked("learned.jsonl") == ["ask", "say", "Q {question} A", " "]
    assert asked("other.jsonl", "--question", "q", "--separator", "") == [
        "q", "say", "Q {question} A", ""
    ]  # fmt: skip


def test_a_report_names_the_file_and_is_measured_anew_once_it_has_changed(
    run, coprocessor_folder, own
):
    given = ("eval", coprocessor_folder, "--problems", own, "--against", "none", "-o", "report")
    assert run(*given).code == 0
    assert "8 questions of test.jsonl." in Path("report/report.md").read_text()
    assert "problems: measured before, kept" in run(*given, "--resume").err
    written(own, PAIRS[:5])
    assert "problems: measuring" in run(*given, "--resume").err
    assert "5 questions of test.jsonl." in Path("report/report.md").read_text()


def test_runs_with_fewer_and_more_latents_are_asked_the_same(
    run, coprocessor_folder, llama_folder, make, own
):
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", latents=9), Path("nine"), base=base)
    written(own, [*PAIRS, ("a" * 55, "b")])  # with 3 latents it has room
    runs = (coprocessor_folder, "nine")
    outcome = run("eval", *runs, "--problems", own, "--against", "none", "-o", "both", "--json")
    assert outcome.code == 0, outcome.err
    both = json.loads(outcome.out)["results"]
    assert [(each["problems"], each["left_out"]) for each in both] == [(8, 1), (8, 1)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shots", "2"), "--shots is for made problems, and 'test.jsonl' holds your own"),
        (("--steps", "1-3"), "--steps is for made problems, and 'test.jsonl' holds your own"),
        (("--suite", "quick"), "--suite quick asks made problems, and 'test.jsonl' holds your own"),
        (("--against", "zero,cot"), "against 'cot' chooses its cue on made problems that are not"),
        (("--data", "x", "--question", "q"), "asks what 'test.jsonl' holds: leave out --data"),
        (("--count", "1"), "count must be at least 2, got 1"),
        (("--template", "Q"), "template must hold {question} once, got 'Q'"),
        (("--answer", "question"), "question and answer must be two columns"),
    ],
)
def test_options_that_do_not_go_with_it_are_one_sentence(
    refused, coprocessor_folder, own, options, said
):
    assert said in refused("eval", coprocessor_folder, "--problems", own, *options, code=2)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (PAIRS, ("--question", "q"), "no field 'q': it has question, answer; name one of these"),
        ([*PAIRS, ("x", 0.5)], (), "row 9: 'answer' must be text, got 0.5"),
        ([*PAIRS, ("x", None)], (), "row 9 has no 'answer': fill it, or leave the row out"),
        ([("a", "b")], (), "holds one question: give at least 2, since latents are compared"),
        ([("a" * 70, "b"), ("c", "d")], (), "64 positions, and 1 of 2 questions of 'test.jsonl'"),
        ([("", "")], (), "'test.jsonl' holds no text"),
    ],
)
def test_files_that_cannot_be_asked_are_one_sentence(
    refused, coprocessor_folder, rows, options, said
):
    written("test.jsonl", rows)
    asked = ("eval", coprocessor_folder, "--problems", "test.jsonl", *options)
    assert said in refused(*asked)


def test_a_file_without_columns_is_refused(refused, coprocessor_folder):
    Path("test.csv").write_text("question,answer\na,b\n")
    line = refused("eval", coprocessor_folder, "--problems", "test.csv")
    assert "has no columns to take questions and answers from: give JSONL or Parquet" in line


def test_a_family_is_never_a_file_and_a_single_word_is_one_if_it_is_there(offline):
    for name in ("words", "mine"):
        Path(name).mkdir()
    assert own_named("words,all, mine ,./words,owner/name,mine,./mine,other") == (
        "mine", "./words", "owner/name"
    )  # fmt: skip
    assert own_named(None) == ()
    check_problems("mine,./words")
    check_problems("owner/name")
