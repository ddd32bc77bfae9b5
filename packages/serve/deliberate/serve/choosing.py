"""The next token of each row by its own settings, and what is told of it.

logits --rows of equal settings together--> tokens;  --log_softmax--> log-probabilities
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deliberate.core.base import Base
from deliberate.serve.request import Token
from deliberate.serve.row import Row
from deliberate.serve.token_texts import added


class Choosing:
    """Chooses tokens for rows, and says what they are."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def __call__(self, logits: Float[Tensor, "rows vocab"], rows: Sequence[Row]) -> list[Token]:
        """A token for each row.

        Args:
            logits: What the base says of the next token.
            rows: Whose settings and random numbers are taken.
        """
        chosen = _chosen(logits, rows)
        told = self._told(logits, chosen, rows)
        return [told.get(index) or Token(id=token) for index, token in enumerate(chosen)]

    def _told(self, logits: Tensor, chosen: list[int], rows: Sequence[Row]) -> dict[int, Token]:
        """The tokens of which log-probabilities are told, by row."""
        asked = [index for index, row in enumerate(rows) if row.logprobs >= 0]
        if not asked:
            return {}
        logprobs = logits[asked].float().log_softmax(-1)
        most = max(rows[index].logprobs for index in asked)
        values, ids = logprobs.topk(min(most, logprobs.shape[-1]))
        told = {}
        for at, (index, likeliest, numbers) in enumerate(
            zip(asked, ids.tolist(), values.tolist(), strict=True)
        ):
            row, token = rows[index], chosen[index]
            likeliest = likeliest[: row.logprobs]
            text, *others = added(self._base, row.token_ids, [token, *likeliest])
            top = list(zip(likeliest, others, numbers, strict=False))
            told[index] = Token(id=token, text=text, logprob=float(logprobs[at, token]), top=top)
        return told


def _chosen(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """A token for each row, those of equal settings chosen at once."""
    alike: dict[tuple[float, float], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        sampling = row.sampling
        alike[(sampling.temperature, sampling.top_p) if sampling.temperature else (0, 1)].append(
            index
        )
    if len(alike) == 1:
        return rows[0].choice(logits, [row.stream for row in rows]).tolist()
    chosen = torch.empty(len(rows), dtype=torch.long)
    for indices in alike.values():
        streams = [rows[index].stream for index in indices]
        chosen[indices] = rows[indices[0]].choice(logits[indices], streams).cpu()
    return chosen.tolist()
