"""Texts become rows of tokens, all of one length.

texts --tokenizer--> [start] tokens [end] [start] tokens [end] ... --cut--> rows
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from deliberate.core.errors import TextError
from deliberate.core.source_files import copies_named
from deliberate.core.thoughts import Thought, apart, padded
from deliberate.core.tokens import STRETCH, Piece, read, token_lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Places in texts that are wanted: of markers or of thoughts, or none."""

    markers: Sequence[str] = ()
    """Strings at whose end they are."""

    thought: Sequence[str] = ()
    """What opens and what closes a thought."""

    latents: int = 0
    """How many of a thought's last tokens are wanted."""

    def __bool__(self) -> bool:
        """Whether any are wanted."""
        return bool(self.markers or self.thought)


ANYWHERE = Wanted()
"""None are wanted."""

_LIST = List(Value("int64"))


class Packer:
    """Joins texts' tokens in order and cuts them into rows; what is left over waits for more.

    Each text begins as the tokenizer begins a text; a tokenizer without a start token gets
    its end-of-text token between texts.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, length: int, wanted: Wanted = ANYWHERE
    ) -> None:
        """Begin with nothing.

        Args:
            tokenizer: The base's; where places are wanted a fast one, which knows where tokens
                stand.
            length: Tokens in each row.
            wanted: Which places are.

        Raises:
            TextError: the tokenizer has nothing to put between two texts.
        """
        self.tokenizer, self.length, self.wanted = tokenizer, length, wanted
        self.tokens: list[int] = []
        """Those of texts that have come, and of no full row yet."""
        self.marks: list[int] = []
        """Where markers end among them, or thoughts stood."""
        self.thoughts: list[list[int]] = []
        """The thoughts' last tokens."""
        self._after = _end_of_text(tokenizer)

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """The rows that these texts fill.

        Returns:
            `token_ids` of each row; where places are wanted `marks`, the index of the last token of
            each marker or before each thought, in rising order; of thoughts also `thoughts`, of
            each its last tokens, as `padded` has them.
        """
        rows: dict[str, list[Any]] = {"token_ids": []}
        if self.wanted:
            rows["marks"] = []
        if self.wanted.thought:
            rows["thoughts"] = []
            texts, thoughts = zip(
                *(apart(text, self.wanted.thought) for text in texts), strict=True
            )
        text, start = 0, 0  # which one a piece is of, and where in it
        for piece in read(self.tokenizer, texts, offsets=bool(self.wanted)):
            if self.wanted.markers:
                found = _marks(piece.text, piece.offsets, self.wanted.markers)
                self.marks += [len(self.tokens) + index for index in found]
            elif self.wanted.thought:
                self._think(thoughts[text], piece, start)
                text, start = (text + 1, 0) if piece.last else (text, start + len(piece.text))
            self.tokens += piece.ids
            if piece.last:
                self.tokens += self._after
            if len(self.tokens) >= STRETCH:
                self._cut(rows)
        self._cut(rows)
        return rows

    def _think(self, thoughts: Sequence[Thought], piece: Piece, start: int) -> None:
        """Note the thoughts that stood in a piece or at its end, each behind some of its tokens."""
        ends = _ends(piece.offsets)
        near = {
            _last_before(each.place - start, piece.offsets, ends): each.text
            for each in thoughts
            if start < each.place <= start + len(piece.text)
        }
        near.pop(-1, None)  # before the first token: nothing has been read there
        ids = token_lists(self.tokenizer, near.values(), special=False)
        for index, own in zip(near, ids, strict=True):
            self.marks.append(len(self.tokens) + index)
            self.thoughts.append(padded(own, latents=self.wanted.latents))

    def _cut(self, rows: dict[str, list[Any]]) -> None:
        """Move all full rows out of the tokens."""
        whole = len(self.tokens) - len(self.tokens) % self.length
        starts = range(0, whole, self.length)
        rows["token_ids"] += [self.tokens[start : start + self.length] for start in starts]
        for start in starts if self.wanted else ():
            own = self._within(start, start + self.length)
            rows["marks"].append([mark - start for mark in self.marks[own]])
            if self.wanted.thought:
                rows["thoughts"].append(self.thoughts[own])
        left = self._within(whole, len(self.tokens))
        self.tokens = self.tokens[whole:]
        self.marks = [mark - whole for mark in self.marks[left]]
        self.thoughts = self.thoughts[left]

    def _within(self, start: int, end: int) -> slice:
        """Which marks stand there."""
        return slice(bisect_left(self.marks, start), bisect_left(self.marks, end))


@copies_named()
def pack(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    wanted: Wanted = ANYWHERE,
) -> Dataset:
    """The rows of some texts, as `Packer` makes them; what is left over at the end is dropped.

    Args:
        texts: With a column `text`.
        tokenizer: The base's; where places are wanted it must be a fast one.
        length: Tokens in each row.
        wanted: Which places are.

    Raises:
        TextError: the tokenizer has nothing to put between two texts.

    Returns:
        A dataset with the columns that `Packer` makes.
    """
    packer = Packer(tokenizer, length=length, wanted=wanted)

    def cut(rows: Mapping[str, Any]) -> dict[str, Any]:
        columns: dict[str, Any] = packer(rows["text"])
        # Lists of numbers are looked through one by one, which takes a fourth of all the time.
        columns["token_ids"] = np.array(columns["token_ids"], dtype=np.int64).reshape(-1, length)
        return columns

    names = [name for name, has in (("marks", wanted), ("thoughts", wanted.thought)) if has]
    kinds = {"token_ids": _LIST, "marks": _LIST, "thoughts": List(_LIST)}
    return texts.map(
        cut,
        batched=True,
        remove_columns=texts.column_names,
        # Said, as the first rows may have no marks to tell it by.
        features=Features({name: kinds[name] for name in ("token_ids", *names)}),
    )


def _end_of_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What is put after each text: nothing where the next one has a start token.

    Raises:
        TextError: there is neither.
    """
    if start_of_text(tokenizer):
        return []
    if tokenizer.eos_token_id is None:
        raise TextError(
            "the base's tokenizer has neither a start token nor an end-of-text token, so that two "
            "texts would run into one another: give it one (eos_token in tokenizer_config.json)"
        )
    return [tokenizer.eos_token_id]


def start_of_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start token, or nothing where the tokenizer does not begin a text with one."""
    start = tokenizer.bos_token_id
    begins = start is not None and tokenizer("a")["input_ids"][:1] == [start]
    return [start] if begins else []


def _marks(text: str, offsets: Sequence[tuple[int, int]], markers: Sequence[str]) -> list[int]:
    """Index of the token that holds the last character of each occurrence of a marker."""
    ends = _ends(offsets)
    found = {
        bisect_left(ends, match.end())
        for marker in markers
        for match in re.finditer(re.escape(marker), text)
    }
    return sorted(found)


def _last_before(place: int, offsets: Sequence[tuple[int, int]], ends: Sequence[int]) -> int:
    """Index of the last token that stands before a place and not over it; -1 where none does.

    One over it has read what comes behind the thought. Several tokens may share a character, and
    special ones stand nowhere.
    """
    index = bisect_right(ends, place) - 1
    while index >= 0 and offsets[index][0] == offsets[index][1]:
        index -= 1
    return index


def _ends(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Where each token ends; special ones, which stand nowhere, with the token before."""
    return list(accumulate((end for _, end in offsets), max))
