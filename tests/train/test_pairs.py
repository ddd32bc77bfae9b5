"""Learning answers: a padded batch is each pair alone, however it is shared out."""

import json
import logging

import pytest
import torch
from torch.nn.functional import cross_entropy

from deliberate.core.base import load_base
from deliberate.core.checkpoint import load_coprocessor
from deliberate.core.errors import TextError
from deliberate.core.kinds import KINDS
from deliberate.core.pairs import PairFormat, Room, fitting, read_pairs, tokenize_pairs
from deliberate.core.sources import Source
from deliberate.eval import Sample, evaluate
from deliberate.train import load_recipe, train
from deliberate.train.data import batches, load_passages, load_rows
from deliberate.train.objective import Objective
from deliberate.train.pairs import load_pairs, pair_batches
from deliberate.train.processes import Processes
from deliberate.train.rows import fingerprint_of_rows

FORM = PairFormat(question="q", answer="a", separator=" ")
ROWS = [
    ("what", "a"),
    ("what is that then", "xyz abc"),
    ("b", "an answer longer than most"),
    ("one two", "three"),
]
AHEAD, LATENTS = 7, 3


@pytest.fixture
def base(unlike_base):
    return unlike_base


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"q": q, "a": a}) + "\n" for q, a in ROWS))
    return path


@pytest.fixture
def many(tmp_path):
    """Pairs that can be learned: the answer is the question's first word."""
    path, generator = tmp_path / "many.jsonl", torch.Generator().manual_seed(0)
    words = ["abc", "cab", "xyz", "012", "zyx", "3210"]
    drawn = torch.randint(len(words), (200, 3), generator=generator).tolist()
    rows = [{"q": " ".join(words[i] for i in row), "a": words[row[0]]} for row in drawn]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def answers(recipe, many):
    def make(*changes):
        return recipe(f"data.train={many}", "data.question=q", "data.answer=a", *changes)

    return make


def chosen(*changes):
    settings = ["base.dtype=float32", "data.question=q", "data.answer=a", "data.train=x.jsonl"]
    settings += [f"objective.ahead={AHEAD}", f"coprocessor.latents={LATENTS}", "data.length=60"]
    return load_recipe(None, changes=[*settings, *changes])


def rows_of(base, source):
    rows = tokenize_pairs(read_pairs(str(source), FORM), base.tokenizer, FORM)
    rows = fitting(rows, Room(length=60, latents=LATENTS, ahead=AHEAD), source="x")
    return rows.with_format("torch")


def one_forward(base, coprocessor, token_ids, anchor, delay):
    """Losses of one pair alone, by the base's own forward over [question, z, answer]."""
    question, answer = token_ids[: anchor + 1], token_ids[anchor + 1 :]
    # The coprocessor has read nothing but the question.
    z = coprocessor(base.read(question[None]), torch.tensor([[anchor]]))[0, 0]
    over = coprocessor.config.positions == "over"
    known = min(delay, 1)  # tokens read after the latents that nothing has to predict
    read = anchor + 1 + delay - known
    at = [max(0, read + i - LATENTS * over) for i in range(LATENTS)]
    after = [read + i + LATENTS * (not over) for i in range(len(answer) - 1 - delay + known)]
    embeds = torch.cat([base.embed(token_ids[:read]), z, base.embed(token_ids[read:-1])])
    logits = base.model(
        inputs_embeds=embeds[None],
        position_ids=torch.tensor([[*range(read), *at, *after]]),
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
        use_cache=False,
    ).logits[0, read + LATENTS - 1 + known :]
    return cross_entropy(logits, answer[delay:], reduction="none")[:AHEAD]


def by_hand(base, coprocessor, rows, delay):
    """The mean over the answers' tokens of all pairs, each one by itself."""
    parts = [
        one_forward(base, coprocessor, row["token_ids"], int(row["anchor"]), delay) for row in rows
    ]
    return torch.cat(parts).mean()


