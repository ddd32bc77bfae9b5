"""The model card says what the run's files say, and claims no more."""

import json

import pytest
import yaml

from deliberate.core.checkpoint import save_coprocessor
from deliberate.core.publish import prepare

REPO = "someone/thinker"


def card_of(run):
    return prepare(run, REPO).card


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


def test_the_embedded_base_needs_no_name_in_thecard_of(run):
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
