"""Questions and answers: two columns of a source, and each pair's tokens and anchor.

    source --read_pairs--> Dataset(question, answer) --tokenize_pairs--> (token_ids, anchor)

    [question, as a text begins] [separator, answer] [end of text]
                               ^ anchor

Source: arXiv:2412.17747, section A.2, where a coprocessor is adapted to one task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from deliberate.core.errors import TextError
from deliberate.core.passages import Passage
from deliberate.core.source_files import copies_named
from deliberate.core.sources import (
    Source,
    check_field,
    has_columns,
    label,
    opened,
    sources,
    text_of,
)
from deliberate.core.texts import hold_out
from deliberate.core.tokens import token_lists

_SLOT = "{question}"

TEMPLATE = _SLOT
"""By default nothing stands around a question."""

SEPARATOR = "\n"
"""By default the answer is on a line of its own."""

_EXACT = 2**53
"""Up to here a float has each whole number by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFormat:
    """Which columns are questions and answers, and what stands around them."""

    question: str
    """Column of the questions."""

    answer: str
    """Column of the answers."""

    template: str = TEMPLATE
    """What the base reads before the anchor, with `{question}` in it once."""

    separator: str = SEPARATOR
    """What the answer's tokens begin with; often the space or the line end that a tokenizer joins
    with the next word."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the template has no place for the question, or the columns are one.
        """
        if self.template.count(_SLOT) != 1:
            raise ValueError(f"template must hold {_SLOT} once, got {self.template!r}")
        if self.question == self.answer:
            raise ValueError(f"question and answer must be two columns, got {self.answer!r} twice")

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "PairFormat | None":
        """What a recipe's section `data` says of questions and answers, if it names them."""
        if not (data.get("question") and data.get("answer")):
            return None
        names = [field.name for field in fields(cls)]
        return cls(**{name: data[name] for name in names if data.get(name) is not None})

    def asked(self, question: str) -> str:
        """A question as the base reads it."""
        return self.template.replace(_SLOT, question)

    def answered(self, answer: str) -> str:
        """An answer as the base is to write it."""
        return self.separator + answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a pair must fit into."""

    length: int
    """Most tokens of question and answer together."""

    latents: int
    """Latents at the question's end."""

    ahead: int
    """Tokens behind them for which a batch makes room, whatever the pair's own answer has."""

    delay: int = 0
    """Tokens of the answer that are decoded before the latents arrive."""

    positions: int | None = None
    """Positions of the base, if it has a limit."""

    def holds(self, token_ids: list[int], anchor: int) -> bool:
        """Whether a pair fits, and has tokens that can be predicted."""
        group = anchor + 1 + self.delay + self.latents + self.ahead
        room = self.positions is None or group <= self.positions
        answer = len(token_ids) - 1 - anchor
        return room and anchor >= 0 and answer > self.delay and len(token_ids) <= self.length


def read_pairs(
    source: str | Source, form: PairFormat, *, split: str = "train", domain: str | None = None
) -> Dataset:
    """The pairs of a source, with columns `question` and `answer`.

    A row in which both are empty is left out. An answer that is a whole number is written as one:
    72, and 72 where a column of numbers has made it 72.0.

    Args:
        source: Or its path; as in `documents`, but with columns.
        form: Names the columns.
        split: As in `documents`.
        domain: A third column, to be had as `domain`.

    Raises:
        TextError: the source has no such columns, what they hold is no text, or a question has no
            answer or an answer no question.
    """
    (source,) = sources(source)
    if not has_columns(source):
        raise TextError(
            f"{source.path!r} has no columns to take questions and answers from: give JSONL or "
            "Parquet files"
        )
    asked, answered = replace(source, field=form.question), replace(source, field=form.answer)
    rows = opened(asked, split=split)
    wanted = {"question": form.question, "answer": form.answer}
    if domain is not None:
        wanted["domain"] = domain
    for name in wanted.values():
        check_field(replace(source, field=name), rows.column_names or ())
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for number, row in enumerate(cast(Iterable[dict[str, Any]], rows), 1):
        row = {**row, form.answer: _whole_number_written(row[form.answer])}
        question, answer = (text_of(row, each, number).strip() for each in (asked, answered))
        if bool(question) != bool(answer):
            lacking = form.answer if question else form.question
            raise TextError(
                f"{source.path!r} row {number} has no {lacking!r}: fill it, or leave the row out"
            )
        if question:
            for name, column in wanted.items():
                found[name].append(row[column])
    if not found["question"]:
        raise TextError(f"{source.path!r} holds no text")
    return Dataset.from_dict(found)


