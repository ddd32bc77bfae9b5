"""Packed rows are kept for the next run, and only as long as nothing that decides them changes."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from deliberate.core import load_base, python_source
from deliberate.core.errors import TextError
from deliberate.train import data, kept_rows
from deliberate.train.data import load_rows
from deliberate.train.processes import Processes
from deliberate.train.rows import fingerprint_of_rows

ALONE = Processes(device=torch.device("cpu"))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A standard library of three modules, and two of packages."""
    paths = {name: tmp_path / name for name in ("stdlib", "purelib")}
    for number, path in enumerate(paths.values()):
        (path / "package").mkdir(parents=True)
        (path / "package" / "first.py").write_text(f"def first(abc):  # {number}\n" * 40)
        (path / "second.py").write_text(f"second = 'the end {number}.'\n" * 30)
    (paths["stdlib"] / "shutil.py").write_text("held = out\n" * 20)
    found = {**python_source.sysconfig.get_paths(), **{k: str(v) for k, v in paths.items()}}
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: found)
    return paths


@pytest.fixture
def packed(monkeypatch):
    """The lengths that were packed, each time that it is done."""
    done = []

    def counted(texts, tokenizer, *, length, wanted):
        done.append(length)
        return pack(texts, tokenizer, length=length, wanted=wanted)

    pack = data.pack
    monkeypatch.setattr(data, "pack", counted)
    return done


@pytest.fixture
def load(recipe):
    """All rows of `installed` in their order, of a recipe with changes, for a base."""
    chosen = recipe()
    base = load_base(chosen.base.id)

    def load(*changes, base=base):
        chosen = recipe("data.train=installed", *changes)
        rows = load_rows(chosen, base, ALONE)
        [part] = rows._parts
        columns = [row for row in (part.row(index) for index in range(len(part._rows)))]
        return rows.fingerprint, [{k: v.tolist() for k, v in row.items()} for row in columns]

    load.base = base
    return load


def kept_files(tmp_path):
    return sorted((tmp_path / "home" / "deliberate" / "rows").glob("*"))


@pytest.mark.parametrize("markers", [(), ("objective.markers=['abc', 'end']",)])
def test_kept_rows_are_those_that_were_packed(installed, packed, load, tmp_path, markers):
    place = ("objective.place=marker",) if markers else ()
    made, kept = load(*markers, *place), load(*markers, *place)
    assert packed == [32]
    assert kept == made
    assert len(made[1]) > 20
    assert all(("marks" in row) == bool(markers) for row in made[1])
    assert len(kept_files(tmp_path)) == 1
    # And the same as where nothing can be kept.
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("no folder")
    assert load(*markers, *place) == made
    assert packed == [32, 32]


def test_rows_of_large_vocabularies_are_kept_as_they_are(installed, tmp_path):
    rows = kept_rows.Dataset.from_dict({"token_ids": [[0, 70_000], [65_536, 3]]})
    for _ in range(2):
        given = kept_rows.kept_rows(lambda: "key", lambda: rows)
        assert given["token_ids"][:] == rows["token_ids"][:]
        assert fingerprint_of_rows(given) == fingerprint_of_rows(rows)
    assert len(kept_files(tmp_path)) == 1


def test_what_decides_the_rows_packs_them_anew(installed, packed, load):
    before = load()
    module = installed["purelib"] / "second.py"
    status = module.stat()
    module.write_text(module.read_text().replace("the end", "THE END"))
    os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = load()
    assert changed[0] != before[0]
    (installed["stdlib"] / "third.py").write_text("third = 3\n" * 30)
    assert len(load()[1]) > len(changed[1])
    load("data.length=30")
    assert packed == [32, 32, 32, 30]
    load("data.length=30", "train.seed=9", "objective.ahead=2", "data.field=body")
    assert packed == [32, 32, 32, 30, 30]  # the field is told apart, and nothing else of these
    load("data.length=30", "train.seed=9", "objective.ahead=2")
    assert packed == [32, 32, 32, 30, 30]


