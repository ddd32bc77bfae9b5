"""A folder has one process at a time, and a dead one is no hindrance."""

import os
import signal
import subprocess
import sys
import time

import pytest

from deliberate.core.folder_lock import NAME, FolderInUseError, FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from deliberate.core.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print(flush=True)
time.sleep(600)
"""


def test_the_second_process_is_refused_by_the_first_one_s_number(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "\n"
    for when in (time.time(), 0, 4 * 10**9):  # nobody is taken for dead by a clock
        os.utime(tmp_path / NAME, (when, when))
        with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid}: wait"):
            FolderLock(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / NAME).exists(), "what a killed process leaves"
    with FolderLock(tmp_path):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"


def test_a_lock_leaves_no_trace_and_is_held_by_one(tmp_path):
    lock = FolderLock(tmp_path / "new")
    with pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path / "new")
    lock.release()
    assert not list(tmp_path.iterdir())
    with FolderLock(tmp_path / "new"):
        (tmp_path / "new/result").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run'"):
        FolderLock(tmp_path / "file/run")


def test_the_lock_of_another_process_stays_where_the_folder_was_emptied(tmp_path):
    first = FolderLock(tmp_path)
    (tmp_path / NAME).unlink()
    with FolderLock(tmp_path) as second:
        first.release()
        with pytest.raises(FolderInUseError):
            FolderLock(tmp_path)
        second.release()
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_the_lock_is_refused_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "mine").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"/run/\.lock'"):
        FolderLock(folder)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_folder_that_goes_with_its_holder_is_made_again(tmp_path, monkeypatch):
    folder, opened = tmp_path / "run", os.open

    def late(path, *how):
        monkeypatch.undo()
        folder.rmdir()
        return opened(path, *how)

    monkeypatch.setattr(os, "open", late)
    with FolderLock(folder):
        assert (folder / NAME).exists()
