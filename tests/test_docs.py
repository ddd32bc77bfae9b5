"""What the documents point to exists, and the Python that they show does what they say."""

import importlib
import re
import types
from pathlib import Path

import numpy as np
import pytest

from deliberate.core import augment, prefill, save, tokenize
from deliberate.eval.results import Results

DOCS = Path(__file__).parent.parent / "docs"
NAMES = sorted(set(re.findall(r"`(deliberate\.[\w.]+)`", (DOCS / "paper.md").read_text())))


def find(name: str) -> object:
    """What a dotted name means: modules first, then attributes."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_the_paper_s_page_points_to_enough():
    assert len(NAMES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_each_name_on_the_paper_s_page_exists(name):
    assert not isinstance(find(name), types.ModuleType)


def test_a_name_that_does_not_exist_is_found_out():
    for wrong in ("deliberate.core.cache.Nothing", "deliberate.core.nothing.Cache"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            find(wrong)


def shown_in(page: str) -> str:
    """The one piece of Python on a page."""
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def read_cache():
    """The reader shown in `cache-format.md`, run as it stands."""
    code = shown_in("cache-format.md")
    assert "safetensors" not in code
    assert "deliberate." not in code.replace("deliberate.cache", "")
    names: dict = {}
    exec(compile(code, "cache-format.md", "exec"), names)
    return names["read_cache"]


@pytest.fixture(params=["plain", "augmented", "bfloat16"])
def cache(request, llama, make):
    """A tiny cache, of each form that a file can have."""
    found = prefill(llama, [tokenize(llama, "some words")])[0]
    if request.param == "augmented":
        found = augment(llama, make(llama, "warm"), [found], name="café")[0]
    if request.param == "bfloat16":
        found = type(found)(
            keys=[layer.bfloat16() for layer in found.keys],
            values=[layer.bfloat16() for layer in found.values],
            token_ids=found.token_ids,
            position_ids=found.position_ids,
            last_hidden=found.last_hidden.bfloat16(),
        )
    return found


def test_the_reader_on_the_format_s_page_reads_a_cache_file(read_cache, cache, tmp_path):
    path = tmp_path / "text.st"
    save(cache, path)
    metadata, tensors = read_cache(path)
    expected = {
        "token_ids": cache.token_ids,
        "position_ids": cache.position_ids,
        "last_hidden": cache.last_hidden,
    }
    for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
        expected |= {f"layers.{layer}.keys": keys, f"layers.{layer}.values": values}
    if cache.latents is not None:
        expected["latents"] = cache.latents
        expected["latents_last_hidden"] = cache.latents_last_hidden
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        number = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        np.testing.assert_array_equal(tensors[name], number, err_msg=name)
    assert metadata["base"] == cache.origin.base
    assert metadata["coprocessor"] == cache.origin.coprocessor


def test_the_reader_on_the_format_s_page_notices_one_flipped_bit(read_cache, cache, tmp_path):
    path = tmp_path / "text.st"
    save(cache, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        read_cache(path)


def test_the_python_on_the_report_s_page_writes_a_report_and_goes_on_with_it(tmp_path, monkeypatch):
    code = compile(shown_in("report.md"), "report.md", "exec")
    exec(code, {"folder": tmp_path})
    assert {"report.html", "results.json", "change.png"} <= {
        path.name for path in tmp_path.iterdir()
    }

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    new = Results.new
    monkeypatch.setattr(Results, "new", lambda *args: Results.read(tmp_path, like=new(*args)))
    monkeypatch.setattr("deliberate.eval.evaluate_together", refuse)
    exec(code, {"folder": tmp_path})
