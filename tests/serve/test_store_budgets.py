"""What a store removes to make room, in what order, and what stays because it is in use."""

import random

import pytest

from deliberate.core import save
from deliberate.serve import own_files
from deliberate.serve.store_errors import StoreFullError


class SlowModel:
    """What should be on disk, by a list in order of use."""

    def __init__(self, budget):
        self.budget, self.order = budget, []

    def use(self, cache_id):
        self.order = [each for each in self.order if each[0] != cache_id] + [
            each for each in self.order if each[0] == cache_id
        ]

    def put(self, cache_id, size, pinned):
        """Whether it fits."""
        if any(each[0] == cache_id for each in self.order):
            self.use(cache_id)
            return True
        left = list(self.order)
        while sum(each[1] for each in left) + size > self.budget:
            unpinned = [each for each in left if each[0] not in pinned]
            if not unpinned:
                return False
            left.remove(unpinned[0])
        self.order = [*left, (cache_id, size)]
        return True


def test_eviction_is_what_a_slow_model_says_also_after_restarts_and_a_clock_set_back(
    open_store, read, monkeypatch
):
    draw = random.Random(1)
    clock = [10**18]
    monkeypatch.setattr(own_files.time, "time_ns", lambda: clock[0])
    texts = [[0, *range(5, 5 + length)] for length in range(1, 25)]
    caches = [read(*text) for text in texts]
    sizes = {}
    probe = open_store()
    for cache in caches:
        cache_id = probe.put(cache)
        sizes[cache_id] = probe.entry(cache_id).bytes
    ids = list(sizes)
    for cache_id in ids:
        probe.delete(cache_id)
    probe.close()
    budget = sum(sizes.values()) // 3
    model, store, held = SlowModel(budget), open_store(disk=budget, memory=budget // 2), {}
    for step in range(250):
        clock[0] += draw.choice([-(10**9), 0, 10**9])
        which = draw.randrange(len(ids))
        cache_id = ids[which]
        match draw.choice(["put", "put", "get", "hold", "release", "delete", "restart"]):
            case "put":
                fits = model.put(cache_id, sizes[cache_id], set(held))
                if fits:
                    assert store.put(caches[which]) == cache_id
                else:
                    with pytest.raises(StoreFullError, match="in use"):
                        store.put(caches[which])
            case "get" if cache_id in store:
                store.get(cache_id)
                model.use(cache_id)
            case "hold" if cache_id in store and cache_id not in held and len(held) < 4:
                held[cache_id] = store.hold(cache_id)
                held[cache_id].__enter__()
            case "release" if held:
                _, hold = held.popitem()
                hold.__exit__(None, None, None)
            case "delete" if cache_id in store:
                store.delete(cache_id)
                model.order = [each for each in model.order if each[0] != cache_id]
                held.pop(cache_id, None)
            case "restart" if step % 5 == 0:
                store.close()
                held.clear()
                store = open_store(disk=budget, memory=budget // 2)
        expected = [each[0] for each in model.order]
        assert [entry.id for entry in reversed(store.entries())] == expected, step
        assert {path.stem for path in store.folder.glob("*.st")} == set(expected)
        assert store.usage.disk_bytes == sum(each[1] for each in model.order) <= budget
        assert store.usage.memory_bytes <= budget // 2


def test_what_is_in_use_stays_when_all_else_goes(open_store, read):
    store = open_store()
    first = store.put(read(0, 5))
    size = store.entry(first).bytes
    store.close()
    store = open_store(disk=int(2.5 * size))
    second = store.put(read(0, 6))
    with store.hold(first):
        third = store.put(read(0, 7))
        assert first in store
        assert second not in store
        with store.hold(third), pytest.raises(StoreFullError, match="in use"):
            store.put(read(0, 8))
    fourth = store.put(read(0, 8))
    assert first not in store
    assert {third, fourth} == {entry.id for entry in store.entries()}


def test_memory_holds_the_last_used_within_its_budget(open_store, read, same):
    store = open_store()
    caches = [read(0, token) for token in range(5, 10)]
    first = store.put(caches[0])
    size = store.usage.memory_bytes
    store.close()
    store = open_store(memory=2 * size)
    ids = [store.put(cache) for cache in caches]
    assert [store.entry(each).tier for each in ids] == ["disk"] * 3 + ["memory"] * 2
    assert same(store.get(first), caches[0])
    assert [store.entry(each).tier for each in ids] == ["memory", *["disk"] * 3, "memory"]
    with store.hold(first), store.hold(ids[4]):
        assert same(store.get(ids[1]), caches[1])
        assert store.entry(ids[1]).tier == "disk"
    assert store.usage.memory_bytes == 2 * size


def test_plain_files_of_others_are_undecided_while_their_latents_have_room(
    open_store, read, think, tmp_path
):
    found = tmp_path / "found"
    found.mkdir()
    for token in (5, 6):
        save(read(0, token), found / f"{token}.st")
    probe = open_store(found)
    sizes = {entry.id: entry.bytes for entry in probe.entries()}
    probe.close()
    store = open_store(found, disk=int(1.5 * max(sizes.values())))
    [first] = store.undecided(10)  # the other's latents would take its place
    store.close()
    roomy = open_store(found)
    assert set(roomy.undecided(10)) == set(sizes)
    assert roomy.undecided(1) == [roomy.entries(1)[0].id] == [first]
    roomy.put(think(roomy.get(first)))
    assert roomy.undecided(10) == [each for each in sizes if each != first]
    assert roomy.decide(roomy.undecided(1)[0])
    assert not roomy.undecided(10)
    assert not roomy.decide(first)


def test_what_is_decided_from_the_beginning_is_never_undecided(open_store, read):
    store = open_store()
    assert store.undecided(10) == []
    first = store.put(read(0, 5))
    second = store.put(read(0, 6), decided=True)
    assert store.undecided(10) == [first]
    store.put(read(0, 5), decided=True)
    assert store.undecided(10) == []
    assert not store.decide(second)
    store.delete(second)
    store.put(read(0, 6))
    assert store.undecided(10) == [second]
