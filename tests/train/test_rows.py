"""Rows from several sources and from streams: shares, order, and where a run goes on."""

import json
from collections import Counter

import pytest
import torch

from deliberate.core import load_base
from deliberate.core.errors import TextError
from deliberate.core.packing import Packer
from deliberate.core.sources import sources
from deliberate.core.texts import is_held_out
from deliberate.train import stream, train
from deliberate.train.data import batches, load_rows
from deliberate.train.mixture import MIX
from deliberate.train.processes import Processes
from deliberate.train.rows import Rows
from deliberate.train.stream import Stream

ALONE = Processes(device=torch.device("cpu"))


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """Two files of 40 short texts, each of which names itself."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        jsonl(folder / f"{shard}.jsonl", [f"{shard}{number:02d} abc" * 4 for number in range(40)])
    return folder


class Counted:
    """A part whose row says which it is and its index."""

    fingerprint = "counted"

    def __init__(self, number):
        self.number = number

    def row(self, index):
        return {"token_ids": torch.tensor([self.number, index])}

    def state(self):
        return None

    def begin(self, state):
        pass

    def close(self):
        pass


def taken_at(rows, first, size):
    return [row["token_ids"].tolist() for row in rows.own(first, size)]


def test_each_source_comes_up_as_its_weight_says_and_gives_its_rows_in_turn():
    rows = Rows([Counted(0), Counted(1), Counted(2)], [3.0, 1.0, 1.5], seed=1, share=ALONE)
    drawn = taken_at(rows, 0, 3 * MIX)
    for start in range(0, 3 * MIX, MIX):
        counts = Counter(source for source, _ in drawn[start : start + MIX])
        assert [counts[source] for source in range(3)] == [545, 182, 273]
    for source in range(3):
        indexes = [index for which, index in drawn if which == source]
        assert indexes == list(range(len(indexes)))
    assert [source for source, _ in drawn[:8]] != sorted(source for source, _ in drawn[:8])
    # From the middle on, and in two processes, they are the same.
    assert taken_at(rows, 1234, 50) == drawn[1234:1284]
    shares = []
    for rank in range(2):
        share = Processes(rank=rank, count=2, device=torch.device("cpu"))
        parts = [Counted(0), Counted(1), Counted(2)]
        shares += taken_at(Rows(parts, [3.0, 1.0, 1.5], seed=1, share=share), 8, 8)
    assert shares == drawn[8:16]
    with pytest.raises(ValueError, match=r"weight 0\.0001"):
        Rows([Counted(0), Counted(1)], [1.0, 0.0001], seed=0, share=ALONE)


def opened(folder, tokenizer, *, rank=0, count=1, length=16, **options):
    (source,) = sources(str(folder))
    share = Processes(rank=rank, count=count, device=torch.device("cpu"))
    return Stream(source, Packer(tokenizer, length=length), seed=3, share=share, **options)


def taken(rows, count):
    return [rows.row(0)["token_ids"].tolist() for _ in range(count)]


def test_an_epoch_of_a_stream_is_every_row_once_in_a_mixed_order(llama, shards, monkeypatch):
    texts = [f"{shard}{number:02d} abc" * 4 for shard in range(2) for number in range(40)]
    packed = Packer(llama.tokenizer, length=16)(texts)["token_ids"]
    monkeypatch.setattr(stream, "BLOCK", len(packed))
    monkeypatch.setattr(stream, "TEXTS_AT_ONCE", 7)
    rows = opened(shards, llama.tokenizer)
    rows.begin(None)
    found = taken(rows, len(packed))
    assert sorted(found) == sorted(packed)
    assert found != packed
    # The next epoch goes on with what was left over of the last one.
    assert taken(rows, len(packed)) != found


@pytest.mark.parametrize("used", [0, 1, 9, 10, 11, 37])
def test_a_stream_goes_on_where_it_was(llama, shards, monkeypatch, used):
    monkeypatch.setattr(stream, "BLOCK", 10)
    monkeypatch.setattr(stream, "TEXTS_AT_ONCE", 3)
    whole = opened(shards, llama.tokenizer)
    whole.begin(None)
    taken(whole, used)
    state = json.loads(json.dumps(whole.state()))
    again = opened(shards, llama.tokenizer)
    again.begin(state)
    assert taken(again, 300) == taken(whole, 300)  # more than an epoch


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_stream_s_texts(llama, shards, monkeypatch, count):
    monkeypatch.setattr(stream, "BLOCK", 1)
    texts = [f"{shard}{number:02d} abc" * 4 for shard in range(2) for number in range(40)]
    length = len(llama.tokenizer(texts[0])["input_ids"]) + 1  # a row is a text and its end
    found = []
    for rank in range(count):
        rows = opened(shards, llama.tokenizer, rank=rank, count=count, length=length)
        rows.begin(None)
        found += taken(rows, 80 // count + (rank < 80 % count))
    assert sorted(found) == sorted(Packer(llama.tokenizer, length=length)(texts)["token_ids"])


def test_what_is_held_out_is_not_streamed(llama, shards, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", 1)
    texts = [f"{shard}{number:02d} abc" * 4 for shard in range(2) for number in range(40)]
    length = len(llama.tokenizer(texts[0])["input_ids"]) + 1
    rows = opened(shards, llama.tokenizer, length=length, hold_out=True)
    rows.begin(None)
    kept = [text for text in texts if not is_held_out(text)]
    assert 0 < len(kept) < 80
    expected = Packer(llama.tokenizer, length=length)(kept)["token_ids"]
    assert sorted(taken(rows, len(kept))) == sorted(expected)


def test_a_stream_without_a_row_is_refused(llama, tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", ["a", "b"])
    rows = opened(path, llama.tokenizer, length=500)
    with pytest.raises(TextError, match=r"has not one row of data\.length = 500 tokens"):
        rows.begin(None)
    rows = opened(path, llama.tokenizer, rank=2, count=3)
    with pytest.raises(TextError, match="for each of 3 processes"):
        rows.begin(None)


def mixture(corpus, shards):
    named = [{"path": str(corpus), "weight": 2}, {"path": str(shards), "weight": 1}]
    return f"data.train={json.dumps(named)}"


@pytest.mark.parametrize("live", ["true", "false"])
def test_a_mixture_trains_and_resumes_to_the_last_bit(recipe, corpus, shards, tmp_path, live):
    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    validated = [f"data.validation={corpus}"]  # a stream of one text has none to hold out
    chosen = recipe(
        mixture(corpus, shards), f"data.streaming={live}", "train.checkpoint_every=2", *validated
    )
    train(chosen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "parts", on_progress=crash)
    train(chosen, tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_markers_are_anchors_in_a_stream_too(recipe, corpus, llama_folder):
    chosen = recipe(
        "data.streaming=true",
        f"data.validation={corpus}",
        "objective.place=marker",
        "objective.markers=['xyz.']",
    )
    base = load_base(str(llama_folder))
    rows = load_rows(chosen, base, ALONE)
    rows.begin(None)
    [batch] = batches(rows, chosen, base, step=0, share=ALONE)
    for ids, places in zip(batch.token_ids, batch.anchors, strict=True):
        for place in set(places.tolist()):
            assert base.tokenizer.decode(ids[: place + 1]).replace(" ", "").endswith("xyz.")
    chosen = recipe(
        "data.streaming=true",
        f"data.validation={corpus}",
        "objective.place=marker",
        "objective.markers=['nowhere']",
    )
    with pytest.raises(TextError, match=r"one of its markers and room"):
        load_rows(chosen, base, ALONE).begin(None)


def test_fewer_rows_than_processes_are_refused(recipe, tmp_path, llama_folder):
    path = jsonl(tmp_path / "few.jsonl", ["abc " * 8, "held out"])
    chosen = recipe(f"data.train={path}", "data.length=16")
    base = load_base(str(llama_folder))
    with pytest.raises(TextError, match=r"rows of data\.length = 16 tokens to train on for 8 proc"):
        load_rows(chosen, base, Processes(count=8, device=base.device))
    with pytest.raises(ValueError, match="weight 1e-06"):
        recipe(f"data.train=[{{path: {path}, weight: 1e-6}}, {{path: stdlib}}]")
