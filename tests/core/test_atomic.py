"""What is under a final name is whole, whoever is killed and however full the disk is."""

import errno
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from deliberate.core.atomic import is_partial, replacing, write_bytes

HOLDER = """
import sys, time
from pathlib import Path
from deliberate.core.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path):
    path = tmp_path / "file"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "\n"
    [left] = os.listdir(tmp_path)  # noqa: PTH208
    assert is_partial(left)
    write_bytes(path, b"by another, meanwhile")
    assert sorted(os.listdir(tmp_path)) == [left, "file"]  # noqa: PTH208
    holder.kill()
    holder.communicate()
    write_bytes(path, b"whole")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_is_told_of_by_the_file_s_own_name(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fill():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def test_a_disk_that_is_really_full(disk):
    small = disk(64 << 10)
    path = small.path / "file"
    write_bytes(path, b"before")
    with pytest.raises(OSError, match=r"No space left on device: .*/file'"):
        write_bytes(path, bytes(1 << 20))
    assert [each.name for each in small.path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"
    write_bytes(path, b"after")


def test_a_missing_folder_is_told_of_by_the_file_s_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_bytes(tmp_path / "absent/file", b"")
    assert caught.value.filename == str(tmp_path / "absent/file")
