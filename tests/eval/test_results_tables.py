"""The tables of `docs/results.md`: what is declared can be run, and the page says what was kept."""

import argparse
import json
import re
import shlex
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import bigger_base
import claims
import pytest
import typer
from experiments import load
from measured import Measured
from results_page import write_page

from deliberate.cli.main import app
from deliberate.core import load_base, load_coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.kinds import build
from deliberate.eval import Sample, evaluate
from deliberate.train import load_recipe

TABLES = Path(__file__).parents[2] / "recipes" / "tables"
BASE = "0123456789abcdef"
TRAINING = {
    "command": "deliberate train some.yaml",
    "made": {"machine": "2 x Some CPU", "commit": "c0ffee"},
    "steps": 1000,
    "seed": 1,
    "seconds": 1800,
    "cpu_seconds": 5400.0,
    "flops": 2.5e15,
    "parameters": 987_654,
    "validations": [],
}


@pytest.fixture
def keep(experiments, tmp_path):
    """Keep results of a run as if they had been measured."""

    def kept(run, results, *, base=BASE, training=TRAINING):
        measured = Measured(name=run, key=experiments.key(run, base), training=dict(training))
        for measure, result in results.items():
            measured.measures[measure] = {
                "key": experiments.measured_key(measure, base),
                "command": f"deliberate eval {run}",
                "made": TRAINING["made"],
                "result": result,
            }
        measured.write(tmp_path / "results")

    return kept


@pytest.fixture
def page(experiments, tmp_path):
    """The page's sections by heading."""

    def written():
        path = write_page(experiments, BASE, tmp_path)
        lead, *parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
        return {"lead": lead, **dict(part.split("\n", 1) for part in parts)}

    return written


def row(text: str, name: str) -> list[str]:
    [line] = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
    plain = line.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
    return [cell.strip() for cell in plain.split("|")]


@pytest.fixture(scope="module")
def recipes(experiments, tmp_path_factory):
    """Every run's recipe, resolved; what others begin from is there, untrained."""
    from deliberate.core import save_coprocessor

    base, work = load_base(), tmp_path_factory.mktemp("runs")
    for run in {each for said in experiments.runs.values() for each in named(experiments, said)}:
        config = experiments.recipe(run, str).coprocessor
        save_coprocessor(build(config, base), work / run, base=base)
    return {run: experiments.recipe(run, lambda name: str(work / name)) for run in experiments.runs}


def named(experiments, said):
    return experiments.after(json.dumps(dict(said)))


def test_every_run_is_a_recipe_and_no_two_are_the_same(recipes):
    dumped = [json.dumps(recipe.to_dict(), sort_keys=True) for recipe in recipes.values()]
    assert len({*dumped}) == len(dumped)


def test_the_rows_of_a_table_have_the_same_budget(experiments, recipes):
    for table in experiments.tables.values():
        if table.name in {"figure5", "figure6", "reasoning-longer", "seeds"}:  # which differ in it
            continue
        budgets = {
            (each.train.steps, each.train.batch, each.objective.anchors, each.train.seed)
            for each in (recipes[run] for run in table.runs if run in recipes)
        }
        assert len(budgets) == 1, table.name


def test_every_measure_is_a_command_that_parses(experiments):
    command = typer.main.get_command(app).commands["eval"]
    for measure in experiments.measures:
        typed = shlex.split(experiments.arguments(measure, str))
        command.make_context("eval", ["RUN", *typed], obj=["deliberate"])


def test_what_is_named_and_not_there_is_refused(tmp_path):
    text = (TABLES / "experiments.yaml").read_text()
    path = tmp_path / "experiments.yaml"
    path.write_text(text.replace("runs: [full-4, full-8,", "runs: [full-5, full-8,"))
    with pytest.raises(ValueError, match=r"run of table table1 must be one of .*, got 'full-5'"):
        load(path)
    path.write_text(text.replace("soft:@soft-4", "soft:@soft-61"))
    with pytest.raises(ValueError, match=r"measure controls names must be .*, got 'soft-61'"):
        load(path)


