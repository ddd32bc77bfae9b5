"""A chain of thought by the base alone: which tokens it reads, and that one judge judges it."""

import copy
import dataclasses

import pytest
import torch
from tokenizers import decoders

from deliberate.core.augment import augment, prefill, tokenize
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import TextError
from deliberate.core.generate import Generation
from deliberate.core.problems import Problem
from deliberate.eval import Subject
from deliberate.eval import chain as chaining
from deliberate.eval import latency as timing
from deliberate.eval import solve as solving
from deliberate.eval.accuracy import ask_problems
from deliberate.eval.chain import Chained, Cue, Plan, chained, plans_of
from deliberate.eval.latency import Latency, measure_latency
from deliberate.eval.problem_set import ProblemSet

THOUGHT = 5
LONGEST = 8
STOPS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
"""A random base seldom comes to a line's end by itself, so that here these letters are ends too."""


@pytest.fixture(scope="module")
def spelled(llama):
    """The tiny Llama, whose tokenizer puts nothing between the letters that it decodes."""
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    return dataclasses.replace(llama, tokenizer=tokenizer)


def problem(question, answer="12"):
    return Problem(family="words", steps=1, question=question, work=(), answer=answer)


def greedy(base, token_ids, count, ends=()):
    """Tokens decoded by reading the whole text anew for each, up to an end."""
    found = []
    while len(found) < count:
        read = torch.tensor([[*token_ids, *found]])
        with torch.no_grad():
            hidden = base.trunk(input_ids=read, use_cache=False).last_hidden_state[0, -1:]
        found.append(int(base.logits(hidden).argmax()))
        if found[-1] in ends:
            break
    return found


def test_an_answer_after_a_thought_is_what_decoding_on_gives(spelled, monkeypatch):
    ends = {0, *spelled.tokenizer(STOPS)["input_ids"]}
    monkeypatch.setattr(solving, "_Ends", lambda base: ends.__contains__)
    monkeypatch.setattr(solving, "FORM", dataclasses.replace(solving.FORM, separator=""))
    monkeypatch.setattr(chaining, "CUES", chaining.CUES[:1])
    asked, expected, lengths = [], [], []
    for question in [f"{a}{b * (1 + i % 5)}" for i, a in enumerate("abcdef") for b in "klmn"]:
        read = spelled.tokenizer(f"Step by step. {question}\n")["input_ids"]
        thought = [token for token in greedy(spelled, read, THOUGHT, ends={0}) if token]
        line = (
            "So"
            if not thought or thought[-1] == spelled.tokenizer("\n")["input_ids"][0]
            else "\nSo"
        )
        read += [*thought, *spelled.tokenizer(line)["input_ids"]]
        *said, last = greedy(spelled, read, LONGEST, ends=ends)
        letters = spelled.tokenizer.convert_ids_to_tokens(said)
        if last not in ends or not letters or {"<unk>", "<end>"} & {*letters}:
            said, letters = [], ["q"]
        answer = "".join(letters)
        for each, right in ((answer, bool(said)), (answer + "x", False)):
            asked.append(problem(question, each))
            expected.append(right)
            lengths.append(len(thought))
    found = chained(spelled, asked, Plan(tokens=THOUGHT), tried=asked[:2])
    assert found.right == expected
    assert found.decoded == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.parametrize(
    ("decoded", "thought", "line"),
    [
        ("1 2\n3 4\n", "1 2\n3 4\n", "So"),  # the way, to the end of a line
        ("1 2\n3", "1 2\n3", "\nSo"),  # cut short in a line
        ("1 2\nSo 12\nMore", "1 2\n", "So"),  # its own answer, and what it says after that
        ("1 2\nSo", "1 2\n", "So"),  # its own answer, cut short
        ("So 12\n", "", "So"),  # nothing else
        ("Some 12\n", "Some 12\n", "So"),  # another word
        ("", "", "So"),
    ],
)
def test_a_line_of_its_own_answer_is_the_answer(spelled, monkeypatch, decoded, thought, line):
    ids = spelled.tokenizer(decoded)["input_ids"]
    answers = [Generation(token_ids=[*ids, 0], text=decoded)] * 2
    monkeypatch.setattr(chaining, "generate", lambda *_: answers)
    cue = chaining.CUES[0]
    found, _ = chaining._thoughts(spelled, cue, [problem("ab"), problem("cd")], 20, 8)
    row = found.row
    assert (
        spelled.tokenizer.decode(row.token_ids[: row.anchor + 1])
        == cue.asking("ab") + thought + line
    )
    assert spelled.tokenizer.decode(row.token_ids[row.anchor + 1 :]).startswith(" 12")
    assert found.tokens == len(thought)


def test_a_cue_is_read_around_the_question_and_not_around_solved_ones_before_it():
    cue = Cue(question="Think. ", thought="\nWell", answer="So")
    assert cue.asking("How many?") == "Think. How many?\nWell"
    assert cue.asking("1 + 1 = 2\n2 + 2 =") == "1 + 1 = 2\nThink. 2 + 2 =\nWell"


