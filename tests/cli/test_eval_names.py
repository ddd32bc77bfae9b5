"""What options of `deliberate eval` list is checked before torch is there to be imported."""

import re
import subprocess
import sys

import pytest
import torch

from deliberate.cli import eval_against, eval_checks, eval_names, places
from deliberate.cli.devices import DEVICES
from deliberate.cli.eval_against import parsed
from deliberate.cli.eval_checks import check_runs
from deliberate.cli.eval_names import check_benchmarks, delays, families, steps
from deliberate.core.checkpoint import EMBEDDED_FOLDERS
from deliberate.core.hub_id import parse
from deliberate.core.problems import FAMILIES, MOST_STEPS
from deliberate.core.sources import EMBEDDED, HUB_ID
from deliberate.eval import chain, controls, results
from deliberate.eval.bench import benchmarks
from deliberate.eval.sample import MOST_SEED

HEAVY = ("torch", "transformers", "datasets", "huggingface_hub", "rich")

TYPED = {
    "--against shufled": "no control 'shufled', the nearest is 'shuffled'",
    "--against zero,none": "'zero,none' names 'none' beside others, and it stands alone",
    "--bench=": "'' names nothing: name a benchmark",
    "--bench piqa,,mmlu": "'piqa,,mmlu' names nothing beside one of its commas",
    "--problems=": "'' names nothing: name a family of problems",
    "--problems word": "known are symbols, words, comparison, sorting, variables, all; or name a",
    "--problems owner/name,words": "names 'words', which would be a family of made problems",
    "--problems owner/name,": "'owner/name,' names nothing beside one of its commas",
    "--problems owner/name --steps 2": "--steps is for made problems, and 'owner/name' holds",
    "--problems owner/name --against cot:8": "against 'cot:8' chooses its cue on made problems",
    "--problems owner/name --suite quick": "--suite quick asks made problems",
    "--problems owner/name --ahead 3": "asks what 'owner/name' holds: leave out --ahead",
    "--problems words --question q": "--problems makes its own questions: leave out --question",
    "--problems all --steps 6-1": "steps must be like 1-6",
    "--delay 0,soon": "got '0,soon'",
    "--bench gsm8": "no benchmark 'gsm8', the nearest is 'gsm8k'",
    "--cost --texts 3": "leave out --texts",
    "--suite quik": "'quik'",
    "--texts 0": "texts must be at least 1, got 0",
    "--anchors -2": "anchors must be at least 1, got -2",
    "--ahead 0": "ahead must be at least 1, got 0",
    "--seed -1": "seed must be at least 0, got -1",
    "--problems all --count 1": "count must be at least 2, got 1",
    "--problems all --shots -1": "shots must be at least 0, got -1",
    "--problems all --steps 1-99999999999": "steps must be from 1 to 12, got 99999999999",
    "--cost --repeats 0": "repeats must be at least 1, got 0",
    "--cost --prompt-tokens 0": "prompt_tokens must be at least 1, got 0",
    "--cost --decoded-tokens 0": "decoded_tokens must be at least 1, got 0",
    "--bench piqa --force --resume": "--force begins anew and --resume goes on",
    "--bench piqa -o new.json": "and 'new.json' is named like a file: name a folder",
    "--resume": "--resume goes on with a report",
    "nano": "'nano' is named twice: name each run once",
    "folder.json folder.json/": "'folder.json/' is named twice",
    "--length 33": "length must be at least ahead + 2 = 34, got 33",
    "--length 35 --delay 0,2": "length must be at least ahead + delay + 2 = 36, got 35",
    "--every-token --anchors 3": "--every-token and --anchors 3 exclude each other",
    "--suite quick --every-token --anchors 3": "--every-token and --anchors 3 exclude each other",
    "--skip-bad": "--skip-bad is for files of --data",
    "--question q": "--question and --answer go together, and without --field, got --question:",
    "--against every:32": "asks again after 32 tokens, and 32 are measured",
    "--against every:4 --delay 2": "the delay is 2: say --delay 0",
    "--cost --against shuffled": "against 'shuffled' is for answers and not for their costs",
    "--against cot": "against 'cot' is for questions with an answer to find",
    "--device gpu": "no device 'gpu' here: use `cpu`, or `auto`",
    "--device cuda:one": "no device 'cuda:one' here",
}
THERE = {
    "-o taken.txt": "'taken.txt' is a file: name a folder",
    "-o taken.json": "'taken.json' exists: add --force",
    "-o folder.json --force": "'folder.json' is a folder",
    "-o report": "'report' holds a report: go on with --resume",
    "-o mine": "'mine/report.md' is of no report",
    "-o drawn": "'drawn/change.png' is of no report",
    "--bench piqa -o report": "'report' holds results.json: go on with --resume",
    "nowhere": "no coprocessor at 'nowhere': it is neither a folder nor a Hub id like 'user/repo'",
    "a/b/c": "no coprocessor at 'a/b/c': it is neither a folder nor a Hub id",
    "taken.txt": "'taken.txt' is a file and not a coprocessor's folder: name the folder",
    "--against shuffled,pause:nowhere": "no coprocessor at 'nowhere'",
    "--data /nope.txt": "no texts at '/nope.txt': give a file, a folder, a Hub id like",
    "--suite quick --data rows/of.jsonl.gz": "no texts at 'rows/of.jsonl.gz'",
    "--problems test.jsonl": "no questions at 'test.jsonl': give a JSONL or Parquet file, a folder",
    "--data stdlip": "or one of stdlib, installed, problems",
    "--soft nowhere": "no coprocessor at 'nowhere'",
    "--bench piqa --batch 1 nowhere": "no coprocessor at 'nowhere'",
}