def _whole_number_written(value: Any) -> Any:
    """A whole number as text, anything else as it is: a fraction can be written in several ways."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def hold_out_pairs(pairs: Dataset, source: str) -> tuple[Dataset, Dataset]:
    """Training and validation pairs of a source that names no validation of its own.

    Raises:
        TextError: there is only one pair.
    """
    if len(pairs) < 2:
        raise TextError(
            f"{source!r} holds one pair, and one of two is held out: give more, or name "
            "data.validation"
        )
    return hold_out(pairs, source)


def validation_pairs(
    train: str | Sequence[Any],
    validation: str | Sequence[Any] | None,
    form: PairFormat,
    *,
    domain: str | None = None,
) -> tuple[str, Dataset]:
    """What a run on pairs is validated on, and what it is called; as `validation_texts`.

    Args:
        train: What it was trained on.
        validation: What was named for it, or None.
        form: Names the columns.
        domain: A third column of `validation`, to be had as `domain`.

    Raises:
        TextError: they cannot be read, or nothing can be held out.
    """
    if validation is not None:
        parts = [
            read_pairs(each, form, split="validation", domain=domain)
            for each in sources(validation)
        ]
        return label(validation), concatenate_datasets(parts)
    parts = [hold_out_pairs(read_pairs(each, form), each.path)[1] for each in sources(train)]
    return f"{label(train)} (held out)", concatenate_datasets(parts)


@copies_named()
def tokenize_pairs(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, form: PairFormat) -> Dataset:
    """Each pair's tokens, and the index of the question's last one.

    Question and answer are tokenized apart, so that no token is half of either. The answer ends
    with the end-of-text token, where the tokenizer has one.

    Args:
        pairs: From `read_pairs`.
        tokenizer: The base's.
        form: What stands around questions and answers.

    Returns:
        A dataset with columns `token_ids` and `anchor`, and `domain` if the pairs have it, in the
        order of the pairs.
    """
    reader = _PairReader(tokenizer, form)
    return pairs.map(reader, batched=True, remove_columns=["question", "answer"])


class _PairReader:
    """Tokenizes pairs; an object, since `datasets` takes the code of functions to pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: PairFormat) -> None:
        stop = tokenizer.eos_token_id
        self._tokenizer, self._form = tokenizer, form
        self._ends = [] if stop is None else [stop]
        # Some tokenizers end a text by themselves, and a question is not the end of one.
        self._ended = bool(self._ends) and tokenizer("a")["input_ids"][-1:] == self._ends

    def __call__(self, rows: Mapping[str, list[str]]) -> dict[str, list]:
        """Columns `token_ids` and `anchor` of rows with `question` and `answer`."""
        asked = token_lists(self._tokenizer, map(self._form.asked, rows["question"]))
        written = map(self._form.answered, rows["answer"])
        answered = token_lists(self._tokenizer, written, special=False)
        questions = [ids[:-1] if self._ended else ids for ids in asked]
        answers = [[*ids, *self._ends] for ids in answered]
        return {
            "token_ids": [[*q, *a] for q, a in zip(questions, answers, strict=True)],
            "anchor": [len(ids) - 1 for ids in questions],
        }


@copies_named()
def fitting(rows: Dataset, room: Room, *, source: str) -> Dataset:
    """The tokenized pairs that fit; those that do not are left out.

    Args:
        rows: From `tokenize_pairs`.
        room: What they must fit into.
        source: Where they are from, for the message.

    Raises:
        TextError: none fits.
    """
    kept = rows.filter(room.holds, input_columns=["token_ids", "anchor"])
    if not len(kept):
        shortest = min(len(ids) for ids in rows["token_ids"])
        limit = "" if room.positions is None else f" and the base's {room.positions} positions"
        raise TextError(
            f"none of the {len(rows):,} pairs of {source!r} fits {room.length} tokens, with "
            f"{room.latents} latents and {room.ahead} tokens ahead{limit}; the shortest has "
            f"{shortest}: give shorter pairs, or raise data.length (`eval --length`)"
        )
    return kept


def pair_passages(rows: Dataset, *, limit: int, seed: int = 0) -> list[Passage]:
    """Some tokenized pairs, drawn to be measured at their questions' ends.

    Args:
        rows: From `fitting`.
        limit: Most of them.
        seed: Of the draw.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    drawn = rows.select(order[:limit].tolist())
    return [
        Passage(
            document=index,
            token_ids=row["token_ids"],
            anchor=row["anchor"],
            domain=str(row.get("domain", "")),
        )
        for index, row in enumerate(drawn)
    ]
