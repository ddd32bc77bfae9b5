"""The model card says what the run's files say, and claims no more."""

import json

import pytest
import yaml
from huggingface_hub._eval_results import parse_eval_result_entries

from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.publication import prepare

REPO = "someone/thinker"


def card_of(run, **named):
    return prepare(run, REPO, **{"without_evaluation": True, **named}).card


def test_the_card_claims_a_gain_only_where_the_interval_excludes_zero(run):
    card = card_of(run)
    assert "With latents the perplexity is lower at token 1." in card
    assert "No measured gain at token 2: the interval includes zero." in card
    assert "With latents the perplexity is higher at token 4." in card
    assert "| 1 | 10.000 | 9.700 (-3.00 %: -3.50 to -2.50) | 9.900" in card
    assert "`stdlib` (1 document, 20 passages, 640 anchors, at most 64 tokens a passage)" in card
    assert "bootstrap over passages" in card


def test_the_card_of_a_run_that_was_not_evaluated_says_so(run):
    (run / "eval.json").unlink()
    card = card_of(run)
    assert "It was not evaluated" in card
    assert "%" not in card


def test_the_card_states_what_the_run_states(run, llama, make):
    card = card_of(run)
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["base_model"] == "someone/tiny-llama"
    assert metadata["base_model_relation"] == "adapter"
    assert metadata["library_name"] == "deliberate"
    assert metadata["pipeline_tag"] == "text-generation"
    assert "license" not in metadata
    assert "No licence was given" in card
    for stated in (
        "(N_L): 3\n",
        "(N_A): 4\n",
        f"revision `{'b' * 40}`, fingerprint `llama`",
        "`soft_input` `last_token`, `latent_norm` `before`, `latent_scale` `16.0`",
        f"Parameters: {make(llama, 'warm').num_parameters:,}, in float32",
        "| `data.train` | `letters.txt` |",
        "| `train.steps` | `12` |",
    ):
        assert stated in card
    assert "None" not in card


def test_a_change_without_an_interval_is_told_without_one(run, report):
    told = json.loads(json.dumps(report(run, passages=1)))
    told["change_percent"]["latents"]["1"] = {"value": -3.0, "low": None, "high": None}
    told["change_percent"]["soft"]["2"] = {"value": None, "low": None, "high": None}
    (run / "eval.json").write_text(json.dumps(told))
    card = card_of(run)
    assert "| 1 | 10.000 | 9.700 (-3.00 %) | 9.900 (-3.00 %" in card
    assert "| 2 | 9.500 | 9.490 (-0.10 %: -0.40 to +0.20) | 9.500 |" in card


def test_a_base_on_the_hub_is_named_in_python_and_taken_at_its_commit_by_the_command(run):
    card = card_of(run)
    assert 'load_base("someone/tiny-llama")' in card
    assert f'deliberate generate --coprocessor {REPO} --prompt "Once"' in card


@pytest.mark.parametrize(
    ("base", "python", "shell"),
    [
        ("/models/my own", '"path/to/my own"', "--base 'path/to/my own' "),
        ('/x/a"b\n```', '"path/to/a\\"b ```"', "--base 'path/to/a\"b ```' "),
        ("x](http://h) $(y)", '"path/to/x](http://h) $(y)"', "--base 'path/to/x](http://h) $(y)' "),
    ],
)
def test_an_odd_name_of_a_base_is_quoted_and_never_a_link(run, base, python, shell):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id=base, revision="b" * 40)
    config.pop("checksum")  # changed by hand
    (run / "config.json").write_text(json.dumps(config))
    card = card_of(run)
    assert f"load_base({python})\n" in card
    assert shell in card
    assert "huggingface.co/" not in card


def test_settings_that_are_younger_than_the_run_are_told(run):
    config = json.loads((run / "config.json").read_text())
    (run / "eval.json").unlink()  # of other settings
    del config["checksum"], config["coprocessor"]["latents"], config["coprocessor"]["positions"]
    (run / "config.json").write_text(json.dumps(config))
    assert "(N_L): 4\n" in card_of(run)


def test_a_base_that_is_not_on_the_hub_is_not_linked_there(run):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id="/home/someone/models/mine", revision="")
    config.pop("checksum")  # changed by hand
    (run / "config.json").write_text(json.dumps(config))
    card = card_of(run)
    assert "base_model" not in card
    assert "huggingface.co/" not in card
    assert "/home" not in card
    assert "`mine`, which was a folder and not on the Hub" in card
    assert 'load_base("path/to/mine")' in card


def test_the_embedded_base_needs_no_name_in_the_card(run):
    config = json.loads((run / "config.json").read_text())
    config["base"].update(id="nano", revision="")
    config.pop("checksum")  # changed by hand
    (run / "config.json").write_text(json.dumps(config))
    card = card_of(run)
    assert "base_model" not in card
    assert "load_base()" in card
    assert f"deliberate generate --coprocessor {REPO}" in card


@pytest.mark.parametrize(("kind", "latents"), [("hidden", "3"), ("continued", "none")])
def test_the_card_of_a_kind_that_reads_no_caches_shows_how_it_is_measured(
    run, llama, make, kind, latents
):
    folder = run.parent / kind
    save_coprocessor(make(llama, "warm", kind=kind), folder, base=llama, recipe={})
    card = card_of(folder)
    assert f"deliberate eval {REPO} --base path/to/llama --data texts.jsonl" in card
    assert "print(evaluate(base, measured, data=" in card
    assert "deliberate generate" not in card
    assert "extends the model's key-value cache" not in card
    assert f"(N_L): {latents}\n" in card
    assert ("3 latents" in card) == (kind == "hidden")


