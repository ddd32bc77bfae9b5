"""Examples are the extremes, and their tokens join to the text that was measured."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deliberate.core import load_base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import Observed
from deliberate.core.passages import Passage
from deliberate.eval import Sample, evaluate
from deliberate.eval.examples import Examples, token_texts


def passages_of(documents, length=40):
    return [
        Passage(document=document, token_ids=[2 + (number + i) % 60 for i in range(length)])
        for number, document in enumerate(documents)
    ]


def observed(numbers, *, anchors=6, ahead=40, seed=0):
    torch.manual_seed(seed)
    losses = torch.rand(2, len(numbers), anchors, ahead)
    counted = torch.rand(len(numbers), anchors, 1) * ahead > torch.arange(ahead)
    return Observed(
        losses={"base": losses[0], "latents": losses[1]},
        counted=counted,
        anchors=torch.arange(anchors).expand(len(numbers), -1) + 1,
        entropy=torch.rand(len(numbers), anchors),
        passages=numbers,
    )


@pytest.mark.parametrize("seed", range(5))
def test_examples_are_the_extremes_one_a_document(llama, seed):
    documents = [number // 3 for number in range(24)]
    chosen = passages_of(documents, length=90)
    examples = Examples("latents", chosen, llama.tokenizer, delay=0)
    every = []
    for first in range(0, 24, 4):
        batch = observed(list(range(first, first + 4)), seed=100 * seed + first)
        examples(batch)
        for row, number in enumerate(batch.passages):
            for index in range(6):
                steps = range(int(batch.counted[row, index].sum()))
                base, latents = (batch.losses[name][row, index] for name in ("base", "latents"))
                gain = sum(float(base[step]) - float(latents[step]) for step in steps)
                every.append((gain, documents[number], int(batch.anchors[row, index])))
    found = examples.to_dict()
    for name, sign in (("helped", 1), ("hurt", -1)):
        by_document = {}
        for gain, document, _ in sorted(every, key=lambda each: sign * each[0]):
            by_document[document] = gain
        best = sorted(by_document.items(), key=lambda each: -sign * each[1])[:5]
        best = [(document, gain) for document, gain in best if sign * gain > 0]
        assert [each["document"] for each in found[name]] == [document for document, _ in best]
        for each, (_, gain) in zip(found[name], best, strict=True):
            assert each["gain_nats"] == pytest.approx(gain, rel=1e-5)
            assert len(each["tokens"]) <= 32


def test_what_did_not_help_is_no_example_of_help(llama):
    chosen = passages_of([0, 1])
    batch = observed([0, 1], ahead=8)
    batch.losses["latents"] = batch.losses["base"] + 1
    examples = Examples("latents", chosen, llama.tokenizer, delay=0)
    examples(batch)
    found = examples.to_dict()
    assert found["helped"] == []
    assert len(found["hurt"]) == 2


TEXT = 'def naïve(x):\n    """日本語 — “quoted” 🙂🙂."""\n    return x  # Ω\n'


@pytest.fixture(scope="module")
def by_bytes():
    """A token a byte, so that most characters here are several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_token_texts_join_to_the_text_wherever_it_is_parted(by_bytes):
    for tokenizer in (by_bytes, load_base().tokenizer):
        ids = tokenizer(TEXT)["input_ids"]
        for first in range(1, len(ids)):
            before, texts = token_texts(tokenizer, ids, first=first)
            assert before + "".join(texts) == TEXT
            assert len(texts) == len(ids) - first


def test_a_character_goes_with_the_token_that_completes_it(by_bytes):
    ids = by_bytes("aé🙂b")["input_ids"]
    assert token_texts(by_bytes, ids, first=1) == ("a", ["", "é", "", "", "", "🙂", "b"])
    assert token_texts(by_bytes, ids, first=2) == ("a", ["é", "", "", "", "🙂", "b"])
    assert token_texts(by_bytes, ids[:5], first=1) == ("a", ["", "é", "", "\ufffd"])


def test_a_start_token_is_not_part_of_the_text_before(llama):
    end = llama.tokenizer.bos_token_id
    ids = llama.tokenizer("ab")["input_ids"]
    before, texts = token_texts(llama.tokenizer, [end, *ids, end], first=2)
    assert before.strip() == "a"
    assert [text.strip() for text in texts] == ["b", "<end>"]


@pytest.mark.parametrize("delay", [0, 2])
def test_the_report_quotes_only_where_it_is_asked_to(llama, make, tmp_path, delay):
    rows = "\n".join(
        f'{{"text": "{word * 9}", "kind": "k{number % 2}"}}'
        for number, word in enumerate(("some words ", "more of it ", "and a text "))
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    writer = Trained(coprocessor=make(llama, "warm"), id="tiny", fingerprint="f")
    sample = Sample(length=60, ahead=4, anchors=3, delays=(delay,))
    report = evaluate(
        llama, writer, data=str(tmp_path / "rows.jsonl"), domain="kind", sample=sample
    )
    assert "examples" not in report.to_dict()
    assert report.to_dict(examples=True)["examples"] == report.examples
    assert report.examples.keys() == {"helped", "hurt"}
    found = [*report.examples["helped"], *report.examples["hurt"]]
    assert found
    for each in found:
        assert each.keys() == {"document", "domain", "before", "gain_nats", "tokens"}
        assert each["domain"] == f"k{each['document'] % 2}"
        gain = sum(math.log(token["latents"] / token["base"]) for token in each["tokens"])
        assert each["gain_nats"] == pytest.approx(gain, abs=1e-4)
        quoted = each["before"] + "".join(token["text"] for token in each["tokens"])
        passages = [p for p in report.drawn.passages if p.document == each["document"]]
        assert any(llama.tokenizer.decode(p.token_ids).startswith(quoted) for p in passages)
        # The probability is that of the token after the text before it.
        ids = llama.tokenizer(each["before"].replace(" ", "\0")[::2].replace("\0", " "))
        logits = llama.model(input_ids=torch.tensor([ids["input_ids"]])).logits[0, -1]
        first = llama.tokenizer(each["tokens"][0]["text"][1:])["input_ids"]
        assert each["tokens"][0]["base"] == pytest.approx(
            float(logits.softmax(-1)[first[0]]), rel=1e-3
        )