def test_a_key_changes_with_all_that_a_run_depends_on(tmp_path):
    first = load()
    text = (TABLES / "experiments.yaml").read_text()
    path = tmp_path / "experiments.yaml"
    path.write_text(text.replace("full-4: {}", "full-4: {train.clip: 2.0}"))
    other = load(path)
    changed = {run for run in first.runs if first.key(run, BASE) != other.key(run, BASE)}
    assert changed == {"full-4", "adapted"}  # which begins from it
    path.write_text(text.replace("pause-4: {", "pause-4: {train.clip: 2.0, "))
    other = load(path)
    keys = [{m: each.measured_key(m, BASE) for m in each.measures} for each in (first, other)]
    with_pause = {"controls", "controls-16", "controls-behind"}
    assert {m for m in keys[0] if keys[0][m] != keys[1][m]} == with_pause
    path.write_text(text.replace("solve-8: {", "solve-8: {train.clip: 2.0, "))
    other = load(path)
    changed = {run for run in first.runs if first.key(run, BASE) != other.key(run, BASE)}
    like = {"solve-8-longer", "solve-soft-8", "solve-pause-8", "solve-continued"}
    assert changed == {"solve-8", *like}
    path.write_text(text.replace("solve-4:\n", "solve-4:\n    like: solve-8\n"))
    with pytest.raises(ValueError, match=r"what run solve-8 is like must be .*, got 'solve-4'"):
        load(path)
    budget = tmp_path / "nano.yaml"
    common = (TABLES.parent / "nano.yaml").read_text()
    budget.write_text(re.sub("steps: [0-9]+", "steps: 798", common))
    shorter = load(budget=budget)
    assert all(first.key(run, BASE) != shorter.key(run, BASE) for run in first.runs)
    assert all(first.key(run, BASE) != first.key(run, "f" * 16) for run in first.runs)
    assert load_recipe(budget, changes=shorter.changes("half", str)).train.steps == 399
    # What a recipe leaves to the defaults is no part of it: options are added to recipes.
    assert replace(first, common=shorter.common).key("full-4", BASE) == first.key("full-4", BASE)


def test_the_page_in_the_repository_is_of_what_is_kept_there(experiments, tmp_path):
    docs = TABLES.parents[1] / "docs"
    copytree(docs / "results", tmp_path / "results", ignore=ignore_patterns("*.png"))
    made = write_page(experiments, load_base().fingerprint, tmp_path)
    assert made.read_text() == (docs / "results.md").read_text()
    for picture in (tmp_path / "results").glob("*.png"):
        assert (docs / "results" / picture.name).exists()


def test_a_page_of_nothing_says_so_of_every_table(experiments, page):
    found = page()
    assert ": 0 of " in found["lead"]
    for table in experiments.tables.values():
        assert "not measured yet" in found[table.title].lower(), table.name
        assert f"make results ONLY={table.name}" in found[table.title]


def test_a_table_has_the_numbers_that_were_kept_and_names_what_is_missing(
    keep, page, made_results, tmp_path
):
    result = made_results["tasks"]["perplexity"]["result"][0]
    cost = made_results["tasks"]["cost"]["result"]
    keep("full-4", {"texts": result, "cost": {**cost, "rows": cost["rows"][:2]}})
    keep("full-16", {"texts": result})
    found = page()
    assert ": 2 of " in found["lead"]
    text = found["Table 1: change of perplexity by number of latents"]
    cells = row(text, "full-4")
    assert cells[0].startswith("**-1.50 %** (-1.67 … -1.33)")
    assert cells[6:] == ["1,000", "987,654", "2.5 PFLOP", "1.50", "0 FLOP",
                         "8.00 ms (7.20 ms … 8.80 ms)"]  # fmt: skip
    assert row(text, "full-8")[0] == "not measured yet"
    assert row(text, "base alone, perplexity")[:2] == ["11.00", "10.90"]
    pictures = re.findall(r"\]\((results/[\w-]+\.png)\)", text)
    assert pictures == ["results/table1.png"]
    assert (tmp_path / pictures[0]).read_bytes().startswith(b"\x89PNG")
    assert "deliberate eval full-4" in found["Commands"]


def test_what_is_of_another_recipe_or_base_is_not_shown(keep, page, made_results):
    result = made_results["tasks"]["perplexity"]["result"][0]
    keep("full-4", {"texts": result}, base="f" * 16)
    found = page()
    assert ": 0 of " in found["lead"]
    assert "1.50 %" not in "".join(found.values())


