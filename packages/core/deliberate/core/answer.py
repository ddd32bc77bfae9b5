"""One answer as it is decoded: its tokens, its text as far as it is certain, and its end.

token --add--> tokens so far --decode--> text --stop text?--> what is certain and new
"""

from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from transformers import PreTrainedTokenizerBase

from deliberate.core.sampling import Sampling

_UNSETTLED = 32
"""Tokens that are decoded again with each new one before most of them count as settled."""

_OVERLAP = 8
"""Of these, tokens that go on being decoded: what a token says may depend on those before it."""


@dataclass(eq=False)
class Generation:
    """What was decoded from one cache."""

    token_ids: list[int] = field(default_factory=list)
    """Decoded tokens, with the end token if one was decoded."""

    text: str = ""
    """Their text, without end token and stop text."""

    finish: Literal["length", "stop"] = "length"
    """`stop`: an end token or a stop text came; `length`: the limit did."""


class Answer:
    """What is decoded from one cache: collects tokens, finds the stop, tells what is certain."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        *,
        end: set[int | None],
        stream: int = 0,
        told: bool,
    ) -> None:
        """Begin with nothing.

        Args:
            tokenizer: The base's.
            sampling: Whose seed and stop texts are taken.
            end: The tokens that end decoding.
            stream: Number of the stream of random numbers; each row of a batch has its own.
            told: Whether anyone wants to know the text before the end.
        """
        self.result = Generation()
        self.done = False
        self.stream = torch.Generator().manual_seed(sampling.seed + stream)
        self._tokenizer, self._stop, self._end = tokenizer, sampling.stop, end
        self._told, self._certain = told, 0
        self._settled, self._first = "", 0  # text of the tokens before `_first`
        # The longest tail that may turn out to begin a stop text.
        self._held = max((len(text) - 1 for text in sampling.stop), default=0)

    def add(self, token: int) -> str:
        """Take the next token, and say which text it made certain."""
        self.result.token_ids.append(token)
        if token in self._end:
            self.done, self.result.finish = True, "stop"
            return ""
        if not (self._stop or self._told):
            return ""
        text = self._so_far()
        found = [at for stop in self._stop if (at := text.find(stop, self._certain)) >= 0]
        if found:
            self.done, self.result.finish = True, "stop"
            text = text[: min(found)]
            self.result.text = text
        # A character may need further tokens; until they come it decodes to U+FFFD.
        return self._new(text, len(text.rstrip("\ufffd")) - (0 if self.done else self._held))

    def finish(self) -> str:
        """Complete the result, and say which text had been held back."""
        if not (self.done and self.result.text):
            self.result.text = self._decode(0)
            for stop in self._stop:
                self.result.text = self.result.text.split(stop)[0]
        return self._new(self.result.text, len(self.result.text))

    def _new(self, text: str, certain: int) -> str:
        begin, self._certain = self._certain, max(self._certain, certain)
        return text[begin : self._certain]

    def _so_far(self) -> str:
        """The text of all tokens, of which only the last are decoded again."""
        recent = self._decode(self._first)
        text = self._settled + recent
        count = len(self.result.token_ids)
        if count - self._first > _UNSETTLED:
            overlap = self._decode(count - _OVERLAP)
            # Not so inside a character, or where a tokenizer says tokens otherwise at a start.
            if overlap and text.endswith(overlap):
                self._settled = text[: len(text) - len(overlap)]
                self._first = count - _OVERLAP
        return text

    def _decode(self, first: int) -> str:
        tokens = self.result.token_ids[first:]
        return cast(str, self._tokenizer.decode(tokens, skip_special_tokens=True))
