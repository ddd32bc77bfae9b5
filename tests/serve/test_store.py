"""The store keeps caches bit for bit, finds them by their text, and forgets in the right order."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from deliberate.core import CacheFile, save
from deliberate.core.cache import Origin
from deliberate.core.errors import CacheError
from deliberate.serve.address import address
from deliberate.serve.store_errors import (
    NoSuchCacheError,
    OfflineWorkError,
    StoreError,
    StoreFullError,
)

GONE = "0" * 32


def file_of(store, cache_id):
    return store.folder / f"{cache_id}.st"


@pytest.mark.parametrize("memory", [0, 10**9])
@pytest.mark.parametrize("thought", [False, True])
def test_what_is_put_comes_back_bit_for_bit_and_is_what_its_file_holds(
    open_store, read, think, same, memory, thought
):
    cache = think(read(0, 5, 6)) if thought else read(0, 5, 6)
    store = open_store(memory=memory)
    cache_id = store.put(cache)
    with CacheFile(file_of(store, cache_id)) as file:
        file.verify()
        assert same(file.cache(), cache)
    assert same(store.get(cache_id), cache)
    assert store.entry(cache_id).state == ("augmented" if thought else "plain")
    assert store.entry(cache_id).tier == ("memory" if memory else "disk")
    store.close()
    assert same(open_store(memory=memory).get(cache_id), cache)


def test_a_cache_that_shares_memory_with_its_batch_is_kept_with_memory_of_its_own(
    open_store, llama
):
    from deliberate.core import prefill

    cache, _ = prefill(llama, [torch.tensor([0, 5]), torch.tensor([0, 5, 6, 7])])
    store = open_store()
    kept = store.get(store.put(cache))
    before = kept.keys[0].clone()
    cache.keys[0].zero_()
    assert kept.keys[0].equal(before)
    assert kept.keys[0].untyped_storage().nbytes() == kept.keys[0].nbytes


def test_a_folder_of_offline_work_is_served_as_it_is(open_store, folder, read, think, same):
    folder.mkdir()
    plain, other = read(0, 5, 6), think(read(0, 7), fingerprint="another")
    thought = think(read(0, 8))
    save(plain, folder / "000001.st")
    save(other, folder / "page.st")
    save(thought, folder / "page.augmented.st")
    names = {path: path.stat().st_mtime_ns for path in folder.glob("*.st")}
    store = open_store(disk=0)
    assert sorted(entry.state for entry in store.entries()) == ["augmented", "plain", "plain"]
    assert same(store.find([0, 5, 6, 9])[1], plain)
    assert same(store.find([0, 8])[1], thought)
    # Another coprocessor's latents are not ours: the text serves.
    assert same(store.find([0, 7])[1], other.text_part())
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.st")} == names
    assert store.usage.disk_bytes == 0


def test_found_files_are_neither_counted_nor_evicted_nor_deleted(open_store, folder, read, think):
    folder.mkdir()
    save(read(0, 5, 6), folder / "mine.st")
    store = open_store()
    [entry] = store.entries()
    with pytest.raises(OfflineWorkError, match=r"mine\.st"):
        store.delete(entry.id)
    store.replace(entry.id, think(store.get(entry.id)))
    assert store.entry(entry.id).state == "augmented"
    assert (folder / "mine.st").exists()
    assert file_of(store, entry.id).exists()
    store.close()
    # With no room for the augmented one, the plain one that was found still serves.
    store = open_store(disk=0)
    assert store.entry(entry.id).state == "plain"
    assert (folder / "mine.st").exists()


def test_of_two_files_of_one_text_the_one_with_our_latents_is_served(
    open_store, folder, read, think, same
):
    folder.mkdir()
    plain = read(0, 5, 6)
    save(think(plain, fingerprint="another"), folder / "a.st")
    save(plain, folder / "b.st")
    save(think(plain), folder / "c.st")
    store = open_store()
    [entry] = store.entries()
    assert same(store.get(entry.id), think(plain))
    (folder / "c.st").unlink()
    assert same(store.get(entry.id), plain)
    assert store.entry(entry.id).state == "plain"


def test_put_keeps_the_better_one_of_the_same_text(open_store, read, think, same):
    store = open_store()
    plain = read(0, 5)
    cache_id = store.put(plain)
    assert store.put(plain) == cache_id
    assert store.put(think(plain)) == cache_id
    assert store.put(plain) == cache_id
    assert same(store.get(cache_id), think(plain))
    assert store.usage.caches == 1
    assert store.usage.disk_bytes == file_of(store, cache_id).stat().st_size


def test_only_that_text_with_our_latents_takes_a_plain_one_s_place(open_store, read, think):
    store = open_store()
    cache_id = store.put(read(0, 5))
    for wrong in (read(0, 5), think(read(0, 6)), think(read(0, 5), fingerprint="another")):
        with pytest.raises(StoreError, match="not that text with its latents"):
            store.replace(cache_id, wrong)
    assert store.entry(cache_id).state == "plain"
    store.delete(cache_id)
    with pytest.raises(NoSuchCacheError):
        store.replace(cache_id, think(read(0, 5)))
    assert not store.entries()
    assert not list((store.folder / ".work").iterdir())


def test_what_the_base_cannot_go_on_from_is_refused(open_store, read, think, llama):
    import dataclasses

    from deliberate.core import extend

    store = open_store()
    cache = read(0, 5)
    with pytest.raises(CacheError, match="prefill the text again"):
        store.put(dataclasses.replace(cache, origin=Origin(base="b", base_fingerprint="x")))
    with pytest.raises(CacheError, match="keeps float32"):
        store.put(dataclasses.replace(cache, keys=[layer.double() for layer in cache.keys]))
    with pytest.raises(CacheError, match="ends with its text or its latents"):
        store.put(extend(llama, think(cache), torch.tensor([7])))
    broken = dataclasses.replace(cache, last_hidden=torch.full_like(cache.last_hidden, torch.nan))
    with pytest.raises(CacheError, match="NaN"):
        store.put(broken)
    assert store.usage.caches == 0
    assert not list(store.folder.glob("**/*.st"))


def slow_match(texts, token_ids):
    """The longest of the texts that begins the token ids, by trying them all."""
    fitting = [text for text in texts if token_ids[: len(text)] == text]
    return max(fitting, key=len, default=None)


def test_match_finds_the_longest_stored_beginning_as_trying_them_all_does(open_store, read):
    draw = random.Random(0)
    texts = [[0, *draw.choices([5, 6], k=draw.randrange(7))] for _ in range(25)]
    store = open_store()
    ids = {tuple(text): store.put(read(*text)) for text in texts}
    for _ in range(300):
        asked = [draw.choice([0, 0, 0, 5]), *draw.choices([5, 6], k=draw.randrange(9))]
        expected = slow_match(texts, asked)
        found = store.match(torch.tensor(asked))
        assert found == (expected and (ids[tuple(expected)], len(expected)))
        assert store.match(asked) == found
    store.delete(ids[tuple(texts[0])])
    remaining = [text for text in texts if text != texts[0]]
    for asked in texts:
        expected = slow_match(remaining, asked)
        assert store.match(asked) == (expected and (ids[tuple(expected)], len(expected)))
    assert store.match([]) is None


def test_an_address_depends_on_text_base_and_dtype_and_not_on_how_the_ids_are_held():
    ids = [3, 1, 2]
    one = address(ids, fingerprint="a", dtype="float32")
    assert one == address(torch.tensor(ids, dtype=torch.int32), fingerprint="a", dtype="float32")
    others = {
        address([3, 1], fingerprint="a", dtype="float32"),
        address([1, 3, 2], fingerprint="a", dtype="float32"),
        address(ids, fingerprint="b", dtype="float32"),
        address(ids, fingerprint="a", dtype="bfloat16"),
    }
    assert len(others | {one}) == 5


def test_a_restart_finds_what_was_there(open_store, read, think):
    store = open_store()
    for token in range(5, 9):
        store.put(read(0, token))
    store.put(think(read(0, 5)))
    store.get(store.match([0, 6])[0])

    def known(store):
        return [
            (entry.id, entry.tokens, entry.bytes, entry.state, entry.latents, entry.used)
            for entry in store.entries()
        ]

    before = known(store)
    store.close()
    assert known(open_store()) == before


def test_a_file_that_goes_while_it_is_looked_at_is_not_taken_up(
    open_store, folder, read, monkeypatch
):
    store = open_store()
    save(read(0, 5), folder / "mine.st")
    look = store._shelf.look

    def then_gone(path):
        seen = look(path)
        path.unlink()
        return seen

    monkeypatch.setattr(store._shelf, "look", then_gone)
    store.refresh()
    assert not store.entries()
    store.refresh()
    assert not store.reports


def test_with_another_coprocessor_the_texts_serve_and_are_thought_over_anew(
    open_store, read, think, same
):
    plain = read(0, 5)
    store = open_store()
    cache_id = store.put(think(plain))
    store.close()
    store = open_store(coprocessor="younger")
    assert store.entry(cache_id).state == "plain"
    assert same(store.get(cache_id), plain)
    store.replace(cache_id, think(store.get(cache_id), fingerprint="younger"))
    assert store.entry(cache_id).state == "augmented"
    assert len(list(store.folder.glob("*.st"))) == 1
    store.close()
    assert open_store(coprocessor="").entry(cache_id).state == "plain"


def test_a_store_that_is_closed_does_nothing(open_store, read):
    store = open_store()
    cache_id = store.put(read(0, 5))
    store.close()
    for ask in (store.entries, store.refresh, lambda: store.get(cache_id)):
        with pytest.raises(StoreError, match="is closed"):
            ask()


def test_threads_get_put_delete_and_refresh_at_once_and_never_see_a_wrong_cache(
    open_store, read, think, same
):
    caches = [read(0, *range(5, 5 + length)) for length in range(1, 13)]
    thoughts = [think(cache) for cache in caches]
    store = open_store()
    ids = [store.put(cache) for cache in caches]
    size = store.usage.disk_bytes
    store.close()
    store = open_store(disk=size // 2, memory=size // 4)

    def work(seed):
        draw = random.Random(seed)
        for _ in range(60):
            which = draw.randrange(len(caches))
            try:
                match draw.randrange(6):
                    case 0 | 1:
                        store.put(caches[which])
                    case 2:
                        store.replace(ids[which], thoughts[which])
                    case 3 if seed == 0:
                        store.delete(ids[which])
                    case 4 if seed == 1:
                        store.refresh()
                    case _:
                        found = store.find(caches[which].token_ids)
                        if found is not None:
                            length = len(found[1].token_ids)
                            wanted = thoughts if found[1].latents is not None else caches
                            assert same(found[1], wanted[length - 2])
            except (NoSuchCacheError, StoreFullError):
                pass

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, seed) for seed in range(6)]:
            done.result()
    assert not store.reports
    assert not list((store.folder / ".work").iterdir())
    on_disk = {path.stem: path.stat().st_size for path in store.folder.glob("*.st")}
    assert {entry.id: entry.bytes for entry in store.entries()} == on_disk
    assert store.usage.disk_bytes == sum(on_disk.values()) <= size // 2
