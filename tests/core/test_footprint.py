import pytest

from deliberate.core import CacheFile, augment, prefill, save, tokenize
from deliberate.core.footprint import footprint


@pytest.mark.parametrize("latents", [0, 3])
def test_the_bytes_of_a_cache_are_those_of_the_file(any_base, make, tmp_path, latents):
    caches = prefill(any_base, [tokenize(any_base, "some words")])
    if latents:
        caches = augment(any_base, make(any_base, "paper", latents=latents), caches)
    save(caches[0], tmp_path / "cache.st")
    with CacheFile(tmp_path / "cache.st") as file:
        found = sum(file.tensor(name).nbytes for name in file.shapes)
        tokens = file.num_tokens
    assert footprint(any_base.model.config, number_bytes=4).of_cache(tokens, latents) == found
