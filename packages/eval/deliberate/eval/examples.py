"""Passages where latents helped and hurt most, with each token's probability side by side.

Observed --a best and a worst anchor a passage--> five documents each --decoded--> examples

They quote what was measured, and so are left out of a report's values unless they are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from deliberate.core.measure import Observed
from deliberate.core.passages import Passage

EXAMPLES = 5
"""Of those that were helped most, and of those that were hurt most; each of another document."""

TOKENS = 32
"""Most tokens of an example that are shown."""

BEFORE = 240
"""Characters before them."""

UNFINISHED = "\ufffd"
"""What decoding gives for bytes that are no whole character."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """An anchor, and the losses after it."""

    gain: float
    """The base's loss less that with latents, over the tokens ahead, in nats."""

    passage: int
    anchor: int
    losses: tuple[Tensor, Tensor]
    """The base's at each token that is shown, and those with latents."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Best:
    """The anchors of most gain, one a document."""

    sign: int = 1
    """-1 where it is of most loss."""

    found: dict[int, Found] = field(default_factory=dict)
    """By document."""

    def offer(self, document: int, new: Found) -> None:
        """Keep an anchor if it belongs among them."""
        if self._worth(new)[0] <= 0:
            return
        held = self.found
        if document in held:
            rival = document
        elif len(held) == EXAMPLES:
            rival = min(held, key=lambda number: self._worth(held[number]))
        else:
            held[document] = new
            return
        if self._worth(new) > self._worth(held[rival]):
            del held[rival]
            held[document] = new

    def ranked(self) -> list[tuple[int, Found]]:
        """Document and anchor, the best first."""
        return sorted(self.found.items(), key=lambda each: self._worth(each[1]), reverse=True)

    def _worth(self, found: Found) -> tuple[float, int, int]:
        """Equal gains are told apart by their places, whatever the order they come in."""
        return (self.sign * found.gain, -found.passage, -found.anchor)


class Examples:
    """Keeps the best and the worst anchors while latents are measured."""

    def __init__(
        self,
        name: str,
        chosen: Sequence[Passage],
        tokenizer: PreTrainedTokenizerBase,
        *,
        delay: int,
    ) -> None:
        """Begin with none.

        Args:
            name: The condition of the latents.
            chosen: The passages that are measured.
            tokenizer: The base's.
            delay: Tokens between an anchor and those that are shown.
        """
        self._name, self._chosen, self._tokenizer = name, chosen, tokenizer
        self._delay = delay
        self._helped, self._hurt = Best(), Best(sign=-1)

    def __call__(self, observed: Observed) -> None:
        """Look through a batch."""
        losses = observed.losses["base"], observed.losses[self._name]
        gain = ((losses[0].double() - losses[1].double()) * observed.counted).sum(-1)
        for best, first in ((self._helped, gain.argmax(1)), (self._hurt, gain.argmin(1))):
            for row, index in enumerate(first.tolist()):
                shown = int(observed.counted[row, index, :TOKENS].sum())
                number = observed.passages[row]
                found = Found(
                    gain=float(gain[row, index]),
                    passage=number,
                    anchor=int(observed.anchors[row, index]),
                    losses=(
                        losses[0][row, index, :shown].cpu(),
                        losses[1][row, index, :shown].cpu(),
                    ),
                )
                best.offer(self._chosen[number].document, found)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Plain values: `helped` and `hurt`, each the best first."""
        return {
            name: [self._example(document, found) for document, found in best.ranked()]
            for name, best in (("helped", self._helped), ("hurt", self._hurt))
        }

    def _example(self, document: int, found: Found) -> dict[str, Any]:
        passage = self._chosen[found.passage]
        first = found.anchor + self._delay + 1
        base, latents = (losses.neg().exp().tolist() for losses in found.losses)
        before, texts = token_texts(
            self._tokenizer, passage.token_ids[: first + len(base)], first=first
        )
        return {
            "document": document,
            "domain": passage.domain,
            "before": before[-BEFORE:],
            "gain_nats": found.gain,
            "tokens": [
                {"text": text, "base": alone, "latents": thought}
                for text, alone, thought in zip(texts, base, latents, strict=True)
            ],
        }


def token_texts(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], *, first: int
) -> tuple[str, list[str]]:
    """The text before a token, and what it and each later one add: joined, they are the text.

    A token that ends within a character adds that to the next one's text. What is no whole
    character at the end is U+FFFD.

    Args:
        tokenizer: The base's.
        token_ids: Of the whole text; a start token is left out of what is before.
        first: Index of the token.
    """
    special = set(tokenizer.all_special_ids)
    known = _decoded(tokenizer, token_ids[:first]).rstrip(UNFINISHED)
    before = known
    texts = []
    for end in range(first + 1, len(token_ids) + 1):
        text = _decoded(tokenizer, token_ids[:end])
        whole = text if end == len(token_ids) else text.rstrip(UNFINISHED)
        texts.append(whole[len(known) :])
        known = max(known, whole, key=len)
    start = 0
    while start < first and token_ids[start] in special:
        start += 1
    return before.removeprefix(_decoded(tokenizer, token_ids[:start])), texts


def _decoded(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    return cast(str, tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))
