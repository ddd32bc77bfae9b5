"""The corpus of `nano`: what counts as a question there, and which rows come when."""

from itertools import islice

import nano_corpus as corpus
import pytest
import torch
from datasets import Dataset

from deliberate.core import problem_texts
from deliberate.core.problems import CUE, FAMILIES, problems


@pytest.fixture(scope="module")
def made():
    return [
        problem
        for family in FAMILIES
        for steps in (1, 2, 6)
        for problem in islice(problems(family, steps=steps), 30)
    ]


def rows_of(texts, tokenizer):
    columns = {"name": list(texts), "text": list(texts.values())}
    return corpus.pack_asked(Dataset.from_dict(columns), tokenizer, most=10**9).flatten()


def test_the_tokens_of_questions_and_no_others_are_marked(made, monkeypatch):
    monkeypatch.setattr(corpus, "POSITIONS", 1)  # so that no token is left over
    tokenizer = corpus.train_tokenizer([problem.worked for problem in made])
    start = tokenizer.bos_token_id
    for name, form, cue in (("answered/1", "pair", ""), ("worked/1", "worked", CUE)):
        expected = [start]
        for problem in made:
            whole = getattr(problem, form)
            asked = tokenizer(cue + problem.question, add_special_tokens=False)["input_ids"]
            rest = whole.removeprefix(cue + problem.question)
            said = tokenizer(rest, add_special_tokens=False)["input_ids"]
            expected += [*(~token for token in asked), *said]
        text = "".join(getattr(problem, form) for problem in made)
        assert rows_of({name: text}, tokenizer).tolist() == expected
    plain = rows_of({"os.py": "a = 3\nSort 5 2:\n"}, tokenizer)
    assert (plain >= 0).all()


def test_digits_and_names_are_single_tokens(monkeypatch):
    monkeypatch.setattr(problem_texts, "TEXTS", {"train": 600, "validation": 10})
    tokenizer = corpus.train_tokenizer(list(problem_texts.problem_texts("train").values()))
    for words in ("Ann", " Ann", " 7", "7", " 42", "1234"):
        tokens = tokenizer(words, add_special_tokens=False)["input_ids"]
        digits = words.strip().isdigit()
        assert len(tokens) == (len(words.strip()) if digits else 1)
        assert tokenizer.decode(tokens) == words


def test_rows_come_by_their_weights_and_each_once_an_epoch():
    rows = {
        "a": torch.arange(40, dtype=torch.int32)[:, None],
        "b": torch.arange(100, 130, dtype=torch.int32)[:, None],
    }
    mixture = corpus.Mixture(rows=rows, weights={"a": 3.0, "b": 1.0}, seed=1)
    drawn = mixture.batch(0, 1000).flatten()
    assert (drawn < 100).sum() == 750
    first = drawn[drawn < 100][:40]
    assert sorted(first.tolist()) == list(range(40))
    assert torch.equal(mixture.batch(300, 50).flatten(), drawn[300:350])


def test_packages_files_are_on_one_side_each(monkeypatch):
    names = [f"site-packages/{number}.py" for number in range(400)] + ["os.py"]
    texts = Dataset.from_dict({"name": names, "text": names})
    monkeypatch.setattr(corpus, "documents", lambda source: texts)
    train, held = (
        set(corpus.texts_of("packages", split)["name"]) for split in ("train", "validation")
    )
    assert train | held == set(names[:-1])
    assert not train & held
    assert 5 < len(held) < 40


def test_a_part_of_ones_own_has_its_last_texts_held_out(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(40)))
    kept, held_out = (
        corpus.texts_of("own", split, source=str(path)) for split in ("train", "validation")
    )
    assert kept["text"][:] == [f"text {number}" for number in range(38)]
    assert held_out["text"][:] == ["text 38", "text 39"]
    assert kept["name"][0] == "own/0"


def test_a_tokenizer_is_trained_on_a_sample_of_ones_own_texts(monkeypatch):
    monkeypatch.setattr(corpus, "SAMPLED_CHARACTERS", 10)
    texts = Dataset.from_dict({"text": ["abcd"] * 9})
    assert corpus.sample_of("own", texts) == ["abcd"] * 3