def gradients(loss, coprocessor):
    coprocessor.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in coprocessor.named_parameters()}


def shared(base, coprocessor, recipe, parts, count):
    """A step's loss as `count` processes make it: the mean of their shares, and of the parts."""
    objective = Objective(coprocessor, base, recipe)
    losses = [
        objective(batch.token_ids, batch.anchors, batch.weights) / len(parts) / count
        for rank in range(count)
        for batch in pair_batches(
            parts, recipe, base, share=Processes(rank=rank, count=count, device=base.device)
        )
    ]
    return torch.stack(losses).sum()


@pytest.mark.parametrize("delay", [0, 2])
def test_a_padded_batch_is_each_pair_in_one_plain_forward(base, start, make, source, delay):
    coprocessor = make(base, start)
    recipe = chosen(f"objective.delay={delay}")
    rows = list(rows_of(base, source))
    slow = by_hand(base, coprocessor, rows, delay)
    wanted = gradients(slow, coprocessor)
    for parts in ([rows], [rows[:2], rows[2:]]):  # in one batch, or accumulated over two
        for count in (1, 2):  # by one process, or two
            fast = shared(base, coprocessor, recipe, parts, count)
            torch.testing.assert_close(fast, slow, atol=2e-5, rtol=0)
            for name, gradient in gradients(fast, coprocessor).items():
                scale = max(float(wanted[name].abs().max()), 1e-3)
                assert (gradient - wanted[name]).abs().max() < 2e-4 * scale, name


def test_the_mean_of_the_shares_means_would_be_another(llama, source):
    rows = list(rows_of(llama, source))
    [batch] = pair_batches([rows], chosen(), llama, share=Processes(device=llama.device))
    assert float(batch.weights.sum()) == pytest.approx(1)
    halves = [
        next(
            pair_batches(
                [rows], chosen(), llama, share=Processes(rank=r, count=2, device=llama.device)
            )
        )
        for r in (0, 1)
    ]
    sums = [float(half.weights.sum()) for half in halves]
    assert sum(sums) == pytest.approx(2)
    assert abs(sums[0] - 1) > 0.1


@pytest.mark.parametrize("kind", list(KINDS))
def test_padding_changes_nothing_for_any_kind(llama, make, source, kind):
    coprocessor = make(llama, "paper", kind=kind)
    rows = list(rows_of(llama, source))
    recipe = chosen()
    together = shared(llama, coprocessor, recipe, [rows], 1)
    found = gradients(together, coprocessor)
    apart = shared(llama, coprocessor, recipe, [[row] for row in rows], 1)
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=0)
    for name, gradient in gradients(apart, coprocessor).items():
        torch.testing.assert_close(found[name], gradient, atol=2e-4, rtol=1e-3)


def test_what_rows_are_padded_with_is_not_read(llama, make, source):
    recipe, coprocessor = chosen(), make(llama, "warm")
    rows = list(rows_of(llama, source))
    [batch] = pair_batches([rows], recipe, llama, share=Processes(device=llama.device))
    objective = Objective(coprocessor, llama, recipe)
    expected = objective(batch.token_ids, batch.anchors, batch.weights)
    other = batch.token_ids.clone()
    for padded, row in zip(other, rows, strict=True):
        padded[len(row["token_ids"]) :] = 5
    assert not torch.equal(other, batch.token_ids)
    assert torch.equal(objective(other, batch.anchors, batch.weights), expected)


