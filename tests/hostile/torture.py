"""The long part: damage and lies until the time is over. `make torture` runs it.

Its name keeps it out of the suite, which runs a few hundred such files. `TORTURE_SECONDS` is the
time of each test, `TORTURE_SEED` its beginning; a failure names the seed that brings it back.
"""

import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mutations import forged_text, mutate

pytestmark = pytest.mark.torture

SECONDS = float(os.environ.get("TORTURE_SECONDS", "60"))
SEED = int(os.environ.get("TORTURE_SEED", "1"))
MOST_SECONDS_A_FILE = 20
MOST_GROWTH = 512 << 20
"""Bytes of memory by which the process may grow; a header of 4 MiB takes half of it."""


@contextmanager
def alarm() -> Iterator[None]:
    def hangs(*_):
        raise TimeoutError(f"a file of a few kilobytes took {MOST_SECONDS_A_FILE} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(MOST_SECONDS_A_FILE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tortured(what, content, write, read, mutate, same, capsys) -> None:
    """Damage a file in another way each time, and see that it is refused or as it was."""
    counts, slowest, before, seed = Counter(), 0.0, memory(), SEED
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        damaged = mutate(random.Random(seed), content)
        write(damaged)
        began = time.monotonic()
        try:
            with alarm():
                word, *found = read()
        except BaseException as error:
            error.add_note(f"{what}: seed {seed}")
            raise
        slowest = max(slowest, time.monotonic() - began)
        assert word != "read" or damaged == content or same(*found), f"{what}: seed {seed}"
        if word != "read":
            told = found[0]["said"]
            assert told and "\n" not in told and len(told) < 2000, f"{what}: seed {seed}"  # noqa: PT018
        counts[word if word != "read" else "read as it was"] += 1
        seed += 1
    grown = memory() - before
    with capsys.disabled():
        said = ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))
        print(  # noqa: T201
            f"\n{what}: {counts.total():,} files from seed {SEED}: {said}; "
            f"slowest {slowest:.2f} s, memory grew by {grown >> 20} MiB"
        )
    assert grown < MOST_GROWTH


def test_cache_files(cache_path, read_cache, capsys):
    [_, metadata, tensors] = read_cache(cache_path)
    tortured(
        "cache file",
        cache_path.read_bytes(),
        cache_path.write_bytes,
        lambda: read_cache(cache_path),
        mutate,
        lambda again, parts: again == metadata and equal(parts, tensors),
        capsys,
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_coprocessors(coprocessor_path, read_coprocessor, llama, capsys, name):
    [_, described, weights] = read_coprocessor(coprocessor_path, llama)
    path = coprocessor_path / name

    def damage(rng, content):
        if name == "config.json" and rng.random() < 0.7:
            return forged_text(rng, content.decode()).encode()
        return mutate(rng, content)

    tortured(
        f"coprocessor's {name}",
        path.read_bytes(),
        path.write_bytes,
        lambda: read_coprocessor(coprocessor_path, llama),
        damage,
        lambda again, parts: again == described and equal(parts, weights),
        capsys,
    )


def equal(parts, others) -> bool:
    return parts.keys() == others.keys() and all(parts[name].equal(others[name]) for name in parts)
