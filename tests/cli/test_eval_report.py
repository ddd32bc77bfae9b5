"""`deliberate eval -o FOLDER`: the report, task by task, gone on with, and never lost."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from deliberate.eval.report_folder.extra import EXTRA as REPORT_EXTRA
from deliberate.eval.report_folder.tradeoff import tradeoff

FEW = ("--ahead", "8", "--anchors", "3", "--texts", "4")
SMALL = (*FEW, "--delay", "0,1", "--problems", "symbols", "--steps", "1", "--count", "2")
SHORT = ("--prompt-tokens", "8", "--decoded-tokens", "2", "--repeats", "1")


@pytest.fixture
def held_out(offline):
    path = Path("held.jsonl").absolute()
    rows = [{"text": "words and more words " * (2 + row)} for row in range(5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def report(run, coprocessor_folder, held_out):
    def report(*more, folder="report"):
        return run("eval", coprocessor_folder, "--data", held_out, *FEW, "-o", folder, *more)

    return report


@pytest.fixture
def tasks(monkeypatch):
    """Which measurements ran, in their order."""
    ran = []

    def counted(name, measure):
        def wrapper(*given, **named):
            ran.append(name)
            return measure(*given, **named)

        return wrapper

    from deliberate.cli.eval_cost import Costs
    from deliberate.cli.eval_problems import Problems
    from deliberate.cli.eval_texts import Texts

    for task, name in ((Texts, "perplexity"), (Problems, "problems"), (Costs, "cost")):
        monkeypatch.setattr(task, "measure", counted(name, task.measure))
    return ran


def kept(folder="report"):
    return json.loads(Path(folder, "results.json").read_text())


def test_a_folder_gets_the_page_the_markdown_and_the_document(report, held_out):
    outcome = report()
    assert outcome.code == 0, outcome.err
    assert "wrote report/report.html" in outcome.err
    document = kept()
    assert document["made"]["command"].startswith("deliberate eval")
    assert str(held_out) in document["made"]["command"]
    (result,) = document["tasks"]["perplexity"]["result"]
    assert result["examples"].keys() == {"helped", "hurt"}
    assert "<html" in Path("report", "report.html").read_text()
    assert Path("report", "report.md").exists()


def test_what_is_printed_and_kept_with_the_run_quotes_no_text(run, coprocessor_folder, held_out):
    outcome = run("eval", coprocessor_folder, "--data", held_out, *FEW, "--json")
    assert "examples" not in json.loads(outcome.out)
    assert "examples" not in json.loads((coprocessor_folder / "eval.json").read_text())


def test_what_is_printed_beside_a_report_quotes_no_text_either(report):
    outcome = report("--json")
    assert "examples" not in json.loads(outcome.out)
    assert "examples" in kept()["tasks"]["perplexity"]["result"][0]


def test_a_suite_in_one_file_has_all_its_tasks(run, coprocessor_folder, held_out):
    outcome = run(
        "eval", coprocessor_folder, "--suite", "quick", "--data", held_out, *SMALL, *SHORT,
        "--against", "none", "-o", "all.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("all.json").read_text()).keys() == {"perplexity", "problems", "cost"}


def test_a_suite_gives_way_to_every_token_which_has_its_own_anchors(
    run, coprocessor_folder, held_out
):
    outcome = run(
        "eval", coprocessor_folder, "--suite", "quick", "--data", held_out, "--every-token",
        "--texts", "2", "--length", "32", "--ahead", "4", "--steps", "1", *SHORT,
        "--problems", "symbols", "--count", "2", "--against", "none", "-o", "all.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err


def test_a_suite_measures_all_three_into_the_runs_own_folder(run, coprocessor_folder, held_out):
    outcome = run(
        "eval", coprocessor_folder, "--suite", "quick", "--data", held_out, *SMALL, *SHORT,
        "--against", "shuffled,every:4,cot,cot:latency", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result.keys() == {"perplexity", "problems", "cost"}
    assert result["perplexity"]["delays"].keys() == {"0", "1"}
    assert "every:4" in result["perplexity"]["delays"]["0"]["perplexity"]
    assert "every:4" not in result["perplexity"]["delays"]["1"]["perplexity"]
    assert "cot" in result["problems"]["total"]["percent"]
    document = kept(coprocessor_folder / "report")
    assert document["tasks"].keys() == result.keys()
    # Of problems that nobody solves no plot is drawn.
    for share in document["tasks"]["problems"]["result"][0]["total"]["percent"].values():
        share["value"] = 5.0
    [plot] = [
        block
        for block in tradeoff(document)[0].blocks
        if getattr(block, "name", "") == "quality-problems"
    ]
    assert [line.label for line in plot.lines] == ["base alone", "with latents", "chain of thought"]
    chains = result["problems"]["chains"].values()
    assert len(plot.lines[2].x) == len({chain["most_tokens"] for chain in chains})


def test_another_task_joins_a_report_that_is_gone_on_with(report, run, coprocessor_folder, tasks):
    assert report().code == 0
    first = kept()["tasks"]["perplexity"]
    outcome = run("eval", coprocessor_folder, "--cost", *SHORT, "-o", "report", "--resume")
    assert outcome.code == 0, outcome.err
    assert kept()["tasks"].keys() == {"perplexity", "cost"}
    assert kept()["tasks"]["perplexity"]["result"] == first["result"]
    assert tasks == ["perplexity", "cost"]


def test_an_interrupted_suite_goes_on_after_its_last_task(
    run, coprocessor_folder, held_out, tasks, monkeypatch
):
    suite = (
        "eval", coprocessor_folder, "--suite", "quick", "--data", held_out, *SMALL, *SHORT,
        "--against", "shuffled", "-o", "report", "--json",
    )  # fmt: skip
    with monkeypatch.context() as patch:

        def interrupt(*given, **named):
            raise KeyboardInterrupt

        patch.setattr("deliberate.eval.cost.cost", interrupt)
        assert run(*suite).code == 130
    assert tasks == ["perplexity", "problems", "cost"]
    outcome = run(*suite, "--resume")
    assert outcome.code == 0, outcome.err
    assert "perplexity: measured before, kept" in outcome.err
    assert tasks == ["perplexity", "problems", "cost", "cost"]
    assert json.loads(outcome.out).keys() == {"perplexity", "problems", "cost"}


def test_interrupted_problems_go_on_after_their_last_run(
    run, coprocessor_folder, folder_of_another, tasks, monkeypatch
):
    ask = (
        "eval", coprocessor_folder, folder_of_another, "--problems", "symbols", "--steps", "1",
        "--count", "2", "-o", "report", "--json",
    )  # fmt: skip
    from deliberate.eval import accuracy

    asked = accuracy.ask_problems
    with monkeypatch.context() as patch:

        def interrupt(base, subject, *given, **named):
            if subject.trained.id == str(folder_of_another):
                raise KeyboardInterrupt
            return asked(base, subject, *given, **named)

        patch.setattr(accuracy, "ask_problems", interrupt)
        outcome = run(*ask)
    assert outcome.code == 130
    assert "\ninterrupted; kept are problems of 1 of 2 runs: go on with" in outcome.err
    before = kept()["tasks"]["problems"]
    assert len(before["result"]) == 1
    outcome = run(*ask, "--resume")
    assert outcome.code == 0, outcome.err
    assert "problems of 1 of 2 runs: measured before, kept" in outcome.err
    after = kept()["tasks"]["problems"]
    assert after["result"][0] == before["result"][0]
    assert after["seconds"] > before["seconds"]
    assert [each["run"] for each in json.loads(outcome.out)["results"]] == [
        str(coprocessor_folder),
        "another",
    ]
    outcome = run(*ask, "--resume")
    assert "problems: measured before, kept\n" in outcome.err
    assert tasks == ["problems"] * 3


def interrupted(monkeypatch, where, *, times=1):
    """Have what is called there interrupted so many times, and then go its way."""
    module, _, name = where.rpartition(".")
    real, calls = getattr(import_module(module), name), []

    def wrapper(*given, **named):
        calls.append(name)
        if len(calls) <= times:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(where, wrapper)


def test_only_what_the_same_command_would_keep_is_called_kept(
    report, run, coprocessor_folder, monkeypatch
):
    ask = ("eval", coprocessor_folder, "--problems", "symbols", "--steps", "1", "-o", "report")
    assert report().code == 0
    assert run(*ask, "--count", "2", "--resume").code == 0
    interrupted(monkeypatch, "deliberate.eval.accuracy.ask_problems")
    outcome = run(*ask, "--count", "3", "--resume")
    assert outcome.code == 130
    assert "interrupted, and nothing new is kept yet: go on with the same command" in outcome.err


def test_an_interrupt_while_the_report_is_written_waits_for_it(report, monkeypatch, tasks):
    interrupted(monkeypatch, "deliberate.eval.results.render")
    outcome = report()
    assert outcome.code == 130
    assert "interrupted; kept are perplexity: go on with the same command and --resume" in (
        outcome.err
    )
    assert {"results.json", "report.html", "report.md"} <= {
        path.name for path in Path("report").iterdir()
    }
    assert report("--resume").code == 0
    assert tasks == ["perplexity"]


@pytest.mark.parametrize("where", ["render", "write_bytes"])
def test_a_second_interrupt_leaves_the_report_and_says_what_is_there(report, monkeypatch, where):
    interrupted(monkeypatch, f"deliberate.eval.results.{where}", times=2)
    outcome = report()
    assert outcome.code == 130
    said = "kept are perplexity:" if where == "render" else "and nothing is kept yet:"
    assert said in outcome.err
    assert not Path("report", "report.html").exists()


def test_other_settings_are_measured_anew(report, tasks):
    assert report().code == 0
    assert report("--seed", "1", "--resume").code == 0
    assert tasks == ["perplexity", "perplexity"]
    assert kept()["tasks"]["perplexity"]["settings"]["seed"] == 1


def test_other_numbers_and_other_texts_are_measured_anew(report, tasks, held_out):
    assert report().code == 0
    assert report("--dtype", "bfloat16", "--resume").code == 0
    assert tasks == ["perplexity", "perplexity"]
    held_out.write_text(held_out.read_text() + held_out.read_text())
    assert report("--dtype", "bfloat16", "--resume").code == 0
    assert tasks == ["perplexity", "perplexity", "perplexity"]


def test_going_on_with_a_whole_report_draws_it_again(report, tasks):
    assert report().code == 0
    Path("report", "report.html").unlink()
    outcome = report("--resume")
    assert "wrote report/report.html" in outcome.err
    assert Path("report", "report.html").exists()
    assert tasks == ["perplexity"]


def test_a_file_of_ones_own_is_not_written_over(refused, coprocessor_folder):
    Path("mine").mkdir()
    Path("mine", "report.md").write_text("my notes")
    said = refused("eval", coprocessor_folder, "-o", "mine")
    assert "'mine/report.md' is of no report" in said
    assert Path("mine", "report.md").read_text() == "my notes"


def test_a_report_is_not_written_over_unless_asked(report, refused, coprocessor_folder):
    assert report().code == 0
    before = kept()
    assert "holds a report: go on with --resume" in refused(
        "eval", coprocessor_folder, "-o", "report"
    )
    assert kept() == before
    assert report("--force").code == 0


def test_bad_uses_are_one_sentence(refused, coprocessor_folder, monkeypatch):
    Path("file").write_text("")
    assert "is a file: name a folder" in refused("eval", coprocessor_folder, "-o", "file")
    ask = ("eval", coprocessor_folder)
    assert "--resume goes on with a report" in refused(*ask, "--resume", code=2)
    said = refused(*ask, "--suite", "quick", "--bench", "piqa", code=2)
    assert "--suite and --bench exclude each other" in said
    assert "--bench asks the benchmarks' own questions: leave out --data" in refused(
        *ask, "--bench", "piqa", "--data", "x", code=2
    )
    said = refused(*ask, "--bench", "piqa", "--against", "zero", "--seed", "3", code=2)
    assert "leave out --against, --seed" in said
    said = refused(*ask, "-o", "new", "--force", "--resume", code=2)
    assert "--force begins anew and --resume goes on" in said
    monkeypatch.setattr("deliberate.eval.report_folder.extra.find_spec", lambda name: None)
    assert f": {REPORT_EXTRA}" in refused(*ask, "-o", "report")


def test_a_report_of_another_run_is_not_gone_on_with(report, refused, folder_of_another, held_out):
    assert report().code == 0
    said = refused("eval", folder_of_another, "--data", held_out, *FEW, "-o", "report", "--resume")
    assert "holds results of run" in said
    assert "choose another folder with -o" in said


@pytest.fixture
def folder_of_another(llama_folder, make, offline):
    from deliberate.core import load_base, save_coprocessor

    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "paper"), Path("another"), base=base)
    return Path("another")


@pytest.mark.parametrize(
    ("kind", "settings", "tasks"),
    [
        ("continued", {}, {"perplexity", "problems", "cost"}),
        ("hidden", {}, {"perplexity", "problems", "cost"}),
        ("full", {"latents": 1}, {"perplexity", "problems", "cost"}),
    ],
)
def test_a_suite_leaves_out_what_a_run_cannot_do(
    run, llama_folder, make, held_out, kind, settings, tasks
):
    from deliberate.core import load_base, save_coprocessor

    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", kind=kind, **settings), Path("other"), base=base)
    outcome = run(
        "eval", "other", "--suite", "quick", "--data", held_out, "--ahead", "4", "--anchors", "2",
        "--texts", "4", "--delay", "0", "--problems", "symbols", "--steps", "1", "--count", "2",
        *SHORT, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out).keys() == tasks
