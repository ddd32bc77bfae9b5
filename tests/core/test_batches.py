"""Passages go in batches, each once, also where the memory is too small for some of them."""

import pytest
import torch

from deliberate.core import measure as measuring
from deliberate.core.errors import DeliberateError
from deliberate.core.measure import Condition, measure_late
from deliberate.core.memory import Smaller, batch_by_batch, is_out_of_memory, within_memory
from deliberate.core.passages import Passage, batches


def texts(count, documents=None):
    documents = documents or range(count)
    return [
        Passage(document=document, token_ids=list(range(2, 30 - number)))
        for number, document in enumerate(documents)
    ]


def smaller(said, **more):
    return Smaller(on_less=said.append, way_out="give a smaller one", **more)


def failing_above(most, tried):
    def do(numbers):
        tried.append(numbers)
        if len(numbers) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return [number * 10 for number in numbers]

    return do


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """Looking through all objects of a process that has imported transformers takes long."""
    monkeypatch.setattr("deliberate.core.memory.gc.collect", lambda: 0)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 17, 23])
@pytest.mark.parametrize(("size", "fits"), [(8, 8), (8, 4), (8, 3), (8, 2), (5, 2), (2, 2)])
def test_each_passage_is_done_once_in_batches_that_fit(count, size, fits):
    said, tried, chosen = [], [], texts(count)
    found = list(
        batch_by_batch(chosen, failing_above(fits, tried), size=size, smaller=smaller(said))
    )
    own = [number for each in found for number in each.numbers[: each.own]]
    assert own == list(range(count))
    assert all(1 < len(each.numbers) <= max(fits, 2) for each in found)
    assert all(each.done == [10 * number for number in each.numbers] for each in found)
    assert bool(said) == any(len(numbers) > fits for numbers in tried)
    assert said == sorted(said, reverse=True)


def test_a_run_that_failed_at_first_is_one_with_smaller_batches():
    chosen, said = texts(19), []
    found = list(batch_by_batch(chosen, failing_above(4, []), size=8, smaller=smaller(said)))
    assert said == [4]
    assert [each.numbers for each in found] == list(batches(chosen, size=4))


def test_what_is_done_stays_done_and_the_rest_goes_in_smaller_batches():
    tried, said, many = [], [], []

    def do(numbers):
        tried.append(numbers)
        if len(tried) == 2:
            raise MemoryError
        many.append(len(numbers))
        return None

    found = list(batch_by_batch(texts(16), do, size=8, smaller=smaller(said)))
    assert found[0].numbers == tried[0] == list(range(8))
    assert (said, many) == ([4], [8, 4, 4])


@pytest.mark.parametrize(("documents", "companion"), [((0, 0, 1), 2), ((0, 1, 1), 1)])
def test_a_passage_left_alone_has_one_of_another_document_go_along(documents, companion):
    found = list(batch_by_batch(texts(3, documents), lambda numbers: numbers, size=2))
    assert [(each.numbers, each.own) for each in found] == [([0, companion], 1), ([1, 2], 2)]


def test_one_at_a_time_none_goes_along():
    found = list(batch_by_batch(texts(3), lambda numbers: numbers, size=1))
    assert [(each.numbers, each.own) for each in found] == [([0], 1), ([1], 1), ([2], 1)]
    [alone] = batch_by_batch(texts(1), lambda numbers: numbers, size=8)
    assert (alone.numbers, alone.own) == ([0], 1)


@pytest.mark.parametrize(("least", "what"), [(2, "with 2 together"), (1, "by itself")])
def test_where_the_smallest_batch_is_too_large_the_way_out_is_said(least, what):
    said = []
    with pytest.raises(DeliberateError, match=f"out of memory .* {what}: give a smaller one"):
        list(
            batch_by_batch(
                texts(6), failing_above(0, []), size=4, least=least, smaller=smaller(said)
            )
        )
    assert said == [2, 1][: 3 - least]


def test_a_lowered_batch_stays_lowered_where_the_same_is_used_again():
    said, tried = [], []
    same = smaller(said)
    for least in (1, 1, 6):
        list(batch_by_batch(texts(8), failing_above(6, tried), size=8, least=least, smaller=same))
    assert said == [4]
    assert max(len(numbers) for numbers in tried[1:]) <= 6


