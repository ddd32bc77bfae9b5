"""Texts from files, folders and the Hub, whole and as streams."""

import gzip
import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset

from deliberate.core.errors import TextError
from deliberate.core.sources import Source, fingerprint_of_source, opened, sources, texts_of
from deliberate.core.texts import documents, is_held_out, validation_texts


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def streamed(path):
    (source,) = sources(str(path))
    return list(texts_of(opened(source, split="train", streaming=True), source))


def test_a_folder_of_shards_is_its_rows_in_the_order_of_names(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "b.jsonl").write_text(lines("three"))
    (shards / "a.jsonl").write_text(lines("one", "two", " "))
    with gzip.open(shards / "c.jsonl.gz", "wt") as file:
        file.write(lines("four"))
    assert list(documents(str(shards))["text"]) == ["one", "two", "three", "four"]
    assert streamed(shards) == ["one", "two", "three", "four"]
    (shards / "notes.txt").write_text("not a row")
    with pytest.raises(TextError, match=r"holds 'a.jsonl' beside 'notes.txt'"):
        documents(str(shards))


@pytest.mark.parametrize(("suffix", "broken"), [("jsonl", b"not json"), ("parquet", b"PAR1 cut")])
def test_of_several_files_the_broken_one_is_named(tmp_path, suffix, broken):
    Dataset.from_dict({"text": ["one"]}).to_parquet(str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_text(lines("one"))
    next(path for path in tmp_path.iterdir() if path.suffix != f".{suffix}").unlink()
    (tmp_path / f"b.{suffix}").write_bytes(broken)
    with pytest.raises(TextError, match=rf"cannot read '.*b\.{suffix}'"):
        documents(str(tmp_path))


def test_a_stream_gives_what_reading_whole_gives(tmp_path):
    folder, table = tmp_path / "plain", tmp_path / "rows.parquet"
    folder.mkdir()
    (folder / "a.txt").write_text("first\n\ntext")
    (folder / "b.md").write_text("second")
    Dataset.from_dict({"text": ["one", None, "", "two"]}).to_parquet(str(table))
    for path in (folder, table):
        assert streamed(path) == list(documents(str(path))["text"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.txt", b"\xff\xfe\x00", "cannot read .*utf-8"),
        ("x.jsonl", b'{"other": "a"}', "no field 'text': it has other"),
        ("x.jsonl", b'{"text": "a"}\n{"text": 3}', "row 2: 'text' must be text, got 3"),
        ("x.jsonl", b'{"text": "a"}\nnot json', "cannot read .*JSON"),
        ("x.parquet", b"PAR1 cut short", "cannot read .*arquet"),
    ],
)
def test_what_a_stream_cannot_read_is_named(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=told):
        streamed(tmp_path / name)


def test_a_stream_holds_out_texts_by_what_they_say(tmp_path):
    texts = [f"text {number % 150}" for number in range(300)]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*texts))
    named, held = validation_texts(str(path), streaming=True)
    assert named == f"{path} (held out)"
    assert 0 < len(held) < 40
    assert set(held["text"]) == {text for text in texts if is_held_out(text)}
    path.write_text(lines("text 1"))
    with pytest.raises(TextError, match=r"data\.validation"):
        validation_texts(str(path), streaming=True)


