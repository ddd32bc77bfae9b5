"""What a report says of made-up results, and that whatever may be missing is not missed."""

import re

import numpy as np
import pytest

from deliberate.eval.bench.mcnemar import McNemar
from deliberate.eval.report_folder.blocks import Plot
from deliberate.eval.report_folder.cost import cost
from deliberate.eval.report_folder.document import heading, sections
from deliberate.eval.report_folder.examples import examples
from deliberate.eval.report_folder.gate import gate
from deliberate.eval.report_folder.markdown import markdown as written
from deliberate.eval.report_folder.page import page
from deliberate.eval.report_folder.tradeoff import tradeoff

HEADINGS = (
    "Verdict",
    "Perplexity by token ahead",
    "Against other latents",
    "Late latents",
    "By domain",
    "Problems",
    "When to ask for latents",
    "Quality against latency",
    "What it costs",
    "Benchmarks",
    "Examples",
    "How it was measured",
)


def headings(markdown):
    return re.findall(r"^## (.*)$", markdown, re.MULTILINE)


def said(results):
    """The Markdown, for which nothing is drawn."""
    return written(heading(results), sections(results))


def test_all_that_was_measured_is_shown_in_its_order(made_results):
    assert tuple(headings(said(made_results))) == HEADINGS


@pytest.mark.parametrize("task", ["perplexity", "problems", "cost", "bench"])
def test_a_task_that_was_not_measured_is_not_shown(made_results, task):
    del made_results["tasks"][task]
    missing = {
        "perplexity": {*HEADINGS[1:5], "When to ask for latents", "Examples"},
        "problems": {"Problems"},
        "cost": {"What it costs", "Quality against latency"},
        "bench": {"Benchmarks"},
    }[task]
    markdown = said(made_results)
    assert set(headings(markdown)) == {*HEADINGS} - missing


def test_each_task_alone_and_none_at_all_is_a_report(made_results):
    tasks = made_results["tasks"]
    for names in ([], *([name] for name in tasks)):
        markdown = said({**made_results, "tasks": {name: tasks[name] for name in names}})
        assert headings(markdown)[-1] == "How it was measured"


OPTIONAL = ("gate", "examples", "delays", "domains", "latents_against", "anchors", "documents")


@pytest.mark.parametrize("key", OPTIONAL)
def test_what_a_report_of_perplexity_may_lack_is_not_missed(alone, key):
    [report] = alone["tasks"]["perplexity"]["result"]
    del report[key]
    said(alone)


def nulls(value):
    """Every value of a document and of what is in it, one by one, as none."""
    for key, each in value.items():
        value[key] = None
        yield
        value[key] = each
        for inner in each if isinstance(each, list) else [each]:
            if isinstance(inner, dict):
                yield from nulls(inner)


def test_any_value_of_cost_may_be_none(made_results):
    for _ in nulls(made_results["tasks"]["cost"]["result"]):
        cost(made_results)
        tradeoff(made_results)


def test_any_value_of_a_gate_may_be_none(made_results):
    for _ in nulls(made_results["tasks"]["perplexity"]["result"][0]["gate"]):
        gate(made_results)


@pytest.mark.parametrize("none", [None, float("nan")])
def test_numbers_that_are_none_are_dashes_and_no_nan_is_drawn(alone, none):
    row = alone["tasks"]["perplexity"]["result"][0]["change_percent"]["latents"]
    row["32"] = {"value": none, "low": none, "high": none}
    for block in (block for each in sections(alone) for block in each.blocks):
        for line in block.lines if isinstance(block, Plot) else ():
            assert np.isfinite([*line.x, *line.y, *line.low, *line.high]).all()
    markdown = said(alone)
    assert re.search(r"\| 32 \| \N{EN DASH} \|", markdown)
    assert "nan" not in markdown.lower().replace("document", "")


def test_the_rival_stands_as_far_as_it_takes(made_results):
    [section] = tradeoff(made_results)
    solved = section.blocks[1]
    base, latents, rival = solved.lines
    assert (list(base.x), list(base.y)) == ([0.0], [60.0])
    assert list(latents.x) == pytest.approx([8.0, 12.0])  # milliseconds
    assert list(latents.names) == ["4 latents", "8 latents"]
    rows = made_results["tasks"]["cost"]["result"]["chain_of_thought"]
    timed = {row["tokens"]: row["first_token_cached_seconds"]["median"] for row in rows}
    seconds = np.interp([4, 11, 64], list(timed), list(timed.values()))
    assert list(rival.x) == pytest.approx(1000 * (seconds - 0.004))
    assert list(rival.y) == [62.0, 69.0, 78.0]
    assert list(rival.names) == ["4 tokens", "11 tokens", "64 tokens"]
    assert "linear" in section.blocks[2].text


def test_a_rival_longer_than_what_was_timed_stands_where_its_own_time_was_measured(made_results):
    for report in made_results["tasks"]["problems"]["result"]:
        report["chains"]["cot:64"]["most_tokens"] = 65
        report["chains"]["cot:latency"]["most_tokens"] = 70
    [section] = tradeoff(made_results)
    rival = section.blocks[1].lines[-1]
    assert list(rival.names) == ["4 tokens", "70 tokens"]
    assert rival.x[1] == pytest.approx(70 * 1.0)  # milliseconds