def test_the_cue_is_the_one_that_solves_more_of_other_problems(spelled, monkeypatch):
    cues = (Cue(thought="\n", answer="So"), Cue(thought="\nWell", answer="Now"))
    monkeypatch.setattr(chaining, "CUES", cues)
    solved = {"So": [True, False, False], "Now": [True, False, True]}

    def right(base, thoughts, batch, smaller):
        text = base.tokenizer.decode(thoughts[0].row.token_ids[: thoughts[0].row.anchor + 1])
        (cue,) = [cue for cue in cues if text.endswith(cue.answer)]
        return solved[cue.answer]

    monkeypatch.setattr(chaining, "_right", right)
    others = [problem(each) for each in "xyz"]
    asked = [problem(each) for each in "abc"]
    found = chained(spelled, asked, Plan(tokens=2), tried=others)
    assert found.cue == cues[1]
    assert (found.tried, found.tried_on) == ({"\n": 1, "\nWell": 2}, 3)
    solved["So"] = solved["Now"]  # level: the first
    assert chained(spelled, asked, Plan(tokens=2), tried=others).cue == cues[0]


def test_its_tokens_are_as_many_as_latents_or_as_said_or_as_time_allows(spelled, make, monkeypatch):
    took = Latency(latents_seconds=0.010, token_seconds=0.003)
    monkeypatch.setattr(chaining, "measure_latency", lambda *_: took)
    writer, asked = make(spelled, "warm"), [problem("ab"), problem("abc")]
    plans = plans_of(spelled, writer, ("cot", "cot:7", "cot:latency"), asked)
    assert {name: plan.tokens for name, plan in plans.items()} == {
        "cot": writer.config.latents, "cot:7": 7, "cot:latency": 4
    }  # fmt: skip
    assert plans["cot:latency"].latency == took


@pytest.mark.parametrize("tokens", [60, 5000])
def test_the_chain_of_thought_that_is_advised_is_the_longest_that_fits(spelled, make, tokens):
    writer, asked = make(spelled, "warm"), [problem("ab"), problem("abc")]
    with pytest.raises(
        TextError, match=r"64 positions, .* name a shorter chain of thought"
    ) as told:
        plans_of(spelled, writer, (f"cot:{tokens}",), asked)
    most = int(str(told.value).rpartition("cot:")[2])
    assert plans_of(spelled, writer, (f"cot:{most}",), asked)
    with pytest.raises(TextError, match=f"as cot:{most}$"):
        plans_of(spelled, writer, (f"cot:{most + 1}",), asked)


def test_where_no_chain_of_thought_fits_none_is_advised(spelled, make):
    with pytest.raises(TextError, match=r"ask fewer --steps$"):
        plans_of(spelled, make(spelled, "warm"), ("cot:60",), [problem("ab" * 28)])


def test_time_is_that_of_latents_and_of_a_token_each_a_median_of_turns(spelled, make, monkeypatch):
    done = []

    def by_turns(runs, *, repeats, device):
        assert device == spelled.device
        done.extend(run() for run in runs.values())
        return {"latents": [0.3, 0.1, 0.2], "tokens": [0.8, 0.4, 1.6]}

    monkeypatch.setattr(timing, "in_turn", by_turns)
    question = tokenize(spelled, "some words")
    writer = make(spelled, "warm")
    took = measure_latency(spelled, writer, question)
    assert (took.latents_seconds, took.token_seconds, took.tokens) == (0.2, 0.1, 2)
    (augmented,), _ = done
    (expected,) = augment(spelled, writer, prefill(spelled, [question]))
    torch.testing.assert_close(augmented.latents, expected.latents)


@pytest.mark.parametrize("kind", ["hidden", "scratch", "full"])
def test_latents_of_every_kind_can_be_timed(spelled, make, kind):
    took = measure_latency(
        spelled, make(spelled, "warm", kind=kind), tokenize(spelled, "some words")
    )
    assert took.latents_seconds > 0
    assert took.token_seconds > 0
    assert took.tokens >= 1


def test_a_kind_that_reads_no_cache_is_compared_with_what_its_time_buys(spelled, make):
    trained = Trained(coprocessor=make(spelled, "warm", kind="hidden"), id="h", fingerprint="f")
    subject = Subject(trained=trained, chains=("cot:latency",))
    chosen = ProblemSet(families=("symbols",), steps=(1,), count=2)
    found = ask_problems(spelled, subject, chosen).to_dict()
    assert found["chains"]["cot:latency"]["most_tokens"] >= 1


def test_chains_of_thought_stand_beside_the_other_conditions(spelled, make):
    trained = Trained(coprocessor=make(spelled, "warm"), id="tiny", fingerprint="f")
    subject = Subject(trained=trained, controls=("zero",), chains=("cot", "cot:2"))
    chosen = ProblemSet(families=("symbols",), steps=(1,), count=3)
    told = []
    accuracy = ask_problems(
        spelled, subject, chosen, on_problems=lambda done, total: told.append((done, total))
    )
    found = accuracy.to_dict()
    assert list(found["total"]["percent"]) == ["base", "latents", "zero", "cot", "cot:2"]
    assert found["total"]["latents_against"].keys() == {"zero", "cot", "cot:2"}
    assert [each["most_tokens"] for each in found["chains"].values()] == [3, 2]
    assert all(isinstance(each, Chained) for each in accuracy.chains.values())
    assert (told[0], told[-1]) == ((0, 9), (9, 9))