def test_the_texts_of_several_sources_are_held_out_of_each(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(lines(*[f"{name} {i}" for i in range(40)]))
    train = [{"path": str(tmp_path / "a.jsonl")}, {"path": str(tmp_path / "b.jsonl")}]
    _, held = validation_texts(train)
    assert list(held["text"]) == ["a 38", "a 39", "b 38", "b 39"]
    _, held = validation_texts("stdlib", train)
    assert len(held) == 80


@pytest.mark.parametrize("name", ["split", "config", "revision"])
def test_what_only_the_hub_has_is_refused_for_what_is_here(tmp_path, name):
    (tmp_path / "rows.jsonl").write_text(lines("one", "two"))
    for path in (str(tmp_path / "rows.jsonl"), "stdlib"):
        with pytest.raises(TextError, match=f"is here and has no {name} 'x'"):
            documents(Source(path=path, **{name: "x"}))


def test_a_source_s_fingerprint_heeds_its_files_and_not_its_weight(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines("one"))
    before = fingerprint_of_source(Source(path=str(path)))
    assert fingerprint_of_source(Source(path=str(path), weight=3.0)) == before
    assert fingerprint_of_source(Source(path=str(path), field="body")) != before
    path.write_text(lines("one", "two"))
    assert fingerprint_of_source(Source(path=str(path))) != before


HUB = """
import json
from deliberate.core.errors import TextError
from deliberate.core.sources import Source, sources, opened, texts_of
from deliberate.core.texts import documents

def whole(**named):
    try:
        return list(documents(Source(**named), split="validation")["text"])
    except TextError as error:
        return str(error)

(streamed,) = sources("someone/texts")
print(json.dumps({
    "validation": whole(path="someone/texts"),
    "train": whole(path="someone/texts", split="train[:2]"),
    "stream": list(texts_of(opened(streamed, split="train", streaming=True), streamed)),
    "config": whole(path="someone/many", config="b", split="train"),
    "no split": whole(path="someone/texts", split="dev"),
    "no field": whole(path="someone/texts", field="body"),
    "no config": whole(path="someone/many"),
    "no dataset": whole(path="someone/nothing"),
    "no revision": whole(path="someone/texts", revision="gone"),
}))
"""
CARD = b"""---
configs:
- {config_name: a, data_files: a.jsonl}
- {config_name: b, data_files: b.jsonl}
---
"""


@pytest.mark.slow
def test_a_dataset_of_the_hub_has_splits_and_configurations(hub, tmp_path):
    rows = {name: lines(*[f"{name} {i}" for i in range(3)]).encode() for name in "tvab"}
    hub.add("someone/texts", {"train.jsonl": rows["t"], "validation.jsonl": rows["v"]})
    hub.add("someone/many", {"README.md": CARD, "a.jsonl": rows["a"], "b.jsonl": rows["b"]})
    done = subprocess.run(
        [sys.executable, "-c", HUB],
        env={**os.environ, **hub.environment(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["validation"] == ["v 0", "v 1", "v 2"]
    assert told["train"] == ["t 0", "t 1"]
    assert told["stream"] == ["t 0", "t 1", "t 2"]
    assert told["config"] == ["b 0", "b 1", "b 2"]
    assert "['train', 'validation']" in told["no split"]
    assert "no field 'body': it has text" in told["no field"]
    assert "['a', 'b']" in told["no config"]
    assert "no such dataset;" in told["no dataset"]
    assert "no such dataset with revision 'gone'" in told["no revision"]


def test_reading_files_asks_nobody(tmp_path, monkeypatch):
    asked = []

    def look_up(host, *_, **__):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    path = tmp_path / "rows.jsonl"
    path.write_text(lines("one"))
    assert list(documents(str(path))["text"]) == streamed(path) == ["one"]
    assert not asked


def test_only_what_is_named_like_a_dataset_is_asked_of_the_hub(tmp_path, monkeypatch):
    def asked(*arguments, **options):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("deliberate.core.sources.load_dataset", asked)
    for name in ("gone", "data/gone.txt", "data/rows.jsonl", "./a/b", "a/b/c", "/a/b", "../a"):
        with pytest.raises(TextError, match="no texts at"):
            documents(name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": "\xe9"}\n', "as json: it is not UTF-8$"),
        (b"\n\n\n", "holds no text: no line has anything"),
    ],
)
def test_rows_that_are_not_utf_8_and_empty_lines_alone_are_refused(tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(TextError, match=rf"rows\.jsonl' {said}"):
        documents(str(path))
