"""The base as a model of the harness, with latents once at the end of every context.

    context --prefill, augment--> augmented cache --continuations fed--> log-likelihoods
                                                  --generate-----------> text

Without a coprocessor it is the harness's own `hf` model and nothing else.

Source: arXiv:2412.17747, section 3.2: the coprocessor is called once, at the end of the prompt.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deliberate.core.augment import augment, prefill
from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.generate import Sampling, generate

Request = tuple[tuple[str, str], list[int], list[int]]
"""A context and its continuation, as texts and as tokens."""


class LatentLM(HFLM):
    """Answers the harness's requests from the base, or from the base with latents."""

    def __init__(
        self, base: Base, coprocessor: Coprocessor | None = None, *, batch: int = 8
    ) -> None:
        """Wrap a base.

        Args:
            base: Reads contexts and continuations; left as it was.
            coprocessor: Writes latents after every context; none is the base alone.
            batch: Texts computed at once.
        """
        # The harness may give the tokenizer a token for padding.
        tokenizer: Any = copy.deepcopy(base.tokenizer)
        super().__init__(pretrained=base.model, tokenizer=tokenizer, batch_size=batch)
        self._base, self._coprocessor = base, coprocessor
        self.cut: int = 0
        """Prompts so far that lost their beginning, since the base reads no more."""

    @property
    def max_length(self) -> int:
        """Most tokens of context and answer together, with room for the latents."""
        length = super().max_length
        if self._coprocessor is None or self._coprocessor.config.positions == "over":
            return length
        return length - self._coprocessor.config.latents

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
        """Score continuations, without a bar of its own."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Decode from contexts, without a bar of its own."""
        for context, settings in (request.args for request in requests):
            room = self.max_length - settings.get("max_gen_toks", self.max_gen_toks)
            self.cut += len(self.tok_encode(context)) > room
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Each continuation's log-likelihood, and whether it is the likeliest at every token."""
        room = self.max_length + 1
        too_long = {
            tuple(context) for _, context, after in requests if len(context) + len(after) > room
        }
        self.cut += len(too_long)
        if self._coprocessor is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        asked: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, (_, context, continuation) in enumerate(requests):
            asked[self._fitting(context, len(continuation))].append(number)
        answers: dict[int, tuple[float, bool]] = {}
        # The longest first, so that a lack of memory shows at once.
        for contexts in _batches(sorted(asked, key=len, reverse=True), self.batch_size):
            caches = dict(zip(contexts, self._augmented(contexts), strict=True))
            pairs = [(number, caches[context]) for context in contexts for number in asked[context]]
            for part in _batches(pairs, self.batch_size):
                continuations = [requests[number][2] for number, _ in part]
                scores = self._scores([cache for _, cache in part], continuations)
                answers |= zip((number for number, _ in part), scores, strict=True)
        return [answers[number] for number in range(len(requests))]

    def _fitting(self, context: list[int], continuation: int) -> tuple[int, ...]:
        """A context's last tokens, as many as leave room for a continuation of that length.

        Raises:
            DeliberateError: none do.
        """
        room = self.max_length + 1 - continuation
        if room < 1:
            raise DeliberateError(
                f"a continuation has {continuation} tokens and {self._base.id!r} reads at most "
                f"{self.max_length} with latents: choose another benchmark or another base"
            )
        return tuple(context[-room:])

    def _augmented(self, contexts: Sequence[tuple[int, ...]]) -> list[Cache]:
        device = self._base.device
        texts = [torch.tensor(context, device=device) for context in contexts]
        return self._thought(texts)

    def _thought(self, texts: Sequence[Int[Tensor, " _token"]]) -> list[Cache]:
        """Read contexts, think them over, and read the latents."""
        assert self._coprocessor is not None
        return augment(self._base, self._coprocessor, prefill(self._base, texts))

    @torch.no_grad()
    def _scores(
        self, caches: Sequence[Cache], continuations: Sequence[list[int]]
    ) -> list[tuple[float, bool]]:
        base = self._base
        tokens = [torch.tensor(one, device=base.device) for one in continuations]
        padded = pad_sequence(tokens, batch_first=True)
        hidden = torch.stack([cache.tip for cache in caches])[:, None]
        if padded.shape[1] > 1:
            batch = Batch(caches)
            steps = torch.arange(padded.shape[1] - 1, device=base.device)
            position_ids = batch.next_position[:, None] + steps
            if base.positions is not None:  # padding may stand beyond them, and nobody reads it
                position_ids = position_ids.clamp(max=base.positions - 1)
            fed = batch.feed(base.trunk, base.embed(padded[:, :-1]), position_ids=position_ids)
            hidden = torch.cat([hidden, fed], dim=1)
        scores = []
        for states, targets in zip(hidden, tokens, strict=True):
            chances = base.logits(states[: len(targets)]).float().log_softmax(-1)
            score = chances.gather(-1, targets[:, None]).sum()
            scores.append((float(score), bool((chances.argmax(-1) == targets).all())))
        return scores

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> Tensor:
        """Contexts padded on the left, each followed by what was decoded from it."""
        if self._coprocessor is None:
            return super()._model_generate(context, max_length, stop, **settings)
        known = settings["attention_mask"].bool()
        texts = [row[mask] for row, mask in zip(context, known, strict=True)]
        sampled = settings.get("do_sample", False)
        sampling = Sampling(
            max_tokens=max_length - context.shape[1],
            temperature=settings.get("temperature", 1.0) if sampled else 0.0,
            top_p=settings.get("top_p", 1.0),
            stop=tuple(text for text in stop if text),
        )
        made = generate(self._base, self._thought(texts), sampling)
        rows = [torch.tensor(one.token_ids, device=context.device) for one in made]
        tokenizer: Any = self.tokenizer
        decoded = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        return torch.cat([context, decoded.long()], dim=1)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