def test_a_run_learns_answers_and_resumes_exactly(answers, tmp_path, llama_folder):
    recipe = answers("train.steps=40", "train.learning_rate=0.01", "train.accumulate=2")
    train(recipe, tmp_path / "whole")

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", on_progress=crash)
    train(recipe, tmp_path / "parts", resume=True)
    logged = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    losses = [[line["loss"] for line in lines] for lines in logged]
    assert losses[0] == losses[1]
    assert sum(losses[0][-8:]) < 0.9 * sum(losses[0][:8])
    # The validation's table, of the tokens that answers have: four letters, line end and end.
    reached = logged[0][-1]["change_percent"]
    assert reached.keys() == {"1", "2", "4"}
    # `deliberate eval` of the run measures the same pairs in the same places.
    base = load_base(str(llama_folder))
    trained = load_coprocessor(tmp_path / "whole", base=base)
    report = evaluate(base, trained, sample=Sample(texts=recipe.eval.texts, ahead=4))
    assert report.drawn.source.endswith("many.jsonl (held out)")
    for token, change in reached.items():
        assert report.changes["latents"][token].value == pytest.approx(change, abs=1e-3)
    again = report.to_dict()
    assert again["pairs"] == {
        "question": "q",
        "answer": "a",
        "template": "{question}",
        "separator": "\n",
    }
    assert again["anchors"] == again["passages"] == 4


def learned_of(recipe, base):
    return load_pairs(Source(path=recipe.data.train), recipe, base, recipe.data.pairs)


def test_held_out_pairs_are_not_learned_from(answers, llama_folder):
    base, recipe = load_base(str(llama_folder)), answers("eval.texts=100")
    assert len(learned_of(recipe, base)) == 190
    assert len(load_passages(recipe, base)) == 10
    named = answers("data.validation=" + recipe.data.train, "eval.texts=1000")
    assert len(learned_of(named, base)) == len(load_passages(named, base)) == 200


def test_the_rows_fingerprint_says_where_questions_end(llama, source):
    rows = rows_of(llama, source)
    moved = rows.map(lambda row: {"anchor": row["anchor"] + 1})
    assert fingerprint_of_rows(rows) != fingerprint_of_rows(moved)


def test_pairs_that_do_not_fit_are_left_out_and_counted(answers, llama_folder, caplog):
    base = load_base(str(llama_folder))
    recipe = answers("data.length=16")
    with caplog.at_level(logging.WARNING):
        kept = learned_of(recipe, base)
    assert all(len(ids) <= 16 for ids in kept["token_ids"])
    assert 0 < len(kept) < 190
    [record] = caplog.records
    assert record.getMessage() == (
        f"{190 - len(kept)} of the 190 pairs of {recipe.data.train!r} left out: they do not fit "
        "data.length = 16"
    )


def test_a_run_that_no_pair_fits_leaves_its_folder_free(answers, tmp_path):
    with pytest.raises(TextError, match=r"none of the 190 pairs .* fits 8 tokens.*data\.length"):
        train(answers("data.length=8", "eval.ahead=4"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.question=q"], r"data\.answer is None: name both columns"),
        (["data.answer=q"], r"data\.question is None and data\.answer is 'q'"),
        (["data.template=Q"], r"go with data\.question alone"),
        (["data.separator=' '"], r"go with data\.question alone"),
        (["data.question=q", "data.answer=q"], "two columns"),
        (["data.question=q", "data.answer=a", "data.streaming=true"], r"data\.streaming goes with"),
        (["data.question=q", "data.answer=a", "data.template=Q"], "must hold {question} once"),
        (
            ["data.question=q", "data.answer=a", "objective.place=every"],
            r"objective\.place is 'every' .* one anchor",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(recipe, changes, told):
    with pytest.raises(ValueError, match=told):
        recipe(*changes)


def test_batches_of_pairs_are_those_of_the_step(answers, llama_folder):
    base, recipe = load_base(str(llama_folder)), answers()
    share = Processes(device=base.device)
    rows = load_rows(recipe, base, share)
    [first] = batches(rows, recipe, base, step=0, share=share)
    [again] = batches(rows, recipe, base, step=0, share=share)
    [later] = batches(rows, recipe, base, step=1, share=share)
    assert torch.equal(first.token_ids, again.token_ids)
    assert first.anchors.shape == (4, 1)
    assert not torch.equal(first.token_ids[0, :8], later.token_ids[0, :8])
