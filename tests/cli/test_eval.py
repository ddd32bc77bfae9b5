import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console

from deliberate.cli.eval_shown import caption, gate_sentence, say
from deliberate.cli.eval_table import conditions, tables
from deliberate.core import load_base, save_coprocessor
from deliberate.core.base import Base
from deliberate.core.full import FullCoprocessor


@pytest.fixture
def held_out(offline):
    path = Path("held.jsonl").absolute()
    rows = [{"body": "words and more words " * (2 + row)} for row in range(5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def measured(run, coprocessor_folder, held_out):
    def measured(*more):
        few = ("--anchors", "3", "--ahead", "8")
        return run("eval", coprocessor_folder, "--data", held_out, "--field", "body", *few, *more)

    return measured


@pytest.fixture
def soft_folder(offline, llama_folder, tmp_path, make):
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", kind="soft"), tmp_path / "soft", base=base)
    return tmp_path / "soft"


def test_json_is_one_object_with_the_promised_keys(measured, soft_folder):
    outcome = measured("--json", "--soft", soft_folder)
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["perplexity"]["base"].keys() == {"1", "2", "4", "8"}
    assert report["change_percent"]["soft"]["1"].keys() == {"value", "low", "high"}
    assert report["soft_setting"]["kind"] == "soft"
    assert report["fingerprints"].keys() == {"base", "latents", "soft"}
    assert report["gate"]["tokens"].keys() == {"1", "all"}
    assert "examples" not in report  # what is printed and pushed quotes nobody's texts


def test_the_table_shows_each_perplexity_and_the_fingerprints_in_eighty_columns(
    measured, soft_folder
):
    report = json.loads(measured("--json", "--soft", soft_folder).out)
    shown = measured("--soft", soft_folder).out
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    for perplexity in report["perplexity"].values():
        assert f"{perplexity['8']:.3f}" in shown
    percents = [
        f"{percent:+.2f}" if abs(percent) < 10 else f"{percent:+.1f}"
        for change in report["change_percent"].values()
        for percent in (change["8"]["low"], change["8"]["high"])
    ]
    for low, high in zip(percents[::2], percents[1::2], strict=True):
        assert f"{low}…{high}" in shown
    for fingerprint in report["fingerprints"].values():
        assert fingerprint in shown
    assert "soft_input last_token" in shown


def test_no_interval_is_broken_in_eighty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    change = {
        "1": {"value": 519900.0, "low": 449900.0, "high": 589900.0},
        "2": {"value": -55.5, "low": -77.7, "high": -44.4},
        "4": {"value": 466.2, "low": 230.3, "high": 873.2},
        "32": {"value": -6.2, "low": -7.96, "high": -4.43},
    }
    names = ("latents", "shuffled", "shuffled_but_last", "soft")
    result = {
        "perplexity": dict.fromkeys(("base", *names), dict.fromkeys(change, 5810.96)),
        "change_percent": dict.fromkeys(names, change),
        "resampled": "document",
        "shuffled_from": "document",
        "anchors": 1,
        "passages": 1,
        "documents": 1,
        "length": 256,
        "data": "stdlib",
    }
    console = Console()
    (table,) = tables(result["perplexity"]["base"], conditions(result))
    console.print(table)
    say(console, caption(result))
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    for interval in ("4,500…5,900", "-77.7…-44.4", "+230…+873", "-7.96…-4.43"):
        assert shown.count(interval) == len(names)
    assert shown.count("x 5,200") == len(names)
    assert not any(line.endswith(" ") for line in shown.splitlines()[-3:])
    assert "1 anchor in 1 passage of" in " ".join(shown.split())


def test_few_texts_give_no_verdict_and_enough_texts_give_one(measured):
    few = measured("--length", "60")
    assert "Too few texts to tell" in few.out
    assert "With latents" not in few.out
    assert "No measured gain" not in few.out
    enough = measured("--length", "10").out
    assert "With latents the perplexity is" in enough or "No measured gain" in enough


def test_a_short_text_of_ones_own_is_measured_in_shorter_passages(run, coprocessor_folder):
    Path("own.txt").write_text("one text of my own and no other one " * 8)
    outcome = run("eval", coprocessor_folder, "--data", "own.txt", "--ahead", "4", "--anchors", "3")
    assert outcome.code == 0, outcome.err
    assert "cut to at most 16 tokens" in outcome.err
    assert "another passage's" in " ".join(outcome.out.split())


def test_progress_counts_the_passages_that_there_are(measured, monkeypatch):
    told = []

    @contextmanager
    def progress(what, total):
        yield lambda count, *, total=None: told.append((count, total))

    monkeypatch.setattr("deliberate.cli.eval_texts.progress", progress)
    report = json.loads(measured("--json").out)
    assert told[0] == (0, report["passages"])
    assert sum(count for count, _ in told) == report["passages"]


def test_a_fault_of_ours_keeps_its_traceback(measured, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("deliberate.eval.evaluate_together", broken)
    with pytest.raises(ValueError, match="a fault of ours"):
        measured()


def test_the_report_is_kept_with_the_run(measured, coprocessor_folder):
    assert measured().code == 0
    kept = json.loads((coprocessor_folder / "eval.json").read_text())
    assert json.loads(measured("--json").out) == kept


def test_a_named_report_is_not_written_over(measured):
    assert measured("-o", "report.json").code == 0
    outcome = measured("-o", "report.json")
    assert outcome.code == 1
    assert "--force" in outcome.err
    assert measured("-o", "report.json", "--force").code == 0


def test_bad_input_is_one_sentence(refused, coprocessor_folder, held_out):
    assert "'nowhere'" in refused("eval", "nowhere")
    assert "--data is empty" in refused("eval", coprocessor_folder, "--data", "", code=2)
    assert "'gone.txt'" in refused("eval", coprocessor_folder, "--data", "gone.txt")
    assert "'text'" in refused("eval", coprocessor_folder, "--data", held_out)
    line = refused("eval", coprocessor_folder, "--data", held_out, "--anchors", "0", code=2)
    assert "anchors must be at least 1, got 0" in line
    line = refused("eval", coprocessor_folder, "--seed", "-1", code=2)
    assert "seed must be at least 0" in line
    line = refused("eval", coprocessor_folder, "--length", "9", code=2)
    assert "length must be at least ahead + 2 = 34, got 9" in line
    few = ("eval", coprocessor_folder, "--data", held_out, "--field", "body")
    assert "smaller --ahead" in refused(*few, "--ahead", "300")
    line = refused(*few, "--ahead", "8", "--texts", "1")
    assert "texts is 1, and controls with another text's latents need 2: give more" in line
    assert "--texts, or compare with the base alone by --against none" in line
    line = refused(*few, "--soft", coprocessor_folder)
    assert "must be of kind soft or pause with 3: train one with" in line


@pytest.fixture
def asked(offline):
    """Questions and answers."""
    path = Path("asked.jsonl").absolute()
    rows = [{"q": "what " * (1 + row % 3), "a": "so and so " * (1 + row % 2)} for row in range(40)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_answers_are_measured_at_their_questions_ends(run, coprocessor_folder, asked):
    columns = ("--question", "q", "--answer", "a", "--separator", " ")
    outcome = run("eval", coprocessor_folder, "--data", asked, *columns, "--ahead", 16, "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["pairs"] == {
        "question": "q",
        "answer": "a",
        "template": "{question}",
        "separator": " ",
    }
    assert report["anchors"] == report["passages"] == report["documents"] == 40
    assert report["perplexity"]["base"].keys() == {"1", "2", "4", "8", "16"}
    few = run("eval", coprocessor_folder, "--data", asked, *columns, "--ahead", 16, "--length", 20)
    assert few.code == 0
    assert "pairs of" in few.err
    assert "left out: they do not fit 20 tokens (--length chooses)" in few.err


def test_a_run_on_pairs_is_evaluated_as_it_was_trained(run, llama_folder, asked):
    settings = {
        "base.id": llama_folder, "base.dtype": "float32", "data.train": asked,
        "data.question": "q", "data.answer": "a", "data.length": 48, "coprocessor.latents": 2,
        "objective.ahead": 8, "train.steps": 2, "train.batch": 2, "eval.ahead": 8,
    }  # fmt: skip
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    trained = run("train", *changes, "--output-dir", "out")
    assert trained.code == 0, trained.err
    outcome = run("eval", "out", "--ahead", 8, "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["anchors"] == 2  # a twentieth
    assert report["data"] == f"{asked} (held out)"
    assert report["pairs"]["question"] == "q"
    as_text = run("eval", "out", "--ahead", 8, "--data", asked, "--field", "a", "--json")
    assert json.loads(as_text.out)["pairs"] is None
    assert run("generate", "--prompt", "what", "--coprocessor", "out", "--max-tokens", 2).code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--question", "q"),
        ("--template", "{question}"),
        ("--question", "q", "--answer", "a", "--field", "q"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(refused, coprocessor_folder, asked, options):
    said = refused("eval", coprocessor_folder, "--data", asked, *options, code=2)
    assert "--question and --answer go together" in said


def test_the_base_trained_on_is_shown_without_latents(run, llama_folder, make, held_out):
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "warm", kind="continued"), Path("on"), base=base)
    few = ("--field", "body", "--anchors", "3", "--ahead", "8")
    shown = run("eval", "on", "--data", held_out, *few).out
    assert "No latents, kind 'continued'." in shown
    assert "Gate:" not in shown
    assert "3 latents" not in shown


def test_the_gate_is_said_in_a_sentence_each_for_token_one_and_for_all(measured):
    kept = {
        "share_percent": 90,
        "threshold": 2.3123,
        "calls_percent": {"value": 41.4, "low": 38.2, "high": 45.0},
        "gain_percent": {"value": 88.2, "low": 79.8, "high": 95.1},
        "chosen_on": 16,
        "checked_on": 17,
    }
    gate = {"tokens": {"1": {"kept": kept}, "all": {"kept": None}}}
    assert gate_sentence(gate) == (
        "Gate: asking only where the next token's entropy is at least 2.31 nats (41 % of anchors) "
        "keeps 88 % (80…95) of the gain at token 1. No gain over all tokens ahead that can be "
        "told, so none to keep a share of."
    )
    assert "Gate: " in measured().out


def test_a_batch_lowered_for_lack_of_memory_is_said_and_measured_all_the_same(
    measured, monkeypatch
):
    whole = json.loads(measured("--json").out)
    read = Base.read

    def too_small(self, token_ids):
        if len(token_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return read(self, token_ids)

    monkeypatch.setattr(Base, "read", too_small)
    outcome = measured("--json")
    assert "out of memory, going on with 2 passages at a time" in outcome.err
    found = json.loads(outcome.out)
    assert (found["anchors"], found["passages"]) == (whole["anchors"], whole["passages"])
    for token, perplexity in whole["perplexity"]["latents"].items():
        assert found["perplexity"]["latents"][token] == pytest.approx(perplexity, rel=1e-5)


def test_too_little_memory_for_two_passages_is_one_sentence(
    refused, coprocessor_folder, held_out, monkeypatch
):
    def too_small(self, reading, anchors):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(FullCoprocessor, "forward", too_small)
    few = ("--data", held_out, "--field", "body", "--ahead", "8", "--against", "none")
    monkeypatch.setattr("deliberate.cli.eval_texts.note", lambda text: None)
    line = refused("eval", coprocessor_folder, *few)
    assert "out of memory with a text by itself: give a smaller --length" in line
