"""The document of results: kept whole, gone on with only where it is of the same things."""

import json
import subprocess
from dataclasses import replace

import pytest
import torch

from deliberate.core.checkpoint import Trained
from deliberate.core.errors import DeliberateError
from deliberate.eval import Sample, Subject, evaluate
from deliberate.eval.made import commit, machine
from deliberate.eval.results import FILE, Results

COMMAND = "deliberate eval tiny -o report"


def subject(coprocessor, name="tiny", fingerprint="f"):
    coprocessor = coprocessor.requires_grad_(False)
    return Subject(trained=Trained(coprocessor=coprocessor, id=name, fingerprint=fingerprint))


@pytest.fixture
def measured(llama, make):
    """A document of one tiny run."""
    return Results.new(llama, [subject(make(llama, "warm"))], COMMAND)


def test_a_new_document_says_what_made_it_and_of_what(llama, make):
    subjects = [subject(make(llama, "warm"), "a"), subject(make(llama, "warm", kind="continued"))]
    made = Results.new(llama, subjects, COMMAND, names=["one", "two"]).to_dict()
    assert made["made"].keys() == {
        "deliberate", "torch", "transformers", "python", "machine", "command", "commit",
    }  # fmt: skip
    assert made["made"]["command"] == COMMAND
    assert made["made"]["torch"] == torch.__version__
    assert made["base"] == {
        "id": llama.id,
        "fingerprint": llama.fingerprint,
        "parameters": llama.num_parameters,
    }
    one, two = made["runs"]
    assert (one["name"], one["id"], one["kind"], one["latents"]) == ("one", "a", "full", 3)
    assert one["setting"]["soft_input"] == "last_token"
    assert two["latents"] == 0  # that kind writes none


def test_what_is_written_is_what_is_read(measured, tmp_path):
    measured.add("bench", {"sets": ("a", "b")}, seconds=2.5, result={"sets": {}})
    measured.write(tmp_path / "deep" / "report")
    found = Results.read(tmp_path / "deep" / "report")
    assert found.to_dict() == measured.to_dict()
    assert {"results.json", "report.html", "report.md"} <= {
        path.name for path in (tmp_path / "deep" / "report").iterdir()
    }


def test_a_task_is_done_with_the_same_settings_alone(measured, tmp_path):
    settings = {"delays": (0, 1), "texts": 4}
    assert not measured.done("perplexity", settings)
    measured.add("bench", settings, seconds=1.0, result={})
    assert measured.done("bench", settings)
    assert not measured.done("cost", settings)
    assert not measured.done("bench", {**settings, "texts": 5})
    measured.write(tmp_path)
    assert Results.read(tmp_path).done("bench", settings)  # a list there, a tuple here


def test_there_is_no_such_task(measured):
    with pytest.raises(ValueError, match="perplexity, problems, cost, bench, got 'speed'"):
        measured.add("speed", {}, seconds=0.0, result={})


def test_a_later_run_goes_on_and_what_was_done_says_by_whom(measured, tmp_path):
    measured.add("bench", {}, seconds=1.0, result={})
    measured.write(tmp_path)
    later = replace(measured, made={**measured.made, "deliberate": "9"}, tasks={})
    found = Results.read(tmp_path, like=later)
    assert found.made == later.made
    assert found.tasks["bench"]["made"] == measured.made
    found.add("cost", {}, seconds=1.0, result={})
    assert "made" not in found.tasks["cost"]
    assert "made" not in Results.read(tmp_path, like=replace(measured, tasks={})).tasks["bench"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": {"id": "b", "fingerprint": "other", "parameters": 1}}, "base 'llama'"),
        ({"runs": []}, "of 1 runs and now there are 0"),
        (
            {"runs": [{"name": "n", "id": "i", "fingerprint": "g", "kind": "full", "latents": 3}]},
            "run 'tiny' with fingerprint f and now it is 'i' with g",
        ),
    ],
)
def test_other_weights_are_not_gone_on_with(measured, tmp_path, change, said):
    measured.write(tmp_path)
    with pytest.raises(DeliberateError, match=said) as refusal:
        Results.read(tmp_path, like=replace(measured, **change))
    assert "-o" in str(refusal.value)


