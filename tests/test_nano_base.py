"""The recipe of `nano`'s base: its optimizer, its loss, and that a stopped run goes on."""

import argparse
import sys

import nano_base as recipe
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return lambda: LlamaForCausalLM(config)


def test_tokens_of_questions_count_as_little_as_is_said(tiny):
    model = tiny()
    rows = torch.tensor([[1, ~2, ~3, 4, 5], [6, 7, ~8, ~9, 10]], dtype=torch.int32)
    token_ids = torch.where(rows < 0, ~rows, rows).long()
    logs = model(input_ids=token_ids).logits.log_softmax(-1)
    said = [[0.1, 0.1, 1, 1], [1, 0.1, 0.1, 1]]
    total = sum(
        -weight * logs[row, place, token_ids[row, place + 1]]
        for row, weights in enumerate(said)
        for place, weight in enumerate(weights)
    )
    assert recipe.loss_of(model, rows, asked=0.1).item() == pytest.approx(total.item() / 4.4)


def test_a_stopped_run_goes_on_to_the_same_weights(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "KEEP_EVERY", 2)
    monkeypatch.setattr(recipe, "POSITIONS", 32)
    monkeypatch.setattr(recipe, "SHORT", 16)
    rows = torch.randint(40, (30, 32), generator=torch.Generator().manual_seed(3)).int()
    weights = {"stdlib": 1.0, "problems": 2.0}

    class Mixture(recipe.Mixture):
        def batch(self, first, size):
            if first == stop * size:
                raise KeyboardInterrupt
            return super().batch(first, size)

    found = []
    for name, stops in (("whole", [None]), ("parts", [3, 6, None])):
        options = argparse.Namespace(
            work=tmp_path / name, steps=8, batch=2, learning_rate=0.01, compile=False
        )
        options.work.mkdir()
        for stop in stops:
            stop = -1 if stop is None else stop
            torch.manual_seed(4)
            model = tiny()
            mixture = Mixture(rows={"stdlib": rows, "problems": rows}, weights=weights, seed=5)
            if stop < 0:
                recipe.train(model, mixture, options)
            else:
                with pytest.raises(KeyboardInterrupt):
                    recipe.train(model, mixture, options)
        found.append(torch.cat([each.flatten() for each in model.parameters()]))
    assert torch.equal(*found)


def test_rows_that_were_half_written_are_not_taken_for_whole(tmp_path, monkeypatch):
    class Tokenizer:
        def save_pretrained(self, folder):
            pass

    def half(content, path):
        path.write_bytes(b"PK")
        raise OSError("no room")

    texts = Dataset.from_dict({"text": ["one", "two"]})
    monkeypatch.setattr(recipe, "texts_of", lambda *_, **__: texts)
    monkeypatch.setattr(recipe, "_tokenizer", lambda *_: Tokenizer())
    monkeypatch.setattr(recipe, "pack_asked", lambda *_, **__: torch.zeros(1, 4))
    monkeypatch.setattr(recipe, "characters", lambda _: 6)
    monkeypatch.setattr(torch, "save", half)
    options = argparse.Namespace(
        work=tmp_path, mixture={"stdlib": 1.0}, source={}, steps=1, batch=1
    )
    with pytest.raises(OSError, match="no room"):
        recipe.prepared(options)
    assert not (tmp_path / "corpus.pt").exists()


def test_the_rate_rises_stays_and_falls_to_nothing():
    rates = [recipe.rate_at(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / recipe.WARMUP)
    assert rates[recipe.WARMUP] == rates[int(1000 * (1 - recipe.FALL))] == 1
    assert rates[-1] < 0.01


def test_a_part_that_there_is_not_is_refused(monkeypatch, capsys):
    needed = ["--output", "out", "--work", "work"]
    said = ["nano_base.py", *needed, "--mixture", "stdlib=1,books=2.5"]
    monkeypatch.setattr(sys, "argv", said)
    with pytest.raises(SystemExit):
        recipe.parsed()
    assert "no part 'books': known are stdlib, packages, problems" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*said, "--source", "books=texts/books"])
    options = recipe.parsed()
    assert options.mixture == {"stdlib": 1.0, "books": 2.5}
    assert options.source == {"books": "texts/books"}
    monkeypatch.setattr(sys, "argv", [*said, "--source", "problems=mine"])
    with pytest.raises(SystemExit):
        recipe.parsed()
    assert "must be NAME=PATH with a new name, got 'problems=mine'" in capsys.readouterr().err
