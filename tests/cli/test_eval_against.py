"""`deliberate eval` against named controls, with delays, at every token, of several runs."""

import json
import re
from pathlib import Path

import pytest

from deliberate.core import load_base, save_coprocessor


@pytest.fixture
def held_out(offline):
    path = Path("held.jsonl").absolute()
    rows = [{"body": "words and more words " * (2 + row)} for row in range(5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def folders(offline, llama_folder, make):
    """More runs of the tiny base, by name."""
    base = load_base(str(llama_folder))
    for name, settings in {
        "five": {"latents": 5},
        "soft": {"kind": "soft"},
        "pause": {"kind": "pause", "latents": 5},
    }.items():
        save_coprocessor(make(base, "warm", **settings), Path(name), base=base)


@pytest.fixture
def measured(run, coprocessor_folder, folders, held_out):
    def measured(*more):
        few = ("--data", held_out, "--field", "body", "--ahead", "4", "--length", "30")
        return run("eval", coprocessor_folder, *more, *few)

    return measured


def test_the_controls_that_are_named_are_shown_in_eighty_columns(measured):
    named = ("--against", "random,zero,reversed,shuffled,soft:soft,every:2", "--anchors", "3")
    report = json.loads(measured(*named, "--json").out)
    assert list(report["change_percent"]) == [
        "latents", "random", "zero", "reversed", "shuffled", "every:2", "soft"
    ]  # fmt: skip
    shown = measured(*named).out
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    assert shown.count("base") >= 2  # two tables
    words = " ".join(shown.split())
    for heading in ("random latents", "zeros", "latents reversed", "another text's latents"):
        assert f"Against {heading}: " in words
    alone = json.loads(measured("--against", "none", "--anchors", "3", "--json").out)
    assert alone["change_percent"].keys() == {"latents"}
    assert alone["change_percent"]["latents"] == report["change_percent"]["latents"]


def test_soft_is_another_way_to_name_a_baseline(measured):
    few = ("--anchors", "3", "--json")
    one = json.loads(measured("--soft", "soft", *few).out)
    other = json.loads(measured("--against", "shuffled,shuffled_but_last,soft:soft", *few).out)
    assert one == other


def test_several_delays_are_a_table_each(measured):
    report = json.loads(measured("--delay", "0,2", "--every-token", "--json").out)
    assert list(report["delays"]) == ["0", "2"]
    assert report["every_token"]
    shown = measured("--delay", "0,2", "--every-token").out
    assert "late by" in shown
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    late = measured("--delay", "2", "--anchors", "3").out
    assert "latents 2 tokens late" in " ".join(late.split())


def test_several_runs_are_measured_at_the_same_anchors(measured, run, held_out):
    report = json.loads(
        measured("five", "--anchors", "3", "--against", "pause:pause", "--json").out
    )
    three, five = report["results"]
    assert (three["setting"]["latents"], five["setting"]["latents"]) == (3, 5)
    assert (five["run"], three["anchors"]) == ("five", five["anchors"])
    assert three["perplexity"]["base"] == five["perplexity"]["base"]
    assert three["change_percent"].keys() == {"latents"}
    assert five["change_percent"].keys() == {"latents", "pause"}
    shown = measured("five", "--anchors", "3", "-o", "both.json").out
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    words = " ".join(shown.split())
    assert "five: full, 5 latents" in words
    assert "3 latents" in words
    for result in (three, five):
        assert f"{result['perplexity']['latents']['4']:.3f}" in shown
    assert [each["run"] for each in json.loads(Path("both.json").read_text())["results"]][
        1
    ] == "five"
    # Each is what it is by itself, where the anchors are all there are.
    data = ("--data", held_out, "--field", "body", "--ahead", "4", "--length", "30")
    few = ("--every-token", "--against", "none", "--json", *data)
    together = json.loads(run("eval", "five", "soft", *few).out)
    alone = json.loads(run("eval", "five", *few).out)
    assert {"run": "five", **alone} == together["results"][0]


def test_several_runs_show_delays_and_domains_each(measured, run):
    rows = [{"body": "words and so on " * 3, "of": "ab"[n % 2]} for n in range(12)]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    few = ("--data", "rows.jsonl", "--field", "body", "--domain", "of", "--delay", "0,2")
    shown = run("eval", "five", "soft", *few, "--ahead", "4", "--length", "30").out
    assert "perplexity by token after the anchor, latents at once" in " ".join(shown.split())
    assert (shown.count("late by"), shown.count("domain ")) == (2, 2)
    assert "--json, or -o FOLDER" in " ".join(shown.split())
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80


def test_several_runs_keep_nothing_that_was_not_asked_for(measured, coprocessor_folder):
    outcome = measured("five", "--anchors", "3")
    assert outcome.code == 0, outcome.err
    assert "wrote" not in outcome.err
    assert not (coprocessor_folder / "eval.json").exists()
    assert not Path("five/eval.json").exists()


def test_what_cannot_be_compared_is_one_sentence(refused, coprocessor_folder, folders, held_out):
    def said(*more, code=2):
        return refused(
            "eval", coprocessor_folder, "--data", held_out, "--field", "body", *more, code=code
        )

    line = said("--against", "shufled")
    assert "no control 'shufled', the nearest is 'shuffled': known are" in line
    assert "pause:RUN, every:TOKENS, cot, cot:TOKENS, cot:latency, none" in line
    assert "the delay is 2,1: say --delay 0" in said("--against", "every:2", "--delay", "2,1")
    assert "asks again after 4 tokens, and 4 are" in said("--against", "every:4", "--ahead", "4")
    assert "--soft b and --against soft: both" in said("--against", "soft:a", "--soft", "b")
    assert "exclude each other" in said("--every-token", "--anchors", "3")
    assert "several as 0,1,2,8, each once, got 'soon'" in said("--delay", "soon")
    assert "each once, got '1,1'" in said("--delay", "1,1")
    few = ("--ahead", "4", "--length", "30")
    assert "must be of kind pause with 3" in said("--against", "pause:pause", *few, code=1)
    assert "'nowhere'" in said("--against", "soft:nowhere", *few, code=1)
    assert "'nowhere'" in said("nowhere", *few, code=1)


def test_domains_are_shown_by_themselves(run, coprocessor_folder):
    rows = [
        {"text": "words and so on " * 3, "of": "[b]ooks" if n % 3 else "web"} for n in range(18)
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    few = ("--data", "rows.jsonl", "--domain", "of", "--ahead", "4", "--length", "60")
    outcome = run("eval", coprocessor_folder, *few)
    assert outcome.code == 0, outcome.err
    words = " ".join(outcome.out.split())
    assert "[b]ooks" in words
    assert "12 passages" in words
    assert "not to be believed: web." in words
    assert max(len(line) for line in outcome.out.splitlines() if "/" not in line) <= 80
    report = json.loads(run("eval", coprocessor_folder, *few, "--json").out)
    assert list(report["domains"]) == ["[b]ooks", "web"]


def test_a_domain_of_answers_that_are_all_short_has_no_number_where_they_end(
    run, coprocessor_folder
):
    answers = {"short": "a", "long": "words and so on and on"}
    rows = [
        {"q": f"what is {n}? ", "a": answers[kind], "of": kind}
        for n in range(12)
        for kind in answers
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pairs = ("--data", "rows.jsonl", "--question", "q", "--answer", "a", "--domain", "of")
    few = (*pairs, "--ahead", "8", "--length", "60")
    outcome = run("eval", coprocessor_folder, *few, "-o", "report", "--json")
    assert outcome.code == 0, outcome.err
    domains = json.loads(outcome.out)["domains"]
    assert domains["short"]["perplexity"]["base"]["8"] is None
    nothing = {"value": None, "low": None, "high": None}
    assert domains["short"]["change_percent"]["latents"]["8"] == nothing
    assert domains["long"]["change_percent"]["latents"]["8"]["value"] is not None
    shown = run("eval", coprocessor_folder, *few)
    assert shown.code == 0, shown.err
    assert re.search(r"^ *short .* -\s*$", shown.out, re.MULTILINE)
    assert "nan" not in shown.out


def test_a_run_that_learned_with_a_delay_is_measured_with_it(run, held_out, llama_folder, make):
    base = load_base(str(llama_folder))
    recipe = {"objective": {"delay": 2}}
    save_coprocessor(make(base, "warm"), Path("late"), base=base, recipe=recipe)
    few = ("--data", held_out, "--field", "body", "--ahead", "4", "--length", "30", "--json")
    assert json.loads(run("eval", "late", *few).out)["delay"] == 2
    assert json.loads(run("eval", "late", *few, "--delay", "0").out)["delay"] == 0
