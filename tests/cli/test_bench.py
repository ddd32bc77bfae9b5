"""`deliberate eval --bench` and `deliberate compare`, on a tiny model and made-up questions."""

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")

from rich.console import Console

from deliberate.cli.bench import _table
from deliberate.core import load_base, save_coprocessor
from deliberate.eval.bench import run as running
from deliberate.eval.bench.benchmarks import BENCHMARKS
from deliberate.eval.bench.benchmarks import EXTRA as BENCH_EXTRA
from deliberate.eval.bench.records import read


@pytest.fixture
def data(offline):
    """Six questions of PIQA, eight of NQ and two of HumanEval, all made up."""
    rows = {
        "piqa/validation": [
            {"goal": f"warm {thing}", "sol1": "a fire", "sol2": "an ice cube", "label": 0}
            for thing in ("hands", "tea", "soup", "milk", "feet", "rooms")
        ],
        "nq_open/validation": [
            {"question": f"which letter is {c}", "answer": [c]} for c in "abcdefgh"
        ],
        "humaneval/test": [
            {
                "task_id": f"HumanEval/{n}",
                "prompt": "def f(x):\n    return 2 * x\n\n",
                "entry_point": "f",
                "test": f"def check(f):\n    assert f(1) == {2 + n}\n",
            }
            for n in range(2)
        ],
    }
    for name, own in rows.items():
        path = Path("data", f"{name}.jsonl")
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in own))
    return Path("data").absolute()


@pytest.fixture
def bench(run, coprocessor_folder, data):
    def bench(names, *more):
        return run("eval", coprocessor_folder, "--bench", names, "--bench-data", data, *more)

    return bench


