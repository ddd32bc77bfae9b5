import json
from pathlib import Path

import pytest
import torch

from deliberate.core import CacheFile, cache_file, load_base, load_coprocessor, save_coprocessor
from deliberate.core import augment as ask


def stored(path: Path):
    with CacheFile(path) as file:
        file.verify()
        return file.cache()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def other_coprocessor(llama_folder, make, tmp_path) -> Path:
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "paper", latents=5), tmp_path / "other-coprocessor", base=base)
    return tmp_path / "other-coprocessor"


def test_a_file_gets_the_latents_of_its_text(run, cache, coprocessor_folder, llama_folder):
    before = cache.read_bytes()
    outcome = run("augment", cache, "--coprocessor", coprocessor_folder)
    output = cache.with_name("cache.augmented.st")
    assert (outcome.code, outcome.out) == (0, f"{output}\n")
    assert cache.read_bytes() == before
    base = load_base(str(llama_folder))
    trained = load_coprocessor(coprocessor_folder, base=base)
    [expected] = ask(base, trained.coprocessor, [stored(cache)])
    augmented = stored(output)
    torch.testing.assert_close(augmented.latents, expected.latents)
    torch.testing.assert_close(augmented.keys, expected.keys)
    assert augmented.text_part().last_hidden.equal(stored(cache).last_hidden)
    assert augmented.origin.coprocessor == str(coprocessor_folder)
    assert augmented.origin.coprocessor_fingerprint == trained.fingerprint


def test_the_base_is_the_one_that_the_cache_names_unless_it_moved(
    run, refused, cache, coprocessor_folder, llama_folder
):
    moved = llama_folder.rename("moved")
    told = refused("augment", cache, "--coprocessor", coprocessor_folder)
    assert str(llama_folder) in told
    assert "--base" in told
    arguments = ["--coprocessor", coprocessor_folder, "--base", moved]
    assert run("augment", cache, *arguments).code == 0


def test_a_folder_becomes_a_folder(run, caches, coprocessor_folder):
    before = contents(caches)
    result = json.loads(run("augment", caches, "--coprocessor", coprocessor_folder, "--json").out)
    output = caches.with_name("rows-caches.augmented")
    assert (result["output"], result["written"], result["latents"]) == (str(output), 5, 3)
    assert contents(caches) == before
    for file in caches.iterdir():
        assert stored(output / file.name).token_ids.equal(stored(file).token_ids)
        assert len(stored(output / file.name).latents) == 3


def test_the_working_folder_can_be_named_by_a_dot(run, caches, coprocessor_folder, monkeypatch):
    coprocessor = coprocessor_folder.absolute()
    monkeypatch.chdir(caches)
    assert run("augment", ".", "--coprocessor", coprocessor).code == 0
    assert len(list(caches.with_name("rows-caches.augmented").iterdir())) == 5


@pytest.mark.parametrize("batch", [1, 2, 99])
def test_caches_are_augmented_the_same_in_any_batches(run, caches, coprocessor_folder, batch):
    run("augment", caches, "--coprocessor", coprocessor_folder)
    run("augment", caches, "--coprocessor", coprocessor_folder, "--batch", batch, "-o", "other")
    for file in Path("other").iterdir():
        one, other = stored(file), stored(caches.with_name("rows-caches.augmented") / file.name)
        torch.testing.assert_close(one.latents, other.latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.keys, other.keys, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_folder_is_gone_on_with(run, caches, coprocessor_folder, monkeypatch, stop):
    arguments = ["augment", caches, "--coprocessor", coprocessor_folder]
    output = caches.with_name("rows-caches.augmented")
    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "save_file", failing_after(3, cache_file.save_file, stop))
        assert run(*arguments, "--batch", 2).code == (130 if stop is KeyboardInterrupt else 1)
    before = {file.name: file.stat().st_mtime_ns for file in output.iterdir()}
    assert len(before) == 3, "nothing half-written, nothing hidden"
    result = json.loads(run(*arguments, "--json").out)
    assert (result["written"], result["skipped"]) == (2, 3)
    after = {file.name: file.stat().st_mtime_ns for file in output.iterdir()}
    assert len(after) == 5
    assert before.items() <= after.items()
    assert json.loads(run(*arguments, "--json").out)["written"] == 0


def failing_after(count: int, save_file, stop):
    done = []

    def failing(tensors, path, **options):
        if len(done) == count:
            path.write_bytes(b"half")
            raise stop
        done.append(save_file(tensors, path, **options))

    return failing


def test_an_augmented_file_is_refused_and_forced_from_its_text_part(
    run, refused, augmented, other_coprocessor, cache
):
    arguments = ["augment", augmented, "--coprocessor", other_coprocessor]
    assert "3 latents already" in refused(*arguments)
    output = augmented.with_name("cache.augmented.augmented.st")
    assert not output.exists()
    assert run(*arguments, "--force").code == 0
    run("augment", cache, "--coprocessor", other_coprocessor, "-o", "direct.st")
    with CacheFile(output) as forced, CacheFile(Path("direct.st")) as direct:
        assert forced.metadata == direct.metadata, "the checksum is over everything"


