import json
from pathlib import Path

import pytest


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


def test_json_is_one_object_with_the_promised_keys(measured, coprocessor_folder):
    outcome = measured("--json", "--soft", coprocessor_folder)
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["perplexity"]["base"].keys() == {"1", "2", "4", "8"}
    assert report["change_percent"]["soft"]["1"].keys() == {"value", "low", "high"}
    assert report["change_percent"]["soft"] == report["change_percent"]["latents"]


def test_the_table_says_whether_there_is_a_gain(measured):
    outcome = measured()
    assert "base alone" in outcome.out
    assert "soft_input last_token" in outcome.out
    assert "With latents, perplexity is" in outcome.out


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
    assert "'gone.txt'" in refused("eval", coprocessor_folder, "--data", "gone.txt")
    assert "'text'" in refused("eval", coprocessor_folder, "--data", held_out)
    line = refused("eval", coprocessor_folder, "--data", held_out, "--anchors", "0", code=2)
    assert "anchors must be at least 1, got 0" in line
