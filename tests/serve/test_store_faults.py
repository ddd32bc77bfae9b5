"""Whatever happens to a store's files, nothing wrong is served and nothing half-written stays."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from deliberate.core import save
from deliberate.serve import store as store_module
from deliberate.serve.store_errors import (
    NoSuchCacheError,
    StoreError,
    StoreFullError,
    StoreInUseError,
)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    """Change one number, and neither size nor header."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def scribble(path):
    path.write_bytes(b"not a cache file at all")


DAMAGE = [cut, flip, empty, scribble]


@pytest.mark.parametrize("memory", [0, 10**9])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_damaged_under_the_server_is_set_aside_and_reported_and_not_served(
    open_store, read, same, damage, memory
):
    store = open_store(memory=memory)
    shorter, cache_id = store.put(read(0, 5)), store.put(read(0, 5, 6))
    store.get(cache_id)
    damage(store.path(cache_id))
    with pytest.raises(NoSuchCacheError, match="keep its text again"):
        store.get(cache_id)
    [report] = store.reports
    assert report.aside == store.folder / "set-aside" / f"{cache_id}.st"
    assert report.aside.exists()
    assert [path.stem for path in store.folder.glob("*.st")] == [shorter]
    # The next longest serves, and the text can be kept again.
    assert store.find([0, 5, 6])[0] == shorter
    assert store.put(read(0, 5, 6)) == cache_id
    assert same(store.get(cache_id), read(0, 5, 6))
    assert store.usage.unfit == 1  # set aside
    report.aside.unlink()
    assert store.usage.unfit == 0


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_damaged_between_two_runs_is_found_out(open_store, read, damage):
    store = open_store()
    cache_id = store.put(read(0, 5))
    path = store.path(cache_id)
    store.close()
    damage(path)
    store = open_store()
    assert store.find([0, 5]) is None
    assert [report.aside.name for report in store.reports] == [path.name]
    assert not store.entries()
    # Damaged once more, it does not replace what was set aside before.
    store.put(read(0, 5))
    damage(path)
    assert store.find([0, 5]) is None
    assert len(list((store.folder / "set-aside").iterdir())) == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_that_the_store_did_not_write_is_reported_once_and_left(
    open_store, folder, read, damage, same
):
    folder.mkdir()
    path = folder / "page.st"
    save(read(0, 5), path)
    damage(path)
    content = path.read_bytes()
    store = open_store()
    assert store.find([0, 5]) is None
    assert [(report.path, report.aside) for report in store.reports] == [(path, None)]
    store.refresh()
    assert store.usage.unfit == 1
    assert path.read_bytes() == content
    # It was half-way through being copied: now it is whole.
    save(read(0, 5), path)
    store.refresh()
    assert same(store.find([0, 5])[1], read(0, 5))
    assert store.usage.unfit == 0
    damage(path)
    store.refresh()
    assert store.find([0, 5]) is None
    assert store.usage.unfit == 1
    path.unlink()
    store.refresh()
    assert store.usage.unfit == 0


def test_files_of_other_bases_and_dtypes_are_reported_and_left(open_store, folder, read, llama):
    import dataclasses

    folder.mkdir()
    cache = read(0, 5)
    other = dataclasses.replace(cache.origin, base="b", base_fingerprint="another")
    save(dataclasses.replace(cache, origin=other), folder / "other.st")
    save(
        dataclasses.replace(
            cache,
            keys=[layer.bfloat16() for layer in cache.keys],
            values=[layer.bfloat16() for layer in cache.values],
        ),
        folder / "half.st",
    )
    (folder / "folder.st").mkdir()
    (folder / "link.st").symlink_to(folder / "nowhere")
    store = open_store()
    assert not store.entries()
    reasons = "\n".join(sorted(report.reason for report in store.reports))
    assert "base 'b' (another), which is not served" in reasons
    assert "holds bfloat16, and float32 is served" in reasons
    assert "is a folder" in reasons
    assert len(store.reports) == 3
    assert {path.name for path in folder.glob("*.st")} >= {"other.st", "half.st", "folder.st"}


def test_what_the_store_wrote_for_another_dtype_counts_and_goes_first(open_store, read):
    import dataclasses

    store = open_store(dtype=torch.bfloat16)
    cache = read(0, 5)
    half = dataclasses.replace(
        cache,
        keys=[layer.bfloat16() for layer in cache.keys],
        values=[layer.bfloat16() for layer in cache.values],
    )
    other = store.path(store.put(half))
    store.close()
    store = open_store()
    assert other.exists()
    assert store.usage.disk_bytes == other.stat().st_size
    cache_id = store.put(cache)
    size = store.entry(cache_id).bytes
    store.close()
    store = open_store(disk=size)
    assert [entry.id for entry in store.entries()] == [cache_id]
    assert not other.exists()


@pytest.mark.parametrize("memory", [0, 10**9])
def test_a_file_deleted_under_the_server_is_noticed(open_store, read, memory):
    store = open_store(memory=memory)
    first, second = store.put(read(0, 5)), store.put(read(0, 6))
    store.path(first).unlink()
    with pytest.raises(NoSuchCacheError):
        store.get(first)
    store.path(second).unlink()
    store.refresh()
    assert not store.entries()
    assert ["deleted" in report.reason for report in store.reports] == [True, True]
    assert store.usage.unfit == 0
    assert store.usage.disk_bytes == 0