IN_A_PROCESS = f"""
import sys
from deliberate.cli.main import main
for typed in sys.argv[1:]:
    code = main(["eval", "nano", *typed.split()])
    print(code, [name for name in {HEAVY!r} if name in sys.modules])
"""


def refused_lightly(typed, *, code, folder):
    asked = [sys.executable, "-c", IN_A_PROCESS, *typed]
    process = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=folder)
    assert process.stdout.splitlines() == [f"{code} []"] * len(typed)
    for line, said in zip(process.stderr.splitlines(), typed.values(), strict=True):
        assert said in line


def test_a_mistyped_option_is_refused_without_anything_heavy(tmp_path):
    (tmp_path / "folder.json").mkdir()
    refused_lightly(TYPED, code=2, folder=tmp_path)


def test_what_is_taken_or_nowhere_is_refused_without_anything_heavy(tmp_path):
    (tmp_path / "folder.json").mkdir()
    for name in (
        "taken.txt",
        "taken.json",
        "report/results.json",
        "mine/report.md",
        "drawn/change.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    refused_lightly(THERE, code=1, folder=tmp_path)


def test_what_is_known_is_what_there_is():
    assert tuple(controls.CONTROLS) == eval_names.CONTROLS
    assert tuple(FAMILIES) == eval_names.FAMILIES
    assert tuple(benchmarks.BENCHMARKS) == eval_names.BENCHMARKS
    assert eval_names.PAPER == benchmarks.PAPER
    assert eval_names.MOST_STEPS == MOST_STEPS
    assert eval_names.MOST_SEED == MOST_SEED
    assert tuple(EMBEDDED_FOLDERS) == eval_names.EMBEDDED_RUNS
    assert (*EMBEDDED,) == eval_names.EMBEDDED_TEXTS
    assert HUB_ID == places.DATASET_ID
    assert (results.FILE, benchmarks.RESULTS) == (eval_names.REPORT_FILE, eval_names.BENCH_FILE)
    assert eval_against.LATENCY == chain.LATENCY


def test_devices_that_torch_has_a_name_for_are_known():
    with pytest.raises(RuntimeError) as told:
        torch.device("nosuch")
    named = re.search("one of (.*) device type", str(told.value))
    assert named, told.value
    assert {*named[1].split(", ")} <= {*DEVICES}


@pytest.mark.parametrize("name", ["user/repo@main", "hf://models/user/repo", "hf://user/repo@a/b"])
def test_what_may_be_on_the_hub_is_not_refused_beforehand(name):
    check_runs([name, "nano"], [name])
    assert parse(name, what="coprocessor").repo == "user/repo"


@pytest.mark.parametrize("data", ["user/texts", "user/texts.json", "stdlib", ".", None])
def test_texts_that_may_be_somewhere_are_not_refused_beforehand(data):
    eval_checks._check_data(data)


def test_names_are_read_and_the_nearest_is_told():
    assert families("words, symbols") == ("words", "symbols")
    assert families("all") == eval_names.FAMILIES
    for wrong, near in (("MMLU", "mmlu"), ("piqa,nq", "nq_open"), ("papers", "paper")):
        with pytest.raises(ValueError, match=f"the nearest is '{near}': known are paper, mmlu"):
            check_benchmarks(wrong)
    for read, what in ((families, "family of problems"), (check_benchmarks, "benchmark")):
        with pytest.raises(ValueError, match=f"'' names nothing: name a {what}, or leave"):
            read("")


def test_numbers_are_read():
    assert delays("0, 2,8") == (0, 2, 8)
    assert (steps("1-3"), steps("3"), steps("1,2,4")) == ((1, 2, 3), (3,), (1, 2, 4))
    for wrong in ("", "-1", "1,,2", "1,1", "soon", "0x1"):
        with pytest.raises(ValueError, match="as 0,1,2,8, each once, got"):
            delays(wrong)


def test_what_is_named_is_read_and_what_is_unknown_is_refused_with_the_nearest():
    named = parsed("zero, shuffled,soft:runs/a:b,pause:p")
    assert named.controls == ("zero", "shuffled")
    assert named.baselines == {"soft": "runs/a:b", "pause": "p"}
    assert parsed("none").controls == ()
    more = parsed("every:8,cot:latency,cot:064,cot,every:2,cot:64")
    assert (more.every, more.chains) == ((8, 2), ("cot:latency", "cot:64", "cot"))
    for wrong, said in {
        "shufled": "no control 'shufled', the nearest is 'shuffled': known are shuffled, ",
        "paus:x": "the nearest is 'pause:RUN'",
        "zero:x": "no control 'zero:x', the nearest is 'zero'",
        "": "'' names nothing: name a control, or leave the option out",
        "zero, ": "'zero, ' names nothing beside one of its commas",
        "none,zero,every:8": "'none,zero,every:8' names 'none' beside others, and it stands alone",
        "soft": "'soft' names no run: say soft:RUN",
        "soft:a,soft:b": "'soft' twice, 'a' and 'b'",
        "evry:3": "no control 'evry:3', the nearest is 'every:TOKENS'",
        "every": "'every' must name a number of tokens, at least 1, as every:8",
        "every:0": "'every:0' must name",
        "cott": "no control 'cott', the nearest is 'cot'",
        "cot:": "'cot:' must name a number of tokens, at least 1, as cot:64 or cot:latency",
        "cot:-3": "'cot:-3' must name",
    }.items():
        with pytest.raises(ValueError, match=said):
            parsed(wrong)
