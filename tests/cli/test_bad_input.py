"""Each bad input ends in one sentence and an exit code, and nothing is lost or half-written."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deliberate.core.cache_file import CacheFile, checksum
from deliberate.core.errors import CacheError

READERS = (["inspect"], ["inspect", "--verify"], ["augment"], ["generate"])


def header_size(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def forge(path: Path, *, seal: bool = True, **changes: str) -> None:
    """Write a cache file again with other metadata, its checksum made to fit."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **changes}
    if seal:
        stated = {key: value for key, value in metadata.items() if key != "checksum"}
        metadata["checksum"] = checksum(tensors.items(), stated)
    save_file(tensors, path, metadata=metadata)


def everything() -> dict[Path, bytes]:
    """All files under the working folder but the remembered hashes, hidden ones too."""
    files = (path for path in Path().rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != "hashes.json"}


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_missing_cache_file_is_refused(refused, command):
    assert "'absent.st'" in refused(*command, "absent.st")


def test_a_folder_is_no_cache_file(refused):
    Path("folder").mkdir()
    assert "'folder' is a folder: name one cache file in it" in refused("generate", "folder")


def test_a_file_is_no_coprocessor(refused, cache):
    told = "is a file and not a coprocessor's folder"
    assert told in refused("eval", cache)
    assert told in refused("augment", cache, "--coprocessor", cache)


@pytest.mark.parametrize("command", ["inspect", "eval"])
def test_an_unfinished_run_is_gone_on_with(refused, command):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/recipe.yaml").write_text("")
    told = refused(command, "run")
    assert "unfinished run: go on with `deliberate train --resume --output-dir run`" in told


@pytest.mark.parametrize("option", ["--file", "--jsonl"])
def test_a_missing_text_is_refused(refused, llama_folder, option):
    assert "'absent.txt'" in refused("prefill", option, "absent.txt", "--base", llama_folder)


@pytest.mark.parametrize("option", ["--file", "--jsonl"])
def test_a_folder_is_no_text(refused, llama_folder, option):
    assert "directory" in refused("prefill", option, llama_folder, "--base", llama_folder)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096, b"\xff" * 4096])
def test_what_is_not_a_cache_file_is_refused(refused, command, content):
    Path("other.st").write_bytes(content)
    assert "not a cache file" in refused(*command, "other.st")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_safetensors_file_of_something_else_is_refused(refused, command):
    save_file({"weight": torch.zeros(3)}, "other.st")
    assert "not a cache file" in refused(*command, "other.st")


def test_a_file_truncated_at_any_byte_is_refused_at_opening(refused, augmented):
    content = augmented.read_bytes()
    size = header_size(content)
    lengths = {
        *range(200),
        *range(200, len(content), 53),
        *range(size - 3, size + 4),
        len(content) - 1,
    }
    for length in sorted(lengths):
        augmented.write_bytes(content[:length])
        assert "not a cache file, or is damaged" in refused("inspect", augmented), length


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x10, 0x80, 0xFF], ids=hex)
def test_a_flipped_byte_anywhere_in_the_header_is_found(augmented, flip):
    content = augmented.read_bytes()
    for position in range(header_size(content)):
        assert is_found(augmented, content, position, flip), (position, content[position])


def is_found(path: Path, content: bytes, position: int, flip: int) -> bool:
    damaged = bytearray(content)
    damaged[position] ^= flip
    path.write_bytes(damaged)
    try:
        with CacheFile(path) as file:
            file.verify()
    except CacheError as error:
        return "\n" not in str(error)
    return False


def test_a_flipped_byte_in_the_header_is_one_sentence_to_the_user(run, refused, augmented):
    content = augmented.read_bytes()
    for position in [*range(16), *range(16, header_size(content), 13)]:
        is_found(augmented, content, position, 0x01)
        assert refused("inspect", "--verify", augmented), position
        assert run("inspect", augmented).code in {0, 1}, "found at opening or not, no traceback"


def test_a_flipped_byte_in_the_content_is_found_by_verify(run, refused, augmented):
    content = augmented.read_bytes()
    for position in range(header_size(content), len(content), 97):
        is_found(augmented, content, position, 0x01)
        assert run("inspect", augmented).code == 0, "opening reads no layer"
        assert "checksum" in refused("inspect", "--verify", augmented)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_another_version_is_refused(refused, cache, command):
    forge(cache, version="2")
    before = everything()
    assert "version '2'" in refused(*command, cache)
    assert everything() == before


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_forged_numbers_that_are_not_finite_are_found(run, refused, cache, number):
    tensors = load_file(cache)
    tensors["layers.1.values"][0, 0, 0] = number
    with safe_open(cache, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, cache, metadata=metadata)
    forge(cache)
    before = everything()
    assert run("inspect", cache).code == 0
    for command in (["inspect", "--verify"], ["augment"], ["generate"]):
        assert "layers.1.values holds NaN or infinity" in refused(*command, cache)
    assert everything() == before


