"""`deliberate eval --problems`: what is shown, what is kept, what is refused."""

import json
from pathlib import Path
from shutil import copytree

import pytest

ASKED = ("--problems", "symbols,sorting", "--steps", "1,2", "--count", "3")


def test_the_json_has_every_family_and_number_of_steps_and_is_kept(run, coprocessor_folder):
    outcome = run("eval", coprocessor_folder, *ASKED, "--against", "zero,random", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["problems"] == 12
    assert result["families"].keys() == {"symbols", "sorting"}
    assert result["families"]["sorting"].keys() == {"all", "1", "2"}
    assert result["total"]["percent"].keys() == {"base", "latents", "zero", "random"}
    assert result["total"]["latents_against"]["zero"].keys() == {
        "value", "low", "high", "gained", "lost", "p", "exact"
    }  # fmt: skip
    assert json.loads((coprocessor_folder / "problems.json").read_text()) == result
    assert not (coprocessor_folder / "eval.json").exists()


def test_the_table_fits_eighty_columns_and_says_when_nothing_is_solved(run, coprocessor_folder):
    shown = run(
        "eval", coprocessor_folder, *ASKED, "--against", "shuffled,zero,random,reversed"
    ).out
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    words = " ".join(shown.split())
    assert "another question's latents against the base: " in words
    assert "latents against zeros: " in words
    assert "(McNemar)" in words
    assert "Fewer than 2 % are solved" in words


def test_several_runs_answer_the_same_problems(run, coprocessor_folder):
    few = (*ASKED, "--against", "none", "-o", "both.json")
    copytree(coprocessor_folder, "copy")
    outcome = run("eval", coprocessor_folder, "copy", *few, "--json")
    assert outcome.code == 0, outcome.err
    first, second = json.loads(outcome.out)["results"]
    assert (first["run"], second["run"]) == (str(coprocessor_folder), "copy")
    assert first == {**second, "run": first["run"]}
    assert json.loads(Path("both.json").read_text())["results"] == [first, second]


def test_solved_problems_stand_before_each_question_if_asked_for(run, coprocessor_folder):
    few = ("--problems", "symbols", "--steps", "1", "--count", "3", "--against", "none")
    outcome = run("eval", coprocessor_folder, *few, "--shots", "2", "-o", "report")
    assert outcome.code == 0, outcome.err
    assert "each after 2 solved ones" in " ".join(outcome.out.split())
    assert '"shots": 2' in Path("report/results.json").read_text()
    assert "Each after 2 solved ones." in Path("report/report.md").read_text()


def test_chains_of_thought_are_shown_with_their_tokens(run, coprocessor_folder):
    few = ("--problems", "symbols", "--steps", "1", "--count", "3")
    named = ("--against", "cot,cot:2,cot:latency,every:1")
    outcome = run("eval", coprocessor_folder, *few, *named)
    assert outcome.code == 0, outcome.err
    assert max(len(line) for line in outcome.out.splitlines() if "/" not in line) <= 80
    words = " ".join(outcome.out.split())
    assert "Fewer than 10 problems, and intervals not to be believed: symbols." in words
    assert "latents again every 1 token against the base: " in words
    assert "latents against chain of thought, 2 tokens: " in words
    cue = "'Step by step.' before the question, a line end"
    assert f"Chain of thought, 3 tokens: the cue is {cue}" in words
    assert "in the latents' time: on this machine latents take " in words
    chains = json.loads((coprocessor_folder / "problems.json").read_text())["chains"]
    assert list(chains) == ["cot", "cot:2", "cot:latency"]
    assert chains["cot:latency"]["latency"].keys() == {"latents_seconds", "token_seconds"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--problems", "word"), "no family of problems 'word', the nearest is 'words': known are"),
        (("--problems", "all", "--steps", "6-1"), "steps must be like 1-6, 3 or 1,2,4, got '6-1'"),
        (("--problems", "all", "--steps", "few"), "got 'few'"),
        (("--problems", "all", "--steps", "1-13"), "steps must be from 1 to 12, got 13"),
        (("--problems", "all", "--count", "0"), "count must be at least 2"),
        (("--problems", "all", "--shots", "-1"), "shots must be at least 0, got -1"),
        (("--problems", "all", "--data", "x", "--delay", "1"), "leave out --data, --delay"),
        (("nano", "--bench", "piqa"), "--bench asks one RUN at a time"),
        (("--steps", "1-6"), "--steps is for problems: add --problems all"),
        (("--against", "cot"), "against 'cot' is for questions with an answer to find, and texts"),
        (("--count", "7"), "--count is for problems: add --problems all"),
    ],
)
def test_a_wrong_use_is_one_sentence(refused, coprocessor_folder, options, said):
    assert said in refused("eval", coprocessor_folder, *options, code=2)


def test_problems_that_do_not_fit_are_refused(refused, coprocessor_folder):
    line = refused("eval", coprocessor_folder, "--problems", "words", "--count", "2")
    assert "64 positions, and a question of" in line
    assert "ask fewer --steps" in line