@pytest.mark.parametrize(
    "broken",
    ["", "{", "[]", "{}", '{"format": "deliberate-results", "version": 1}', "null", '"x"'],
)
def test_a_broken_document_is_refused_in_one_sentence(tmp_path, broken):
    (tmp_path / FILE).write_text(broken)
    with pytest.raises(DeliberateError, match="cannot read") as refusal:
        Results.read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_foreign_document_s_refusal_names_what_it_lacks(tmp_path):
    (tmp_path / FILE).write_text('{"accuracy": 1}')
    with pytest.raises(DeliberateError, match=r"cannot read '.*': it has no 'format'; name a fold"):
        Results.read(tmp_path)


def test_a_document_of_a_later_version_is_refused_and_says_which(made_results, tmp_path):
    (tmp_path / FILE).write_text(json.dumps({**made_results, "version": 2}))
    with pytest.raises(DeliberateError, match=r"version 2 and this is for .* version 1"):
        Results.read(tmp_path)


def test_no_document_is_refused(tmp_path):
    with pytest.raises(DeliberateError, match="cannot read"):
        Results.read(tmp_path)


def test_what_is_not_known_is_passed_over(made_results, tmp_path):
    made_results["mood"] = "good"
    made_results["tasks"] = {"perplexity": made_results["tasks"]["perplexity"]}
    made_results["made"]["weather"] = "drizzle"
    made_results["tasks"]["perplexity"]["result"][0]["new"] = {"x": 1}
    (tmp_path / FILE).write_text(json.dumps(made_results))
    Results.read(tmp_path).write(tmp_path)
    assert "drizzle" not in (tmp_path / "report.md").read_text()


def test_a_real_measurement_goes_through(llama, make, tmp_path):
    for index in range(6):
        (tmp_path / f"{index}.txt").write_text("abc def\n" * (12 + index))
    one = subject(make(llama, "warm"))
    sample = Sample(length=40, ahead=8, anchors=5)
    report = evaluate(llama, one.trained, data=str(tmp_path), sample=sample).to_dict()
    results = Results.new(llama, [one], COMMAND)
    results.add("perplexity", {"ahead": 8}, seconds=1.0, result=[report])
    results.write(tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"{report['perplexity']['base']['8']:.3f}"[:5] in text
    assert (tmp_path / "report" / "change.png").stat().st_size > 0


def test_what_is_no_number_is_null_for_other_programs(measured, tmp_path):
    settings = {"scale": float("inf")}
    measured.add("bench", settings, seconds=float("nan"), result={"x": [1.5, float("nan")]})
    measured.write(tmp_path)

    def refuse(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / FILE).read_text(), parse_constant=refuse)["tasks"]["bench"]
    assert found["result"] == {"x": [1.5, None]}
    assert (found["settings"], found["seconds"]) == ({"scale": None}, None)
    assert Results.read(tmp_path).done("bench", settings)


def test_a_file_outside_of_any_checkout_has_no_commit(tmp_path):
    (tmp_path / "a.py").write_text("")
    assert commit(tmp_path / "a.py") is None


def test_a_file_that_a_checkout_follows_has_its_commit_and_one_that_it_does_not_has_none(
    tmp_path, monkeypatch
):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null"]
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        done = subprocess.run(
            ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "a.py").write_text("")
    (tmp_path / "b.py").write_text("")
    git("init", "-q")
    git("add", "a.py")
    git("commit", "-q", "-m", "a")
    assert commit(tmp_path / "a.py") == git("rev-parse", "HEAD")
    assert commit(tmp_path / "b.py") is None
    (tmp_path / "a.py").write_text("changed")
    assert commit(tmp_path / "a.py") == git("rev-parse", "HEAD") + "-dirty"


def test_a_machine_has_a_name():
    assert " x " in machine(torch.device("cpu"))
    assert machine(torch.device("meta")).startswith("meta of ")
