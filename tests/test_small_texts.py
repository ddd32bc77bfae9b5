"""What `small` reads: books in pieces, and questions with numbers where their places are."""

import json
import sys

import pytest
import small_texts


@pytest.fixture
def data(tmp_path):
    books = tmp_path / "text" / "books"
    books.mkdir(parents=True)
    for name in "ab":
        (books / f"{name}.md").write_text("\n\n".join(f"{name}{n} " + "x" * 50 for n in range(9)))
    chains, words = tmp_path / "eval" / "gsm8k_icot", tmp_path / "eval" / "svamp"
    chains.mkdir(parents=True)
    words.mkdir()
    line = "A hen lays 2 eggs. How many do 3?||<<3*2=6>> <<6+1=7>> #### 1,007\n"
    (chains / "train_from_gsm8k.txt").write_text(line)
    (chains / "test.txt").write_text(line.replace("hen", "goose"))
    head = "Question,Numbers,Equation,Answer\n"
    rows = "".join(
        f'"he has number0 and number1 , day {n} . how many ?",{n}.0 2.5,+ number0 number1,{n}.5\n'
        for n in range(40)
    )
    (words / "mawps-asdiv-a_svamp_train.csv").write_text(head + rows)
    (words / "mawps-asdiv-a_svamp_dev.csv").write_text(head + rows.splitlines()[0] + "\n")
    return tmp_path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_books_and_arithmetic_are_texts_and_no_asked_question_is_among_them(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(small_texts, "PIECE", 100)
    monkeypatch.setattr(sys, "argv", ["small_texts.py", str(data), str(tmp_path / "out")])
    small_texts.main()
    out = tmp_path / "out"
    books = [row["text"] for row in read(out / "books.jsonl")]
    assert [text[:2] for text in books if text.startswith("a")] == ["a0", "a2", "a4", "a6", "a8"]
    assert "".join(books).count("x") == 900
    texts = [row["text"] for row in read(out / "arithmetic.jsonl")]
    assert "A hen lays 2 eggs. How many do 3? 1007\n" in texts
    worked = "Step by step. A hen lays 2 eggs. How many do 3?\n3*2=6\n6+1=7\nSo 1007\n"
    assert worked in texts
    asked = {name: read(out / f"{name}.jsonl") for name in ("gsm8k", "svamp", "mawps")}
    assert asked["gsm8k"] == [{"question": "A goose lays 2 eggs. How many do 3?", "answer": "1007"}]
    assert asked["svamp"] == [{"question": "He has 0 and 2.5, day 0. How many?", "answer": "0.5"}]
    held_out = {row["question"] for some in asked.values() for row in some}
    assert asked["mawps"]
    assert len(texts) == 2 + 40 - len(held_out - {asked["gsm8k"][0]["question"]})
    assert not [text for text in texts if any(question in text for question in held_out)]
