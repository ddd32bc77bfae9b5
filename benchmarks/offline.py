"""Whether an answer is the one that the base gives without a server.

    Heard --prefill [augment] [extend] generate, alone--> same | tie | why it is wrong

The program that asks `core` knows of no other request: an answer that another one touched differs.
"""

from functools import lru_cache

import torch
from crowd import Heard

from deliberate.core import (
    Base,
    Cache,
    Generation,
    Sampling,
    Trained,
    augment,
    extend,
    generate,
    prefill,
    tokenize,
)

TIE = 1e-4
"""Two tokens whose log-probabilities are nearer than this are as likely but for rounding."""


class Offline:
    """A base and its coprocessor, without a server."""

    def __init__(self, base: Base, trained: Trained, *, tokens: int) -> None:
        """Begin.

        Args:
            base: In float32.
            trained: The served coprocessor.
            tokens: Decoded of each answer.
        """
        self._base, self._trained, self._sampling = base, trained, Sampling(max_tokens=tokens)
        self._answer = lru_cache(maxsize=4096)(self._decode)
        self._text = lru_cache(maxsize=64)(self._read)

    def compare(self, heard: Heard) -> str:
        """`same`, `tie`, or a sentence of what is wrong.

        Only as much is compared as is this program's to say: what a client heard before it left,
        and what was decoded before late latents were taken up.
        """
        ask, got = heard.ask, heard.token_ids
        expected = self._answer(ask.prompt, ask.document, latents=heard.latents == "used")
        wanted = expected.token_ids
        if ask.kind == "leaving" and heard.finish is None:
            wanted = wanted[: len(got)]
        if heard.latents == "late":
            got, wanted = got[: heard.late_after], wanted[: heard.late_after]
        elif got == wanted == expected.token_ids:
            right = (heard.text, heard.finish) == (expected.text, expected.finish)
            return "same" if right else f"{heard} is not {expected}"
        if got == wanted:
            return "same"
        where = next((at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), -1)
        if where >= 0 and self._distance(heard, where, got[where], wanted[where]) < TIE:
            return "tie"
        return f"{heard} is not {expected}"

    def _decode(self, prompt: str, document: str, *, latents: bool) -> Generation:
        start = self._start(prompt, document, latents=latents)
        [done] = generate(self._base, [start], self._sampling)
        return done

    def _start(self, prompt: str, document: str, *, latents: bool) -> Cache:
        if not document:
            return self._text(prompt, latents=latents)
        question = tokenize(self._base, prompt, further=True)
        return extend(self._base, self._text(document, latents=latents), question)

    def _read(self, text: str, *, latents: bool) -> Cache:
        [cache] = prefill(self._base, [tokenize(self._base, text)])
        if latents:
            [cache] = augment(self._base, self._trained.coprocessor, [cache])
        return cache

    def _distance(self, heard: Heard, where: int, one: int, other: int) -> float:
        """How far apart two tokens' log-probabilities are, after what both answers have."""
        ask, latents = heard.ask, heard.latents == "used"
        cache = self._start(ask.prompt, ask.document, latents=latents)
        known = heard.token_ids[:where]
        if known:
            cache = extend(self._base, cache, torch.tensor(known))
        logits = self._base.logits(cache.tip)
        return abs(float(logits[one] - logits[other]))
