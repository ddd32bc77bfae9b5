"""`deliberate eval --cost`: what is shown, what is kept, what is refused."""

import json
from pathlib import Path

import pytest

from deliberate.core import load_base, save_coprocessor

FEW = ("--cost", "--decoded-tokens", "2", "--repeats", "1")


@pytest.fixture
def folder_of(coprocessor_folder, llama_folder, make):
    """Write a tiny coprocessor of a kind for the tiny Llama."""

    def folder_of(kind):
        base = load_base(str(llama_folder))
        folder = coprocessor_folder.with_name(kind)
        save_coprocessor(make(base, "warm", kind=kind), folder, base=base)
        return folder

    return folder_of


def test_the_json_is_kept_with_its_run(run, coprocessor_folder):
    outcome = run("eval", coprocessor_folder, *FEW, "--prompt-tokens", "9", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert json.loads((coprocessor_folder / "cost.json").read_text()) == result
    assert not (coprocessor_folder / "eval.json").exists()
    assert (result["prompt_tokens"], result["decoded_tokens"], result["repeats"]) == (9, 2, 1)
    assert [row["name"] for row in result["rows"]] == ["base", "latents"]
    assert result["rows"][1]["run"] == str(coprocessor_folder)


def test_baselines_stand_beside_the_latents_and_all_fits_eighty_columns(run, folder_of):
    full, hidden = folder_of("full"), folder_of("hidden")
    against = f"soft:{folder_of('soft')},pause:{folder_of('pause')}"
    outcome = run("eval", full, hidden, *FEW, "--against", against, "-o", "costs.json")
    assert outcome.code == 0, outcome.err
    assert max(len(line) for line in outcome.out.splitlines() if "/" not in line) <= 80
    words = " ".join(outcome.out.split())
    assert "from text" in words
    assert "1 turn of a prompt of 32 random tokens, then 2 more, in float32 on cpu" in words
    rows = json.loads(Path("costs.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == [None, "full", "hidden", "soft", "pause"]
    assert not (full / "cost.json").exists()


def test_what_cannot_be_measured_is_shown_as_missing(run, folder_of):
    shown = run("eval", folder_of("continued"), *FEW).out
    assert "continued, no latents" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cost", "--data", "x"), "--cost reads tokens drawn at random: leave out --data"),
        (("--cost", "--problems", "all"), "--problems and --cost exclude each other"),
        (("--cost", "--bench", "piqa"), "--bench and --cost exclude each other"),
        (("--cost", "--every-token"), "leave out --every-token"),
        (("--repeats", "2"), "--repeats is for costs: add --cost"),
        (("--decoded-tokens", "2"), "--decoded-tokens is for costs: add --cost"),
        (("--cost", "--repeats", "0"), "repeats must be at least 1, got 0"),
        (("--cost", "--prompt-tokens", "0"), "prompt_tokens must be at least 1, got 0"),
    ],
)
def test_a_wrong_use_is_one_sentence(refused, coprocessor_folder, options, said):
    assert said in refused("eval", coprocessor_folder, *options, code=2)


def test_a_prompt_beyond_the_positions_is_refused(refused, coprocessor_folder):
    line = refused("eval", coprocessor_folder, "--cost", "--prompt-tokens", "63")
    assert "63 prompt tokens, 0 latents after them and 32 decoded tokens are 95" in line
    assert "has 64 positions: ask for fewer prompt tokens or fewer decoded tokens" in line