def test_what_has_no_smaller_batch_says_that_memory_is_out_and_the_way_out():
    with (
        pytest.raises(DeliberateError, match="out of memory timing latents: do less"),
        within_memory("timing latents", "do less"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")
    with (
        pytest.raises(RuntimeError, match="a fault of ours"),
        within_memory("timing latents", "do less"),
    ):
        raise RuntimeError("a fault of ours")


def test_other_errors_and_those_that_nobody_asked_to_repair_go_on():
    def broken(numbers):
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(batch_by_batch(texts(6), broken, size=4, smaller=smaller([])))
    with pytest.raises(torch.OutOfMemoryError):
        list(batch_by_batch(texts(6), failing_above(2, []), size=4))


def test_what_the_allocator_says_is_known_for_too_little_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory."))


def test_what_draws_draws_the_same_once_more():
    generator, drawn, tried = torch.Generator().manual_seed(0), [], []

    def do(numbers):
        each = torch.randn(len(numbers), 16, generator=generator)
        failing_above(4, tried)(numbers)
        drawn.append(each)

    list(batch_by_batch(texts(8), do, size=8, smaller=smaller([], generators=[generator])))
    assert len(tried) == 3
    expected = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(drawn), expected)


def failing_trunk(base, monkeypatch, most):
    """A base that has memory for so many texts at a time."""
    whole = type(base).read

    def read(self, token_ids):
        if len(token_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return whole(self, token_ids)

    monkeypatch.setattr(type(base), "read", read)


@pytest.mark.parametrize("fits", [4, 2])
@pytest.mark.parametrize("count", [16, 7])
def test_losses_measured_with_little_memory_are_those_of_smaller_batches(
    llama, start, make, monkeypatch, fits, count
):
    writer = make(llama, start)
    conditions = {
        "latents": Condition(writer=writer, partnered=False),
        "shuffled": Condition(writer=writer, change=lambda latents, partners: latents[partners]),
    }
    given = {"delays": [0, 1], "anchors": 3, "ahead": 4}
    expected = measure_late(llama, conditions, texts(count), **given, batch=fits)
    large = measure_late(llama, conditions, texts(count), **given, batch=8)
    failing_trunk(llama, monkeypatch, fits)
    said, done = [], []
    found = measure_late(
        llama, conditions, texts(count), **given, smaller=smaller(said), on_batch=done.append
    )
    assert said[-1] == fits
    assert done[-1] == count
    for delay in (0, 1):
        assert torch.equal(found[delay].documents, expected[delay].documents)
        assert torch.equal(found[delay].counts, large[delay].counts)
        assert torch.equal(found[delay].partners, expected[delay].partners)
        assert (found[delay].partners != found[delay].documents).all()
        for name, sums in found[delay].sums.items():
            assert torch.equal(sums, expected[delay].sums[name])
        for name in ("base", "latents"):  # no matter which texts are beside a text
            close = {"atol": 1e-4, "rtol": 1e-5}
            torch.testing.assert_close(found[delay].sums[name], large[delay].sums[name], **close)


def test_what_is_observed_sums_up_to_the_losses_and_is_each_passage_once(llama, make, monkeypatch):
    writer, chosen, seen = make(llama, "warm"), texts(7), []
    conditions = {"latents": Condition(writer=writer)}
    given = {"delays": [1, 0], "anchors": None, "ahead": 4}
    losses = measure_late(llama, conditions, chosen, **given, batch=2, observe=seen.append)[1]
    assert [number for each in seen for number in each.passages] == list(range(7))
    for name, sums in losses.sums.items():
        by_hand = torch.cat([(each.losses[name] * each.counted).sum(1) for each in seen])
        torch.testing.assert_close(by_hand.double(), sums)
    for each in seen:
        for row, number in enumerate(each.passages):
            ids = torch.tensor([chosen[number].token_ids])
            logits = llama.model(input_ids=ids).logits[0].log_softmax(-1)
            entropy = -(logits.exp() * logits).sum(-1)[each.anchors[row]]
            torch.testing.assert_close(each.entropy[row], entropy, atol=1e-4, rtol=1e-4)


def test_nobody_who_looks_costs_nothing_and_changes_nothing(llama, make, monkeypatch):
    conditions = {"latents": Condition(writer=make(llama, "warm"))}
    given = {"delays": [0], "anchors": 3, "ahead": 4}
    watched = measure_late(llama, conditions, texts(5), **given, observe=lambda observed: None)
    monkeypatch.setattr(measuring, "entropy", None)
    alone = measure_late(llama, conditions, texts(5), **given)
    for name, sums in alone[0].sums.items():
        assert torch.equal(sums, watched[0].sums[name])
