"""Reading and packing texts, and what is held out of them."""

import json

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from deliberate.core import python_source
from deliberate.core.base import NANO
from deliberate.core.errors import TextError
from deliberate.core.packing import Packer, pack, start_of_text
from deliberate.core.texts import documents, hold_out


def test_a_file_is_one_text_a_folder_one_a_file_and_jsonl_one_a_row(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_text("second\n\nline")
    (tmp_path / "in" / "a.md").write_text("first é")
    (tmp_path / "in" / ".hidden").write_text("no")
    rows = [{"body": "one"}, {"body": None}, {"body": "three"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert documents(str(tmp_path / "in" / "b.txt"))["text"] == ["second\n\nline"]
    assert documents(str(tmp_path / "in"))["text"] == ["first é", "second\n\nline"]
    assert documents(str(tmp_path / "rows.jsonl"), field="body")["text"] == ["one", "three"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.txt", b" \n", "holds no text"),
        ("x.txt", b"\xff\xfe\x00", "x.txt"),
        ("x.jsonl", b'{"other": "a"}', "no field 'text': it has other"),
        ("x.jsonl", b'{"text": 3}', "row 1: 'text' must be text, got 3"),
        ("x.jsonl", b"not json", "x.jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=told):
        documents(str(tmp_path / name))


def test_a_parquet_file_is_its_column(tmp_path):
    path = tmp_path / "rows.parquet"
    Dataset.from_dict({"body": ["one", "", "two"], "number": [1, 2, 3]}).to_parquet(str(path))
    rows = documents(str(path), field="body")
    assert list(rows["text"]) == ["one", "two"]
    with pytest.raises(TextError, match="no field 'text': it has body, number"):
        documents(str(path))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TextError, match=r"cannot read '.*rows\.parquet' as parquet"):
        documents(str(path))


def test_a_domain_that_texts_alone_do_not_have_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"body": "a"}\n')
    told = "no field 'nope': it has nothing beside its texts"
    with pytest.raises(TextError, match=told):
        documents(str(tmp_path / "x.jsonl"), field="body", domain="nope")


def test_empty_rows_are_counted_and_told_of_once(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": null}\n{"text": " "}\n')
    for _ in range(2):
        assert list(documents(str(path))["text"]) == ["a"]
    [record] = caplog.records
    assert record.getMessage() == f"2 of the 3 texts of {str(path)!r} are empty and left out"


def test_a_missing_source_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(TextError, match="stdlib, installed"):
        documents(str(tmp_path / "gone"))
    with pytest.raises(TextError, match="without files"):
        documents(str(tmp_path))


def test_rows_are_the_texts_tokens_in_order(llama, tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij")
    (tmp_path / "b.txt").write_text("klmnopq")
    rows = pack(documents(str(tmp_path)), llama.tokenizer, length=6)["token_ids"]
    end = llama.tokenizer.eos_token_id
    stream = [*llama.tokenizer("abcdefghij")["input_ids"], end]
    stream += [*llama.tokenizer("klmnopq")["input_ids"], end]
    assert list(rows) == [stream[start : start + 6] for start in range(0, len(stream) - 5, 6)]


def test_texts_are_tokenized_as_one_by_one_whatever_the_tokenizer(llama):
    class Shouting(PreTrainedTokenizerFast):
        def _encode_plus(self, text, **options):
            return super()._encode_plus([each.upper() for each in text], **options)

    texts = ["abc é xyz", "", f"a{llama.tokenizer.eos_token}b", "the end.\n" * 50]
    plain = AutoTokenizer.from_pretrained(NANO / "base")
    shouting = Shouting(tokenizer_object=plain.backend_tokenizer, eos_token="<|endoftext|>")
    for tokenizer in (llama.tokenizer, plain, shouting):
        packer = Packer(tokenizer, length=1)
        tokenizer.backend_tokenizer.enable_truncation(3)  # as it is in many a tokenizer.json
        tokenizer.backend_tokenizer.enable_padding(length=9)
        packed = packer(texts)["token_ids"]
        after = [] if start_of_text(tokenizer) else [tokenizer.eos_token_id]
        expected = [[*tokenizer([text])["input_ids"][0], *after] for text in texts]
        assert packed == [[token] for text in expected for token in text]
    loud, quiet = (Packer(shouting, length=1)([text] * 3) for text in ("abc", "ABC"))
    assert loud == quiet


def test_rows_may_take_more_texts_than_are_tokenized_at_once(llama, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ab"}\n' * 1500)
    rows = pack(documents(str(path)), llama.tokenizer, length=4000)
    stream = [*llama.tokenizer("ab")["input_ids"], llama.tokenizer.eos_token_id] * 1500
    assert len(rows) == 1
    assert rows["token_ids"][0] == stream[:4000]
    assert not len(pack(documents(str(path)), llama.tokenizer, length=10**6))


@pytest.mark.parametrize("count", [1, 2, 60])
def test_what_is_held_out_is_not_trained_on(tmp_path, count):
    texts = [f"text {number} " + "words " * 40 + "\n" for number in range(count)]
    if count == 1:
        texts = ["".join(f"line {number} of many\n" for number in range(100))]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    train, validation = hold_out(documents(str(path)), str(path))
    assert "".join([*train["text"], *validation["text"]]) == "".join(texts)
    assert 0 < len("".join(validation["text"])) <= 0.55 * len("".join(texts))


def test_held_out_modules_are_the_same_everywhere_and_nothing_repeats_them():
    train, validation = (
        python_source.stdlib_texts("train"),
        python_source.stdlib_texts("validation"),
    )
    assert {"shutil.py", "inspect.py", "weakref.py"} <= validation.keys()
    assert "argparse.py" in train
    assert not train.keys() & validation.keys()
    lines = {line for text in validation.values() for line in text.splitlines() if len(line) > 60}
    for name, text in train.items():
        shared = [line for line in text.splitlines() if line in lines]
        assert len(shared) <= max(2, 0.02 * text.count("\n")), name


def test_copies_of_held_out_modules_are_left_out_of_the_installed_source(tmp_path, monkeypatch):
    held_out = python_source.stdlib_texts("validation")["shutil.py"]
    (tmp_path / "copy.py").write_text("# vendored\n" + held_out)
    (tmp_path / "own.py").write_text("print('hello')\n")
    monkeypatch.setattr(python_source.sysconfig, "get_paths", paths_with(tmp_path))
    names = python_source.installed_texts("train").keys()
    assert "site-packages/own.py" in names
    assert "site-packages/copy.py" not in names


def test_installed_source_is_in_the_order_of_its_folders_without_what_is_no_source(
    tmp_path, monkeypatch
):
    wanted = ["a/b.py", "a/c/d.py", "a-b/c.py", "a.py", "test.py"]  # `-` is before `/`
    for name in (*wanted, "a/tests/e.py", "test/f.py", "folder.py/g.txt", "h.pyc"):
        file = tmp_path / "packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "packages")
    monkeypatch.setattr(python_source.sysconfig, "get_paths", paths_with(tmp_path / "link"))
    assert list(python_source._source_files("purelib")) == wanted
    linked = python_source.fingerprint(installed=True)
    monkeypatch.setattr(python_source.sysconfig, "get_paths", paths_with(tmp_path / "packages"))
    assert python_source.fingerprint(installed=True) == linked
    (tmp_path / "packages" / "a" / "tests" / "e.py").write_text("not read")
    assert python_source.fingerprint(installed=True) == linked
    (tmp_path / "packages" / "a.py").write_text("other text")
    assert python_source.fingerprint(installed=True) != linked
    assert python_source.fingerprint(installed=False) != linked


def paths_with(purelib):
    paths = {**python_source.sysconfig.get_paths(), "purelib": str(purelib)}
    return lambda: paths
