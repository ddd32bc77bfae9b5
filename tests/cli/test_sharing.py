"""Several workers on one folder: nothing twice, nothing lost, and the same files."""

import errno
import json
import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from deliberate.cli.claims import NAME, Claims
from deliberate.cli.sharing import Share, Work, share_of
from deliberate.core import CacheFile, cache_file

COMMAND = """
import sys, time
from deliberate.cli.main import main
from deliberate.core import cache_file
limit, save, done = int(sys.argv.pop(1)), cache_file.save, []

def hanging(cache, path):
    if len(done) == limit:
        print("hanging", flush=True)
        time.sleep(600)
    done.append(save(cache, path))

cache_file.save = hanging
sys.exit(main(sys.argv[1:]))
"""


HOLDER = """
import sys
from pathlib import Path
from deliberate.cli.claims import Claims
with Claims(Path("many-caches"), b"other work") as claims:
    assert claims.take(0) == "mine"
    claims.finish(0)
    print("holding", flush=True)
    sys.stdin.read()
"""


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def worker(*arguments: object, hangs_after: int = -1, **environment: str) -> subprocess.Popen:
    """A worker in a process of its own, which hangs once it has written that many files."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(hangs_after), *map(str, arguments)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def contents(folder: str) -> dict[str, dict[str, str]]:
    """Each file's header, whose checksum is over every bit; the header's order is not fixed."""
    found = {}
    for path in Path(folder).iterdir():
        with CacheFile(path) as file:
            file.verify()
            found[path.name] = file.metadata
    return found


@pytest.fixture
def many(offline) -> Path:
    path = Path("many.jsonl").absolute()
    texts = ["ab" * (1 + number * 7 % 19) for number in range(21)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def command(many, llama_folder) -> list[object]:
    return ["prefill", "--jsonl", many, "--base", llama_folder, "--batch", 2, "--json"]


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_made_twice(run, command):
    run(*command, "-o", "alone")
    killed = worker(*command, "-o", "shared", hangs_after=5)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "hanging\n"
    before = {path: path.stat().st_mtime_ns for path in Path("shared").glob("*.st")}
    assert len(before) == 5
    other = worker(*command, "-o", "shared")
    while len(list(Path("shared").glob("*.st"))) < 20:  # all but what the first one holds
        assert other.poll() is None
        time.sleep(0.05)
    kill(killed)
    result = ended(other)
    assert (result["written"], result["skipped"], result["others"]) == (16, 1, 4)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents("shared") == contents("alone")


def test_a_batch_that_was_left_half_done_is_computed_as_a_whole(
    run, caches, coprocessor_folder, monkeypatch
):
    command = ["augment", caches, "--coprocessor", coprocessor_folder, "--batch", 3, "--json"]
    run(*command, "-o", "alone")
    save, done = cache_file.save, []

    def failing(*arguments: object) -> None:
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(save(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "save", failing)
        assert run(*command, "-o", "again").code == 1
    assert json.loads(run(*command, "-o", "again").out)["written"] == 3
    assert contents("again") == contents("alone")


def test_shares_are_all_of_it_and_the_same_files(run, command):
    run(*command, "-o", "alone")
    written = []
    for share in ("1/3", "3/3", "2/3"):
        result = json.loads(run(*command, "-o", "shared", "--shard", share).out)
        assert result["written"] + result["others"] == 21
        written.append(result["written"])
    assert written == [8, 6, 7]
    assert contents("shared") == contents("alone")


def test_a_share_is_what_torchrun_says(run, command, monkeypatch):
    run(*command, "-o", "said", "--shard", "3/4")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    run(*command, "-o", "set")
    assert contents("set") == contents("said")


@pytest.mark.parametrize(
    "shard", ["0/16", "17/16", "3", "a/b", "3/0", "-1/4", "1/2/3", "", "1.5/2"]
)
def test_a_share_that_there_is_not_is_refused(refused, command, shard):
    assert repr(shard) in refused(*command, "--shard", shard, code=2)
    assert not Path("many-caches").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "2"},
        {"WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
    ],
)
def test_nonsense_in_the_environment_is_refused(refused, command, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = refused(*command, code=2)
    assert all(repr(value) in told for value in environment.values())


def test_a_share_of_a_single_text_or_file_is_refused(refused, cache, coprocessor_folder):
    assert "--shard" in refused("prefill", "--text", "a", "--shard", "1/2", code=2)
    told = refused("augment", cache, "--coprocessor", coprocessor_folder, "--shard", "1/2", code=2)
    assert "--shard" in told


def test_the_share_asked_for_goes_before_the_environment():
    environment = {"RANK": "0", "WORLD_SIZE": "2"}
    assert share_of("3/4", environment) == Share(index=2, count=4)
    assert share_of(None, environment) == Share(index=0, count=2)
    assert share_of(None, {}) is None


@pytest.mark.parametrize("count", [0, 1, 7, 130, 400])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_item_is_in_one_share_and_counted_there(tmp_path, count, workers):
    def work() -> Work[int]:
        return Work(
            items=lambda: range(count),
            count=count,
            length=lambda item: item * 37 % 11,
            size=2,
            identity=b"",
        )

    shares = [Share(index=index, count=workers) for index in range(workers)]
    found = [
        [item for batch in work().batches_of(share, tmp_path) for item in batch] for share in shares
    ]
    assert sorted(chain.from_iterable(found)) == list(range(count))
    assert [len(items) for items in found] == [work().num_items(share) for share in shares]
    alone = [item for batch in work().batches_of(None, tmp_path) for item in batch]
    assert sorted(alone) == list(range(count))
    assert not list(tmp_path.iterdir())


def test_texts_are_not_kept(tmp_path):
    given = []

    def items():
        for number in range(100_000):
            given.append(number)
            yield number

    work = Work(items=items, count=100_000, length=lambda _: 1, size=8, identity=b"")
    next(work.batches_of(None, tmp_path))
    assert len(given) == 64 * 8


def test_workers_with_other_work_are_refused_until_the_first_have_left(refused, run, command):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        assert "--batch" in refused(*command)
        assert not list(Path("many-caches").glob("*.st"))
    finally:
        kill(holder)
    assert Path("many-caches", NAME).exists(), "the dead leave it, and it says nothing"
    assert json.loads(run(*command).out)["written"] == 21
    assert not Path("many-caches", NAME).exists()


def test_what_the_dead_called_done_is_looked_at_again(run, refused, command, many):
    run(*command)
    Path("many-caches", NAME).write_bytes(b"\x01" * 99)
    many.write_text(many.read_text().replace("ab", "ba"))
    assert "--force" in refused(*command)


def test_where_there_are_no_locks_each_worker_is_told_its_share(refused, run, command, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", fail)
    assert "--shard" in refused(*command)
    assert json.loads(run(*command, "--shard", "1/1").out)["written"] == 21


def test_a_link_in_place_of_the_claims_is_refused_and_leads_to_no_harm(tmp_path):
    mine, folder = tmp_path / "mine", tmp_path / "folder"
    mine.write_text("mine")
    folder.mkdir()
    (folder / NAME).symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        Claims(folder, b"one")
    assert mine.read_text() == "mine"


def test_claims_of_one_folder_are_made_anew_by_who_is_alone(tmp_path):
    with Claims(tmp_path, b"one") as claims:
        assert claims.take(3) == "mine"
        claims.finish(3)
        assert claims.take(3) == "done"
    with Claims(tmp_path, b"other") as claims:
        assert claims.take(3) == "mine"


def test_a_folder_of_texts_becomes_caches_by_place(run, llama_folder):
    Path("texts").mkdir()
    for name, text in {"a.txt": "one", "b.txt": " ", "c.txt": "three"}.items():
        Path("texts", name).write_text(text)
    outcome = run("prefill", "--data", "texts", "--base", llama_folder)
    assert outcome.out == "texts-caches\n"
    assert sorted(contents("texts-caches")) == ["000001.st", "000003.st"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_rows_of_a_source_are_those_of_a_jsonl(run, llama_folder, many, kind):
    texts = [json.loads(line)["text"] for line in many.read_text().splitlines()]
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"body": texts}), "rows.parquet")
    else:
        Path("rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    outcome = run("prefill", "--data", f"rows.{kind}", "--field", "body", "--base", llama_folder)
    assert outcome.out == "rows-caches\n"
    run("prefill", "--jsonl", many, "--base", llama_folder)
    assert contents("rows-caches") == contents("many-caches")


def test_a_source_without_the_field_or_without_texts_is_refused(refused, llama_folder):
    Path("rows.jsonl").write_text('{"body": ""}\n')
    assert "'text'" in refused("prefill", "--data", "rows.jsonl", "--base", llama_folder)
    asked = ["prefill", "--data", "rows.jsonl", "--field", "body", "--base", llama_folder]
    assert "no rows" in refused(*asked)
    assert "'nowhere'" in refused("prefill", "--data", "nowhere", "--base", llama_folder)