def test_another_tokenizer_packs_anew_and_a_batch_cut_by_one_does_not(installed, packed, load):
    before = load()
    # As of many a folder on the Hub, whose tokenizer.json cuts texts until it is called.
    load.base.tokenizer.backend_tokenizer.enable_truncation(3)
    assert load() == before
    assert packed == [32]
    other = load_base(load.base.id).tokenizer
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", 5)]
    )
    changed = load(base=replace(load.base, tokenizer=other))
    assert packed == [32, 32]
    assert len(changed[1]) > len(before[1])
    assert load() == before
    assert packed == [32, 32]


def test_a_damaged_file_is_as_good_as_none(installed, packed, load, tmp_path):
    before = load()
    [file] = kept_files(tmp_path)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    damaged = [b"", whole[:100], whole[:-1], whole + b"x", b"\xff" * len(whole)]
    for place in (*range(header), header, len(whole) // 2, len(whole) - 1):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in damaged:
        file.write_bytes(content)
        assert kept_rows._read(file) is None, content[:header]
    assert load() == before
    assert packed == [32, 32]
    assert load() == before  # the damaged file was written over
    assert packed == [32, 32]
    file.unlink()
    file.mkdir()
    assert load() == before


def test_a_file_that_changes_while_rows_are_made_keeps_none(installed, packed, load, tmp_path):
    keys = iter(["before", "after"])
    rows = kept_rows.Dataset.from_dict({"token_ids": [[1, 2]]})
    assert kept_rows.kept_rows(lambda: next(keys), lambda: rows) is rows
    assert not kept_files(tmp_path)


def test_what_was_not_used_for_longest_makes_room(installed, tmp_path, monkeypatch):
    def keep(key):
        rows = kept_rows.Dataset.from_dict({"token_ids": [[len(key)] * 1000]})
        kept_rows.kept_rows(lambda: key, lambda: rows)

    keep("a")
    size = kept_files(tmp_path)[0].stat().st_size
    monkeypatch.setattr(kept_rows, "MOST_BYTES", 2 * size)
    keep("b")
    for age, key in enumerate("ab", 1):
        file = kept_files(tmp_path)[0].with_name(f"{key}.st")
        os.utime(file, (10_000 * age, 10_000 * age))
    keep("a")  # used again
    left = file.with_name(".z.st.part")
    left.mkdir()
    os.utime(left, (1, 1))
    keep("c")
    assert [file.name for file in kept_files(tmp_path)] == ["a.st", "c.st"]
    monkeypatch.setattr(kept_rows, "MOST_BYTES", 100)
    keep("d")  # larger than all that may be kept: nothing has to go for it
    assert [file.name for file in kept_files(tmp_path)] == ["a.st", "c.st"]


def test_what_only_the_hub_has_is_refused_of_kept_rows_too(installed, load):
    load()
    with pytest.raises(TextError, match="has no split"):
        load("data.train=[{path: installed, split: train}]", "data.validation=installed")


def test_rows_that_are_kept_by_several_at_once_are_one_whole_file(tmp_path):
    rows = kept_rows.Dataset.from_dict({"token_ids": [[number] * 1000 for number in range(300)]})
    together = Barrier(4)

    def made():
        together.wait()  # all have found nothing, and write at the same time
        return rows

    with ThreadPoolExecutor(4) as several:
        given = [several.submit(kept_rows.kept_rows, lambda: "key", made) for _ in range(4)]
    assert all(each.result() is rows for each in given)
    [file] = kept_files(tmp_path)
    assert fingerprint_of_rows(kept_rows._read(file)) == fingerprint_of_rows(rows)


def test_all_code_that_makes_rows_decides_them(load, packed, installed, monkeypatch, tmp_path):
    """What they import of their neighbours is hashed with them, or makes no rows."""
    makes_none = {"errors", "reach", "source_files"}  # sentences, the Hub, files that are named
    hashed = {module.__name__.rpartition(".")[2] for module in kept_rows._MADE_BY}
    for module in kept_rows._MADE_BY:
        near = re.findall(r"from deliberate\.core\.(\w+) import", Path(module.__file__).read_text())
        assert set(near) <= hashed | makes_none, module.__name__
    load()
    changed = tmp_path / "tokens.py"
    changed.write_text("# another way to cut texts\n")
    monkeypatch.setattr(kept_rows.tokens, "__file__", str(changed))
    load()
    assert len(packed) == 2