def test_the_card_gives_no_verdict_from_too_few_texts(run, report):
    (run / "eval.json").write_text(json.dumps(report(run, passages=9)))
    card = card_of(run)
    assert "Too few texts to tell whether there is a gain: 9 passages resampled" in card
    assert "With latents the perplexity is" not in card


def test_the_card_says_when_latents_were_another_passage_s(run, report):
    change = report(run)["change_percent"]
    shuffled = {
        "perplexity": {**report(run)["perplexity"], "shuffled": report(run)["perplexity"]["soft"]},
        "change_percent": {**change, "shuffled": change["soft"]},
    }
    (run / "eval.json").write_text(json.dumps(report(run, **shuffled, shuffled_from="document")))
    assert "| another text's latents |" in card_of(run)
    (run / "eval.json").write_text(json.dumps(report(run, **shuffled, shuffled_from="passage")))
    assert "| another passage's latents |" in card_of(run)


def test_the_card_says_after_which_step_the_weights_were_kept_and_what_was_measured_then(run):
    assert "weights after step" not in card_of(run)
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["reached"] = {
        "step": 8,
        "loss_change": -0.01,
        "change_percent": {"1": -1.25, "2": 0.5},
    }
    config.pop("checksum")  # changed by hand
    (run / "config.json").write_text(json.dumps(config))
    card = card_of(run)
    assert "after step `8` of `12`" in card
    assert "token `1` `-1.25` %, token `2` `0.5` %." in card


def test_the_card_says_the_licence_that_is_given(run):
    card = card_of(run, licence="apache-2.0")
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    assert "## Licence\n\n`apache-2.0`." in card


@pytest.fixture
def report_folder(run, report):
    """A report beside the run, as `deliberate eval RUN --suite quick` keeps it."""
    folder = run / "report"
    folder.mkdir()
    told = report(run) | {"examples": {"helped": ["a private text"], "hurt": []}}
    content = {
        "format": "deliberate-results",
        "runs": [{"fingerprint": told["fingerprints"]["latents"]}],
        "tasks": {"perplexity": {"result": [told]}, "bench": {"result": _bench(told)}},
    }
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "perplexity.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    text = "![Change of perplexity\\.](perplexity.png)\n\n![x](gone.png)\n\n![y](../../z.png)\n"
    (folder / "report.md").write_text(text)
    return folder


def _bench(told, **changes):
    """Benchmarks as `deliberate eval --bench` keeps them."""
    one = {"shots": 8, "score": "exact_match", "filter": "strict-match", "questions": 1319,
           "base": 2.5, "latents": 3.456, "p": 0.04321}  # fmt: skip
    return {
        "settings": {
            "coprocessor_fingerprint": told["fingerprints"]["latents"],
            "data": "Hub",
            "limit": None,
            "harness": "0.4.13",
            **changes,
        },
        "sets": {"gsm8k": one, "piqa": {**one, "score": "acc_norm"}},
        "left_out": {},
    }


def test_a_report_gives_the_card_its_tables_and_plots_and_no_text_is_quoted(run, report_folder):
    (run / "eval.json").unlink()
    publication = prepare(run, REPO)
    assert "With latents the perplexity is lower at token 1." in publication.card
    assert "| `gsm8k` | 8 | `exact_match` | 1,319 | 2.50 % | 3.46 % | 0.0432 |" in publication.card
    assert "![Change of perplexity\\.](plots/perplexity.png)" in publication.card
    assert set(publication.files) == {
        "README.md", "config.json", "model.safetensors", "recipe.yaml", "eval.json",
        "plots/perplexity.png", ".eval_results/gsm8k.yaml",
    }  # fmt: skip
    for name, content in publication.files.items():
        if isinstance(content, bytes):
            assert b"private text" not in content, name
    assert json.loads(publication.files["eval.json"])["passages"] == 20


def test_a_report_of_neither_texts_nor_benchmarks_is_an_evaluation_with_its_plots(
    run, report_folder
):
    (run / "eval.json").unlink()
    content = json.loads((report_folder / "results.json").read_text()) | {"tasks": {}}
    (report_folder / "results.json").write_text(json.dumps(content))
    card = prepare(run, REPO).card
    assert "(plots/perplexity.png)" in card
    assert "not evaluated" not in card


def test_results_go_to_the_hub_in_its_own_form(run, report_folder):
    content = prepare(run, REPO).files[".eval_results/gsm8k.yaml"]
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 3.46)
    assert "8 shots" in entry.notes
    assert "base alone has 2.50" in entry.notes


@pytest.mark.parametrize("changes", [{"limit": 10}, {"data": "/home/someone/files"}])
def test_what_others_could_not_compare_is_in_the_card_alone(run, report, changes):
    (run / "bench").mkdir()
    (run / "bench" / "bench.json").write_text(json.dumps(_bench(report(run), **changes)))
    publication = prepare(run, REPO)
    assert "| `gsm8k` | 8 |" in publication.card
    assert "/home" not in publication.card
    assert ".eval_results/gsm8k.yaml" not in publication.files


def test_a_report_of_other_weights_is_refused_and_a_comparison_of_runs_left_out(run, report_folder):
    content = json.loads((report_folder / "results.json").read_text())
    content["runs"] *= 2
    (report_folder / "results.json").write_text(json.dumps(content))
    assert "plots/" not in card_of(run)
    content["runs"] = [{"fingerprint": "0" * 16}]
    (report_folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(DeliberateError, match="measured other weights"):
        card_of(run)


def test_what_is_called_a_plot_and_is_none_is_refused(run, report_folder):
    (report_folder / "perplexity.png").write_bytes(b"#!/bin/sh")
    with pytest.raises(DeliberateError, match="is no PNG"):
        card_of(run)