def test_each_kind_has_a_line_and_runs_of_as_many_latents_their_names(made_results):
    rows = made_results["tasks"]["cost"]["result"]["rows"]
    rows[2]["latents"] = 4
    lines = tradeoff(made_results)[0].blocks[0].lines
    assert [line.label for line in lines] == ["base alone", "with latents"]
    assert list(lines[1].names) == ["runs/4, 4 latents", "runs/8, 4 latents"]
    assert not lines[1].joined
    rows[2]["kind"] = "lora"
    lines = tradeoff(made_results)[0].blocks[0].lines
    assert [line.label for line in lines] == ["base alone", "kind full", "kind lora"]
    assert len({line.style for line in lines} | {2}) == 4  # 2 is chain of thought's


def test_the_verdict_says_what_else_problems_were_solved_with(alone):
    total = alone["tasks"]["problems"]["result"][0]["total"]
    markdown = said(alone)
    assert total["latents_against"]["cot:64"]["high"] < 0
    assert "Against chain of thought, 64 tokens: fewer solved." in markdown
    assert total["latents_against"]["shuffled"]["low"] == 0
    assert "Against another question's latents: no difference that can be told." in markdown


def test_each_row_of_cost_says_its_run_kind_and_number_and_repeats_are_no_interval(made_results):
    markdown = said(made_results)
    assert markdown.count("| latents: runs/4 (full, 4 latents) |") == 2
    assert markdown.count("| latents: runs/8 (full, 8 latents) |") == 2
    costs = markdown.partition("## What it costs")[2].partition("## ")[0]
    assert costs.count("| base alone |") == 2
    assert "Medians, and from the least to the most, of 9 repeats" in markdown


def test_without_a_p_no_benchmark_is_told_from_none(alone):
    for found in alone["tasks"]["bench"]["result"]["sets"].values():
        found["p"] = None
    markdown = said(alone)
    assert "No difference that can be told on any benchmark" in markdown
    assert "On benchmarks better" not in markdown


def test_prompts_that_lost_their_beginning_are_told_of_under_the_table(alone):
    assert "lost their beginning" not in said(alone)
    sets = alone["tasks"]["bench"]["result"]["sets"]
    sets["piqa"]["cut"], sets["boolq"]["cut"] = {"base": 2, "latents": 0}, {"base": 0, "latents": 3}
    note = (
        "Prompts longer than the base reads, which lost their beginning: "
        "piqa, base alone: 2; boolq, with latents: 3."
    )
    assert note in said(alone).partition("## Benchmarks")[2].partition("## ")[0]
    assert note in page(heading(alone), sections(alone))


def test_too_few_questions_are_told_from_no_difference(alone):
    sets = alone["tasks"]["bench"]["result"]["sets"]
    sets["boolq"]["questions"] = 5
    told = "Too few questions to tell on boolq: of fewer than 6, McNemar's p is never below 0.05."
    assert told in said(alone)
    assert "No difference that can be told" not in said({**alone, "tasks": {
        "bench": alone["tasks"]["bench"]
    }})  # fmt: skip
    assert McNemar(gained=5, lost=0).p > 0.05 > McNemar(gained=6, lost=0).p


def test_too_few_problems_are_told_of(alone):
    [report] = alone["tasks"]["problems"]["result"]
    assert "not to be believed" not in said(alone).partition("## Problems")[2].partition("## ")[0]
    family = next(iter(report["families"]))
    report["families"][family]["all"]["problems"], report["problems"] = 4, 4
    markdown = said(alone)
    assert f"Fewer than 10 problems, and intervals not to be believed: {family}." in markdown
    assert "Too few problems to tell whether latents solve more: 4." in markdown


def test_captions_say_which_of_several_delays_a_table_shows(alone):
    [report] = alone["tasks"]["perplexity"]["result"]
    caption = "Change of perplexity against the base alone"
    for delay, said_of_it in ((0, ", latents at once"), (2, ", latents 2 tokens late")):
        report["delay"] = delay
        assert f"**{caption}{said_of_it}**" in said(alone)
    del report["delays"]
    report["delay"] = 0
    assert f"**{caption}**" in said(alone)


def test_a_run_with_a_time_and_no_problems_is_no_point(made_results):
    made_results["tasks"]["cost"]["result"]["rows"].pop()
    [section] = tradeoff(made_results)
    assert [len(block.lines[1].x) for block in section.blocks[:2]] == [1, 1]


def test_a_token_is_tinted_by_doublings(made_results):
    [section] = examples(made_results)
    helped, hurt, *_ = section.blocks
    assert [token.tint for token in helped.examples[0].tokens] == [2, 2, 2]
    assert [token.tint for token in hurt.examples[0].tokens] == [-2, -2, -2]
    assert hurt.examples[0].tokens[0].times.startswith("÷ 4")


def test_who_measured_what_before_is_said(alone):
    alone["tasks"]["bench"]["made"] = {"machine": "Another GPU", "deliberate": "0.0.9"}
    markdown = said(alone)
    assert "| bench | 2026-11-26T01:00:00Z | 61.50 s | Another GPU, 0.0.9 |" in markdown
    assert "| cost | 2026-11-26T01:00:00Z | 61.50 s | the same |" in markdown
