"""A cache file that somebody damaged or forged is refused in one sentence, or read as it was."""

import json
import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutate

from deliberate.core.cache_file import CacheFile
from deliberate.core.errors import CacheError
from deliberate.core.safetensors_header import MOST_BYTES

DEEP = "[" * 100_000 + "]" * 100_000


def said(path):
    with pytest.raises(CacheError) as caught, CacheFile(path) as file:
        file.verify()
    assert "\n" not in str(caught.value)
    with pytest.raises(CacheError), CacheFile(path, content=path.read_bytes()) as file:
        file.verify()  # the same of bytes that were read already, as a server does
    return str(caught.value)


def test_mutations_are_refused_or_change_nothing(cache_path, read_cache):
    content = cache_path.read_bytes()
    [_, metadata, tensors] = read_cache(cache_path)

    @given(st.integers(0, 2**32))
    def refused_or_the_same(seed):
        cache_path.write_bytes(mutate(random.Random(seed), content))
        word, again, parts = read_cache(cache_path)
        if word == "read":
            assert again == metadata
            assert parts.keys() == tensors.keys()
            assert all(parts[name].equal(tensors[name]) for name in parts)
        else:
            assert "\n" not in again["said"]
            assert len(again["said"]) < 2000

    refused_or_the_same()


@given(st.binary(max_size=200))
def test_any_bytes_are_no_cache_file(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.st"
    path.write_bytes(content)
    assert "is not a cache file, or is damaged" in said(path)


@pytest.mark.parametrize(
    ("length", "told"),
    [(2**64 - 1, "header would have"), (MOST_BYTES + 1, "may have"), (0, "cannot be read")],
)
def test_a_length_that_lies_is_refused_before_it_is_believed(cache_path, forged, length, told):
    file = forged(cache_path)
    file.length = length
    tracemalloc.start()
    try:
        assert told in said(file.write())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_shapes_that_no_memory_would_hold_are_refused(cache_path, forged):
    for shape in ([2**62], [2**63], [2**32, 2**32], [2**31] * 16, [1] * 17, [-6], [6.0], [True]):
        file = forged(cache_path)
        file.header["token_ids"]["shape"] = shape
        assert "token_ids" in said(file.write()), shape


def test_tensors_that_overlap_or_leave_a_gap_are_refused(cache_path, forged):
    file = forged(cache_path)
    one, other = file.header["layers.0.keys"], file.header["layers.0.values"]
    other["data_offsets"] = one["data_offsets"]
    assert "overlaps another" in said(file.write())
    file = forged(cache_path)
    file.header["layers.0.keys"]["data_offsets"] = [
        each + 8 for each in file.header["layers.0.keys"]["data_offsets"]
    ]
    assert "layers.0" in said(file.write())
    file = forged(cache_path)
    file.after = b"\0"
    assert "follow its header" in said(file.write())


def test_a_tensor_named_twice_is_refused_whichever_a_reader_would_take(cache_path, forged):
    file = forged(cache_path)
    text, keys = json.dumps(file.header), json.dumps(file.header["layers.0.values"])
    file.text = '{"layers.0.keys": ' + keys + ", " + text[1:]
    assert "'layers.0.keys' twice" in said(file.write())
    metadata = json.dumps(file.header["__metadata__"])
    file.text = '{"__metadata__": ' + metadata + ", " + text[1:]
    assert "'__metadata__' twice" in said(file.write())


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("[]", "metadata are not strings"),
        ("null", "metadata are not strings"),
        ('{"format": 1}', "metadata are not strings"),
        ('{"format": ["deliberate.cache"]}', "metadata are not strings"),
        ('{"format": NaN}', "NaN"),
        ('{"format": 1e999}', "1e999"),
        ('{"format": "\\ud800"}', "half a character"),
        ("{" + '"a": {' * 70 + "}" * 71, "nested"),
        (DEEP, "nested"),
    ],
)
def test_metadata_that_are_no_strings_are_refused(cache_path, forged, metadata, told):
    file = forged(cache_path)
    del file.header["__metadata__"]
    file.text = '{"__metadata__": ' + metadata + ", " + json.dumps(file.header)[1:]
    assert told in said(file.write())


@pytest.mark.parametrize("dtype", ["I64", "I32", "BOOL", "U8", "F8_E4M3", "F4", "f32", None, 4])
def test_keys_that_are_no_floats_are_refused(cache_path, forged, dtype):
    file = forged(cache_path)
    about = file.header["layers.1.keys"]
    width = {"I64": 8, "BOOL": 1, "U8": 1, "F8_E4M3": 1}.get(dtype, 4)
    about["dtype"], about["shape"][2] = dtype, about["shape"][2] * 4 // width
    assert "layers.1.keys" in said(file.write())


def test_a_dtype_is_what_the_metadata_say(cache_path, forged):
    file = forged(cache_path)
    file.header["__metadata__"]["dtype"] = "bfloat16"
    assert "says that it holds 'bfloat16' and holds float32" in said(file.write())


def test_heads_and_layers_must_agree(cache_path, forged):
    file = forged(cache_path)
    about = file.header["layers.1.values"]
    about["shape"] = [about["shape"][0] // 2, about["shape"][1], about["shape"][2] * 2]
    assert "layers.1.values" in said(file.write())
    file = forged(cache_path)
    file.header["layers.2.keys"] = file.header.pop("layers.1.keys")
    assert "layers.1.keys" in said(file.write())
    file = forged(cache_path)
    file.header["layers.01.keys"] = file.header.pop("layers.1.keys")
    assert "layers.01.keys" in said(file.write())


def test_a_message_names_few_of_many_odd_tensors(cache_path, forged):
    file = forged(cache_path)
    file.header |= {
        f"{number}" * 300: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for number in range(500)
    }
    assert len(said(file.write())) < 1000


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.st")
    (tmp_path / "loop.st").symlink_to("loop.st")
    (tmp_path / "zero.st").symlink_to("/dev/zero")
    (tmp_path / "folder.st").mkdir()
    for name, told in (
        ("pipe.st", "not a regular file"),
        ("zero.st", "not a regular file"),
        ("folder.st", "is a folder"),
    ):
        with pytest.raises(CacheError, match=told):
            CacheFile(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no cache file at"):
        CacheFile(tmp_path / "loop.st")


def test_a_flip_among_the_numbers_is_found_by_verify_and_by_nothing_before(cache_path):
    content = bytearray(cache_path.read_bytes())
    content[-1] ^= 1
    cache_path.write_bytes(content)
    with CacheFile(cache_path) as file:
        file.cache()
        with pytest.raises(CacheError, match="checksum"):
            file.verify()


def test_a_header_of_the_largest_size_takes_no_more_memory_than_is_stated(tmp_path):
    text = b'{"a": [' + b"[]," * ((MOST_BYTES - 20) // 3) + b"[]]}"
    path = tmp_path / "wide.st"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    tracemalloc.start()
    try:
        with pytest.raises(CacheError):
            CacheFile(path)
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()