def test_each_set_is_asked_of_base_and_latents_and_kept_question_by_question(
    bench, coprocessor_folder
):
    outcome = bench("piqa,nq_open,drop", "--batch", "3", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["sets"].keys() == {"piqa", "nq_open"}
    assert result["left_out"].keys() == {"drop"}
    assert outcome.err.count("drop: left out, absent: there is no ") == 1
    piqa = result["sets"]["piqa"]
    assert (piqa["questions"], piqa["shots"], piqa["score"]) == (6, 0, "acc_norm")
    assert piqa["difference"] == pytest.approx(piqa["latents"] - piqa["base"])
    assert piqa["scores"].keys() == {"acc", "acc_norm"}
    assert "nq_open, latents: 8 prompts longer than the base reads lost" in outcome.err
    records = read(coprocessor_folder / "bench" / "piqa.jsonl")
    assert [record.id for record in records] == [f"piqa/{n}" for n in range(6)]
    assert 100 * sum(record.latents for record in records) / 6 == pytest.approx(piqa["latents"])
    assert piqa["gained"] == sum(one.latents and not one.base for one in records)
    assert json.loads((coprocessor_folder / "bench" / "bench.json").read_text()) == result


def test_the_table_is_eighty_columns_wide_and_progress_is_a_line_a_set(bench):
    outcome = bench("piqa,nq_open", "--bench-limit", "2", "-o", "out")
    assert outcome.code == 0, outcome.err
    assert max(len(line) for line in outcome.out.splitlines() if "/" not in line) <= 80
    assert "at most 2 questions of each task" in outcome.out
    for line in outcome.err.splitlines():
        assert line.startswith(("piqa", "nq_open", "wrote out")), outcome.err
    assert len(read(Path("out", "piqa.jsonl"))) == 2


def test_the_table_has_room_for_the_longest_names_and_numbers():
    result = {
        "shots": 5,
        "score": "exact_match",
        "base": 100.0,
        "latents": 100.0,
        "difference": -10.0,
        "questions": 14_079,
        "gained": 1_000,
        "lost": 1_000,
        "p": 0.0,
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(_table(dict.fromkeys(BENCHMARKS, result)))
    lines = captured.get().splitlines()
    assert len(lines) == 2 + len(BENCHMARKS)
    assert "…" not in captured.get()
    assert "14,079" in lines[2]
    assert "<0.001" in lines[2]
    assert max(map(len, lines)) <= 80


def test_programs_run_only_when_that_is_asked_for(bench):
    outcome = bench("humaneval,piqa", "--bench-limit", "1", "-o", "out")
    assert outcome.code == 0, outcome.err
    assert "humaneval: left out, its answers are programs" in outcome.err
    assert "--run-generated-code" in outcome.err
    outcome = bench("humaneval", "--run-generated-code", "--json", "-o", "ran")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["sets"]["humaneval"]["questions"] == 2
    assert "humaneval: answers of at most" in outcome.err
    [right, wrong] = read(Path("ran", "humaneval.jsonl"))
    assert not wrong.base
    assert right.answers["base"].startswith("def f(x):")


def test_an_interrupted_run_goes_on_after_its_last_whole_set(bench, monkeypatch):
    whole = bench("piqa,nq_open", "--json", "-o", "whole")
    asked, ask = [], running.ask_within_memory

    def interrupted(model, benchmark, tasks, **more):
        asked.append(benchmark.name)
        if asked.count("nq_open") == 1:
            raise KeyboardInterrupt
        return ask(model, benchmark, tasks, **more)

    monkeypatch.setattr(running, "ask_within_memory", interrupted)
    cut = bench("piqa,nq_open", "-o", "cut")
    assert cut.code == 130
    assert "interrupted; kept are piqa: go on with the same command and --resume" in cut.err
    assert sorted(path.name for path in Path("cut").iterdir()) == ["bench.json", "piqa.jsonl"]
    asked.append("nq_open")
    resumed = bench("piqa,nq_open", "--json", "-o", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    assert asked.count("piqa") == 2
    assert json.loads(resumed.out)["sets"] == json.loads(whole.out)["sets"]
    for name in ("piqa", "nq_open"):
        assert read(Path("cut", f"{name}.jsonl")) == read(Path("whole", f"{name}.jsonl"))


def test_results_are_not_written_over_unless_asked(bench, refused, coprocessor_folder, data):
    assert bench("piqa", "-o", "out").code == 0
    again = ("eval", coprocessor_folder, "--bench", "nq_open", "--bench-data", data, "-o", "out")
    assert "'out' holds bench.json: go on with --resume, add --force" in refused(*again)
    told = refused(*again, "--resume", "--bench-limit", "2")
    assert "holds results with limit None and this run has 2" in told
    assert bench("nq_open", "-o", "out", "--force").code == 0
    assert not Path("out", "piqa.jsonl").exists()
    Path("out", "bench.json").write_text("{")
    assert "cannot read 'out/bench.json'" in refused(*again, "--resume")
    Path("own").mkdir()
    Path("own", "piqa.jsonl").write_text("mine")
    assert "'own' holds piqa.jsonl: go on with" in refused(*again[:-1], "own")
    assert Path("own", "piqa.jsonl").read_text() == "mine"
    Path("file").write_text("")
    assert "'file' is a file" in refused(*again[:-1], "file")


def test_bad_input_is_refused_before_any_model_is_loaded(
    refused, coprocessor_folder, data, monkeypatch
):
    monkeypatch.setattr("deliberate.cli.commands.evaluate._load_base", None)
    ask = ("eval", coprocessor_folder, "--bench")
    assert "no benchmark 'gms8k', the nearest is 'gsm8k'" in refused(*ask, "gms8k", code=2)
    assert "--bench-limit is for benchmarks" in refused(
        "eval", coprocessor_folder, "--bench-limit", "2", code=2
    )
    assert "add -o DIR" in refused("eval", "nano", "--bench", "piqa", "--resume", code=2)
    assert "is no folder" in refused(*ask, "piqa", "--bench-data", data / "none")
    told = refused(*ask, "gsm8k", "--bench-data", data)
    assert "nothing to ask: gsm8k: absent: there is no" in told
    (data / "piqa" / "validation.jsonl").write_text('{"goal": "x"}\n')
    told = refused(*ask, "piqa", "--bench-data", data)
    assert "row 1 of" in told
    assert "piqa/validation.jsonl': no field 'choices'" in told
    monkeypatch.setattr("deliberate.eval.bench.benchmarks.find_spec", lambda name: None)
    assert f": {BENCH_EXTRA}" in refused(*ask, "piqa")


def test_a_set_of_the_hub_without_a_network_names_the_way_out(
    refused, coprocessor_folder, monkeypatch
):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    told = refused("eval", coprocessor_folder, "--bench", "piqa")
    assert "cannot get 'piqa' from the Hub" in told
    assert "--bench-data DIR" in told


@pytest.mark.parametrize("kind", ["continued", "hidden"])
def test_a_kind_that_cannot_augment_is_refused_before_questions_are_asked(
    kind, refused, data, llama_folder, make
):
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", kind=kind), Path("other"), base=base)
    told = refused("eval", "other", "--bench", "piqa", "--bench-data", data)
    assert kind in told


def test_two_runs_are_compared(bench, run, refused):
    assert bench("piqa,nq_open", "-o", "one").code == 0
    assert bench("piqa", "-o", "two", "--batch", "1").code == 0
    outcome = run("compare", "one/piqa.jsonl", "two/piqa.jsonl", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["gained"] == json.loads(outcome.out)["lost"] == 0
    shown = run("compare", "one/piqa.jsonl", "two/piqa.jsonl", "--of", "base").out
    assert shown.startswith("6 questions, right with base: ")
    assert "too few" not in shown
    shown = bench("piqa,nq_open", "--bench-limit", "5", "-o", "few").out
    told = (
        "Too few questions to tell a difference: piqa, nq_open. Of fewer than 6, p is never below"
    )
    assert told in " ".join(shown.split())
    assert told in " ".join(run("compare", "few", "few").out.split())
    shown = run("compare", "few/piqa.jsonl", "few/piqa.jsonl").out
    assert "too few questions to tell: of fewer than 6, p is never below 0.05" in shown
    assert "question 'piqa/0' is not in 'one/nq_open.jsonl'" in refused(
        "compare", "one/piqa.jsonl", "one/nq_open.jsonl"
    )
    assert "no such file" in refused("compare", "none.jsonl", "one/piqa.jsonl")


def test_two_folders_are_compared_benchmark_by_benchmark(bench, run, refused, coprocessor_folder):
    assert bench("piqa,nq_open", "-o", "one").code == 0
    assert bench("piqa").code == 0
    alone = json.loads(run("compare", "one/piqa.jsonl", "one/piqa.jsonl", "--json").out)
    for first in ("one", "one/results.json", "one/bench.json", "one/piqa.jsonl"):
        for second in (coprocessor_folder, coprocessor_folder / "bench" / "bench.json"):
            outcome = run("compare", first, second, "--json")
            assert outcome.code == 0, outcome.err
            assert json.loads(outcome.out) == {"sets": {"piqa": alone}}
            only = "" if first.endswith("jsonl") else "without nq_open, which only one"
            assert outcome.err.startswith(only)
    shown = run("compare", "one", "one").out.splitlines()
    assert [line.split()[0] for line in shown[3:5]] == ["piqa", "nq_open"]
    told = refused("compare", "one/nq_open.jsonl", coprocessor_folder)
    assert "has records of nq_open and 'coprocessor' of piqa: compare two that have" in told


def test_what_has_no_record_of_each_question_says_where_records_are(refused, offline):
    Path("report").mkdir()
    for name in ("report/results.json", "problems.json"):
        Path(name).write_text("{}")
    for name in ("report", "report/results.json", "problems.json"):
        told = refused("compare", name, name)
        assert f"'{name}' has no record of each question" in told
        assert "FOLDER/NAME.jsonl" in told