@pytest.mark.parametrize("latents", [0, -1, 65, "3"])
def test_a_coprocessor_of_no_latents_is_refused(refused, cache, coprocessor_folder, latents):
    path = coprocessor_folder / "config.json"
    config = json.loads(path.read_text())
    config["coprocessor"]["latents"] = latents
    path.write_text(json.dumps(config))
    before = everything()
    told = refused("augment", cache, "--coprocessor", coprocessor_folder)
    assert str(path) in told
    assert everything() == before


def test_a_coprocessor_of_an_unknown_kind_is_refused(refused, cache, coprocessor_folder):
    path = coprocessor_folder / "config.json"
    path.write_text(path.read_text().replace('"full"', '"fuller"'))
    assert "'fuller'" in refused("augment", cache, "--coprocessor", coprocessor_folder)


def test_an_empty_text_is_refused(refused, llama_folder):
    Path("empty.txt").write_text("")
    before = everything()
    assert "empty" in refused("prefill", "--text", "", "--base", llama_folder)
    assert "empty" in refused("prefill", "--file", "empty.txt", "--base", llama_folder)
    assert everything() == before


@pytest.mark.parametrize("option", [("--field", "body"), ("--field", "text"), ("--skip-bad",)])
def test_a_single_text_has_no_rows(refused, option):
    told = refused("prefill", "--text", "a", *option, code=2)
    assert f"{option[0]} is for --jsonl and --data: leave it out" in told


def test_a_text_that_is_not_utf_8_is_refused(refused, llama_folder):
    Path("latin.txt").write_bytes(b"caf\xe9")
    assert "byte 3" in refused("prefill", "--file", "latin.txt", "--base", llama_folder)


def test_a_text_of_half_characters_is_refused(refused, cache, llama_folder):
    assert "character 1" in refused(
        "prefill", "--text", "a\udcff", "--base", llama_folder, "-o", "b"
    )
    assert "character 0" in refused("generate", cache, "--no-latents", "--prompt", "\udcff")


def test_a_text_longer_than_the_positions_is_refused(refused, llama_folder):
    before = everything()
    told = refused("prefill", "--text", "a" * 65, "--base", llama_folder)
    assert "65 tokens" in told
    assert "at most 64" in told
    assert everything() == before


@pytest.mark.parametrize("name", ["someone/absent", "not a name", ""])
def test_an_unknown_model_is_refused_without_a_network(refused, cache, name):
    assert repr(name) in refused("prefill", "--text", "a", "--base", name, "-o", "a.st")
    assert repr(name) in refused("augment", cache, "--coprocessor", name)
    assert repr(name) in refused("generate", "--prompt", "a", "--coprocessor", name)


@pytest.mark.parametrize("place", ["notes.txt/a.st", "/proc/a.st", "/proc/no/a.st"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(refused, place):
    Path("notes.txt").write_text("some notes")
    before = everything()
    folder = "notes.txt" if place.startswith("notes") else "/proc"
    assert repr(folder) in refused("prefill", "--text", "a", "--base", "absent", "-o", place)
    assert everything() == before


def test_a_folder_is_no_output_file(refused, cache):
    Path("folder").mkdir()
    assert "'folder' is a folder" in refused("augment", cache, "-o", "folder")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a few bytes: a write fails midway, as on a full disk.

    Only inside a test's body: pytest's own output may go to a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_half_written(refused, cache, coprocessor_folder, llama_folder):
    before = everything()
    with full_disk():
        told = refused("prefill", "--text", "b" * 40, "--base", llama_folder, "-o", "new.st")
        assert refused("augment", cache, "--coprocessor", coprocessor_folder)
    assert "'new.st'" in told
    assert everything() == before


def test_a_full_disk_leaves_what_was_to_be_replaced(refused, cache, llama_folder):
    before = everything()
    with full_disk():
        refused("prefill", "--text", "b" * 40, "--base", llama_folder, "-o", cache, "--force")
    assert everything() == before


@pytest.mark.parametrize("live", ["true", "false"])
def test_a_broken_file_of_rows_is_told_of_once(tmp_path, run, live):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\nnot json\n')
    made = ("--output-dir", tmp_path / "run")
    told = run("train", "--set", f"data.train={path}", "--set", f"data.streaming={live}", *made)
    assert told.code == 1
    assert "cannot read" in told.err
    assert told.err.count("JSON") == 1
    assert not (tmp_path / "run").exists()