def test_putting_a_text_whose_file_was_deleted_writes_it_again(open_store, read, same):
    store = open_store()
    cache_id = store.put(read(0, 5))
    store.path(cache_id).unlink()
    assert store.put(read(0, 5)) == cache_id
    assert same(store.get(cache_id), read(0, 5))


def test_a_file_replaced_under_the_server_serves_as_what_it_is_now(open_store, read, think, same):
    store = open_store()
    plain = read(0, 5)
    cache_id = store.put(plain)
    path = store.path(cache_id)
    save(think(plain), path)  # by `deliberate augment`, say
    assert same(store.get(cache_id), think(plain))
    assert store.entry(cache_id).state == "augmented"
    # Another text under that name: the one is gone, the other is there.
    save(read(0, 6, 7), path)
    with pytest.raises(NoSuchCacheError):
        store.get(cache_id)
    found, cache = store.find([0, 6, 7, 8])
    assert found != cache_id
    assert same(cache, read(0, 6, 7))
    assert not store.entry(found).own


def test_files_that_come_while_the_server_runs_are_taken_up(open_store, read, same):
    store = open_store()
    save(read(0, 5), store.folder / "later.st")
    assert store.find([0, 5]) is None
    store.refresh()
    assert same(store.find([0, 5])[1], read(0, 5))


def test_a_folder_is_looked_through_without_holding_anyone_up_and_nothing_new_is_lost(
    open_store, read, monkeypatch
):
    store, ids = open_store(), []
    listed = store._shelf.listed

    def meanwhile():
        there = listed()
        with ThreadPoolExecutor(1) as pool:
            ids.append(pool.submit(store.put, read(0, 5)).result(60))
        return there

    monkeypatch.setattr(store._shelf, "listed", meanwhile)
    store.refresh()
    assert ids[0] in store
    assert not store.reports
    assert store.usage.disk_bytes == store.entry(ids[0]).bytes


def write_until(monkeypatch, limit):
    """Let the disk be full once a file has grown beyond so many bytes."""
    from deliberate.core import cache_file

    original = cache_file.save_file

    def save_file(tensors, path, metadata):
        original(tensors, path, metadata=metadata)
        if path.stat().st_size > limit:
            os.truncate(path, limit)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_file, "save_file", save_file)


def test_a_full_disk_keeps_nothing_half_written_and_all_that_was_there(
    open_store, read, think, same, monkeypatch
):
    store = open_store()
    plain = read(0, 5)
    cache_id = store.put(plain)
    write_until(monkeypatch, 100)
    with pytest.raises(StoreFullError, match="No space left on device"):
        store.put(read(0, 6))
    with pytest.raises(StoreFullError):
        store.replace(cache_id, think(plain))
    left = {path.stem for path in store.folder.glob("**/*") if path.is_file()}
    assert left == {".lock", cache_id}
    assert store.match([0, 6]) is None
    assert same(store.get(cache_id), plain)
    monkeypatch.undo()
    assert same(store.get(store.put(read(0, 6))), read(0, 6))


def test_a_disk_that_is_really_full(open_store, read, same, disk):
    small = disk(64 << 10)
    store = open_store(small.path)
    kept = []

    def fill():
        for token in range(5, 60):
            kept.append(store.put(read(0, token)))

    with pytest.raises(StoreFullError, match="free some space"):
        fill()
    assert kept
    assert {path.stem for path in small.path.glob("*.st")} == set(kept)
    assert not list((small.path / ".work").iterdir())
    assert all(same(store.get(each), read(0, 5 + at)) for at, each in enumerate(kept))
    store.delete(kept[0])
    store.put(read(0, 63))
    store.close()


def test_what_a_killed_process_left_half_written_is_cleared_away(open_store, folder, read):
    store = open_store()
    cache_id = store.put(read(0, 5))
    (folder / ".work" / "half.st").write_bytes(b"x")
    store.close()
    store = open_store()
    assert not list((folder / ".work").iterdir())
    assert [entry.id for entry in store.entries()] == [cache_id]


def test_a_second_server_on_a_store_is_refused_by_name_and_a_dead_one_is_no_hindrance(
    open_store, folder, read
):
    folder.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time\n"
            "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "os.write(file, str(os.getpid()).encode())\n"
            "print(flush=True)\n"
            "time.sleep(60)\n",
            str(folder / ".lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline()
    with pytest.raises(StoreInUseError, match=f"in use by process {holder.pid}: stop"):
        open_store()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    store = open_store()
    with pytest.raises(StoreInUseError, match=f"in use by process {os.getpid()}"):
        open_store()
    store.put(read(0, 5))
    store.close()
    assert open_store().entries()


def test_a_folder_that_cannot_be_made_is_refused(open_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another folder"):
        open_store(tmp_path / "file" / "store")


def test_a_failed_opening_lets_go_of_the_folder(open_store, monkeypatch):
    def fail(self):
        raise OSError("no")

    monkeypatch.setattr(store_module.Store, "refresh", fail)
    with pytest.raises(OSError, match="no"):
        open_store()
    monkeypatch.undo()
    open_store()
