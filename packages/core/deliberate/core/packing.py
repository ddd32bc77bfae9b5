"""Texts become rows of tokens, all of one length.

texts --tokenizer--> [start] tokens [end] [start] tokens [end] ... --cut--> rows
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from deliberate.core.errors import TextError
from deliberate.core.source_files import copies_named
from deliberate.core.tokens import STRETCH, read


class Packer:
    """Joins texts' tokens in order and cuts them into rows; what is left over waits for more.

    Each text begins as the tokenizer begins a text; a tokenizer without a start token gets
    its end-of-text token between texts.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, length: int, markers: Sequence[str] = ()
    ) -> None:
        """Begin with nothing.

        Args:
            tokenizer: The base's; with markers a fast one, which knows where tokens stand.
            length: Tokens in each row.
            markers: Strings whose places are wanted.

        Raises:
            TextError: the tokenizer has nothing to put between two texts.
        """
        self.tokenizer, self.length, self.markers = tokenizer, length, tuple(markers)
        self.tokens: list[int] = []
        """Those of texts that have come, and of no full row yet."""
        self.marks: list[int] = []
        """Where markers end among them."""
        self._after = _end_of_text(tokenizer)

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """The rows that these texts fill.

        Returns:
            `token_ids` of each row, and with markers `marks`: the index of the last token of each
            marker, in rising order.
        """
        rows: dict[str, list[list[int]]] = {"token_ids": []}
        if self.markers:
            rows["marks"] = []
        for piece in read(self.tokenizer, texts, offsets=bool(self.markers)):
            if self.markers:
                found = _marks(piece.text, piece.offsets, self.markers)
                self.marks += [len(self.tokens) + index for index in found]
            self.tokens += piece.ids
            if piece.last:
                self.tokens += self._after
            if len(self.tokens) >= STRETCH:
                self._cut(rows)
        self._cut(rows)
        return rows

    def _cut(self, rows: dict[str, list[list[int]]]) -> None:
        """Move all full rows out of the tokens."""
        whole = len(self.tokens) - len(self.tokens) % self.length
        starts = range(0, whole, self.length)
        rows["token_ids"] += [self.tokens[start : start + self.length] for start in starts]
        if self.markers:
            rows["marks"] += [self._within(start) for start in starts]
        self.tokens = self.tokens[whole:]
        self.marks = [mark - whole for mark in self.marks if mark >= whole]

    def _within(self, start: int) -> list[int]:
        """The marks of the row that starts there."""
        low, high = (bisect_left(self.marks, place) for place in (start, start + self.length))
        return [mark - start for mark in self.marks[low:high]]


@copies_named()
def pack(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    markers: Sequence[str] = (),
) -> Dataset:
    """The rows of some texts, as `Packer` makes them; what is left over at the end is dropped.

    Args:
        texts: With a column `text`.
        tokenizer: The base's; with markers it must be a fast one.
        length: Tokens in each row.
        markers: Strings whose places are wanted.

    Raises:
        TextError: the tokenizer has nothing to put between two texts.

    Returns:
        A dataset with a column `token_ids`, and with markers `marks`.
    """
    packer = Packer(tokenizer, length=length, markers=markers)

    def cut(rows: Mapping[str, Any]) -> dict[str, Any]:
        columns: dict[str, Any] = packer(rows["text"])
        # Lists of numbers are looked through one by one, which takes a fourth of all the time.
        columns["token_ids"] = np.array(columns["token_ids"], dtype=np.int64).reshape(-1, length)
        return columns

    return texts.map(cut, batched=True, remove_columns=texts.column_names)


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
    ends = list(accumulate((end for _, end in offsets), max))  # special tokens stand nowhere
    found = {
        bisect_left(ends, match.end())
        for marker in markers
        for match in re.finditer(re.escape(marker), text)
    }
    return sorted(found)