def test_a_folder_with_an_augmented_file_is_refused_before_anything_is_written(
    refused, caches, augmented, coprocessor_folder
):
    augmented.rename(caches / "000007.st")
    assert "000007.st" in refused("augment", caches, "--coprocessor", coprocessor_folder)
    assert not caches.with_name("rows-caches.augmented").exists()


def test_an_output_that_exists_is_replaced_with_force_only(
    run, refused, cache, augmented, other_coprocessor
):
    before = augmented.read_bytes()
    arguments = ["augment", cache, "--coprocessor", other_coprocessor]
    assert "--force" in refused(*arguments)
    assert augmented.read_bytes() == before
    assert run(*arguments, "--force").code == 0
    assert len(stored(augmented).latents) == 5


def test_a_file_is_augmented_in_place_with_force_only(run, refused, cache, coprocessor_folder):
    before = stored(cache)
    arguments = ["augment", cache, "--coprocessor", coprocessor_folder, "-o", cache]
    assert "--force" in refused(*arguments)
    assert run(*arguments, "--force").code == 0
    text = stored(cache).text_part()
    assert text.token_ids.equal(before.token_ids)
    assert all(map(torch.equal, text.keys, before.keys))


def test_files_by_another_coprocessor_in_the_output_are_refused(
    run, refused, caches, coprocessor_folder, other_coprocessor
):
    run("augment", caches, "--coprocessor", coprocessor_folder)
    output = caches.with_name("rows-caches.augmented")
    before = contents(output)
    arguments = ["augment", caches, "--coprocessor", other_coprocessor]
    assert str(output / "000001.st") in refused(*arguments)
    assert contents(output) == before
    assert json.loads(run(*arguments, "--force", "--json").out)["written"] == 5


def test_a_cache_of_another_base_is_refused(refused, cache, coprocessor_folder, save_base):
    other = save_base("qwen3")
    told = refused("augment", cache, "--coprocessor", coprocessor_folder, "--base", other)
    assert "was made by base" in told
    assert list(Path().glob("*.st")) == [Path("cache.st")]


def test_a_folder_of_caches_of_two_bases_is_refused(
    refused, run, caches, coprocessor_folder, save_base
):
    run("prefill", "--text", "a", "--base", save_base("qwen3"), "-o", caches / "other.st")
    assert "other.st" in refused("augment", caches, "--coprocessor", coprocessor_folder)
    assert not caches.with_name("rows-caches.augmented").exists()


def test_a_folder_of_caches_of_two_dtypes_is_refused(
    refused, run, caches, coprocessor_folder, llama_folder
):
    options = ["--base", llama_folder, "--dtype", "bfloat16", "-o", caches / "other.st"]
    run("prefill", "--text", "a", *options)
    assert "bfloat16" in refused("augment", caches, "--coprocessor", coprocessor_folder)


def test_a_cache_is_augmented_in_its_own_dtype(run, llama_folder, coprocessor_folder):
    run("prefill", "--text", "abc", "--base", llama_folder, "--dtype", "bfloat16")
    assert run("augment", "cache.st", "--coprocessor", coprocessor_folder).code == 0
    assert stored(Path("cache.augmented.st")).latents.dtype == torch.bfloat16


def test_a_coprocessor_of_another_base_is_refused(refused, cache, make, save_base, tmp_path):
    other = load_base(str(save_base("qwen3")))
    save_coprocessor(make(other, "warm"), tmp_path / "foreign", base=other)
    assert "serves base" in refused("augment", cache, "--coprocessor", "foreign")
    assert list(Path().glob("*.st")) == [Path("cache.st")]


def test_a_text_that_leaves_no_room_for_latents_is_named_and_nothing_is_written(
    refused, run, caches, llama_folder, other_coprocessor
):
    run("prefill", "--text", "a" * 62, "--base", llama_folder, "-o", caches / "long.st")
    told = refused("augment", caches, "--coprocessor", other_coprocessor)
    assert "long.st" in told
    assert "no room for 5 latents" in told
    assert not caches.with_name("rows-caches.augmented").exists()


def test_a_folder_without_cache_files_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "'empty'" in refused("augment", "empty")


def test_a_damaged_cache_is_refused_rather_than_given_a_new_checksum(
    refused, cache, coprocessor_folder
):
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    cache.write_bytes(content)
    assert "checksum" in refused("augment", cache, "--coprocessor", coprocessor_folder)
    assert list(Path().glob("*.st")) == [Path("cache.st")]


def test_a_text_of_one_token_is_augmented(run, llama_folder, coprocessor_folder):
    run("prefill", "--text", "a", "--base", llama_folder)
    assert run("augment", "cache.st", "--coprocessor", coprocessor_folder).code == 0
    assert stored(Path("cache.augmented.st")).latents.isfinite().all()