def test_reasoning_adds_up_the_families_and_tests_the_sums(keep, page, made_results):
    result = deepcopy(made_results["tasks"]["problems"]["result"][1])
    cells = [cell for family in result["families"].values() for cell in family.values()]
    for cell in [result["total"], *cells]:
        for found in (cell["percent"], cell["against_base"], cell["latents_against"]):
            found["shuffled_but_last"] = found["shuffled"]
    keep("solve-8", {"reasoning": result})
    text = page()["Table 2: reasoning, on made problems by number of steps"]
    assert row(text, "1")[0].startswith("70.0 %")  # 35 of 50 in each of two families
    assert row(text, "1")[1].startswith("76.0 %")
    difference, gained, lost, p = row(text, "solve-8, 1")[:4]
    # 9 gained and 3 lost in each of two families of 50
    assert difference.startswith("**+12.00 points**")
    assert (gained, lost, p) == ("18", "6", "0.023")
    assert "Not measured yet: solve-4, solve-16, solve-32." in text


def test_chains_of_thought_are_beside_their_tokens(keep, page, made_results):
    keep("solve-4", {"chains": made_results["tasks"]["problems"]["result"][0]})
    text = page()["Table 4: chain of thought"]
    latency = row(text, "solve-4: chain of thought, 11 tokens in the latents' time")
    assert latency[0].startswith("69.0 %")
    assert latency[-1] == "8.5"
    assert row(text, "solve-4: latents")[-1] == "4.0"


def test_controls_and_delays_are_those_of_the_report(keep, page, made_results):
    result = made_results["tasks"]["perplexity"]["result"][0]
    keep("full-4", {"controls": result, "late": result})
    found = page()
    controls = found["Controls and baselines, 4 latents"]
    assert len(row(controls, "1")) == 5  # four conditions and the base
    assert len(row(controls, "zeros")) == 6
    late = found["Table 8: latents that arrive late, trained with and without delay"]
    assert row(late, "full-4, 2 tokens late") == row(late, "full-4, 0 tokens late")


def test_the_same_results_give_the_same_page(keep, page, made_results, tmp_path):
    for run in ("full-4", "full-16"):  # one alone is not drawn
        keep(run, {"texts": made_results["tasks"]["perplexity"]["result"][0]})
    pages = [(page(), (tmp_path / "results" / "table1.png").read_bytes()) for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_bigger_base_is_measured_at_the_very_anchors_of_the_others(tmp_path, llama):
    path = tmp_path / "text.txt"
    path.write_text(Path(__file__).read_text())
    base = load_base()
    options = argparse.Namespace(data=str(path), texts=3, anchors=4, length=256)
    found = bigger_base.compared(base, base, options)
    report = evaluate(
        base,
        load_coprocessor("nano", base=base),
        controls=(),
        data=str(path),
        sample=Sample(texts=3, anchors=4, length=256),
    ).to_dict()
    assert found["perplexity"]["base"] == pytest.approx(report["perplexity"]["base"])
    assert {each["value"] for each in found["change_percent"]["latents"].values()} == {0.0}
    assert found["anchors"] == report["anchors"]
    with pytest.raises(DeliberateError, match="other tokens than"):
        bigger_base.compared(base, llama, options)


def test_a_claim_holds_at_the_tokens_whose_interval_excludes_zero():
    below, around, above = ({"value": v, "low": v - 1, "high": v + 1} for v in (-3.0, 0.5, 3.0))
    found = {"1": below, "2": below, "4": around, "8": above}
    assert claims._where(found, ["1", "2"]) == "yes, at tokens 1, 2"
    assert claims._where(found, ["2", "4", "8"]) == (
        "yes at 2; no difference to be told at 4; the contrary at 8"
    )
    assert claims._where(None, ["1"]) == "not measured yet"


def test_the_claims_are_of_what_was_measured(keep, page, made_results):
    result = deepcopy(made_results["tasks"]["perplexity"]["result"][0])
    changes = result["change_percent"]["latents"]
    kept = {}
    for number, run in enumerate(("full-4", "full-8", "full-16", "full-32")):
        kept[run] = deepcopy(result)
        for token in kept[run]["change_percent"]["latents"]:  # grows at token 1 alone
            value = changes[token]["value"] - (number if token == "1" else 0)
            kept[run]["change_percent"]["latents"][token] |= {"value": value}
        keep(run, {"texts": kept[run]})
    text = page()["Which claims hold"]
    assert row(text, "More latents lower it more")[2] == "lower with each step at 1 (not paired)"
    assert "not measured yet" in row(text, "They beat a pause token")
