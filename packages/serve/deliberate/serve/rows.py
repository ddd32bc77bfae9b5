"""The answers under way, decoded together, one token each at a time.

    tips --head--> logits --each row's sampling--> tokens --[late latents]--> base --> tips

Source of late latents: arXiv:2412.17747, section A.5; the token that is known and not yet read
comes after them.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.groups import ahead_positions, latent_positions
from deliberate.serve.choosing import Choosing
from deliberate.serve.request import Latents
from deliberate.serve.row import Row

logger = logging.getLogger(__name__)


class Rows:
    """Rows of one batch, each decoded as if it were alone."""

    def __init__(self, base: Base, lock: AbstractContextManager[None]) -> None:
        """Begin without a row.

        Args:
            base: Decodes.
            lock: Held whenever the base's weights are used.
        """
        self.rows: list[Row] = []
        self.decoded = 0
        """Tokens so far, of all rows that there were."""
        self._base, self._lock, self._choosing = base, lock, Choosing(base)
        self._batch: Batch | None = None
        self._tips: Tensor | None = None  # (rows, hidden)

    def join(self, row: Row, batch: Batch, tip: Float[Tensor, " hidden"]) -> None:
        """Take in a row.

        Args:
            row: Goes on from `batch`.
            batch: Of one row; nobody else's from now on.
            tip: Its last hidden state.
        """
        self.rows.append(row)
        try:
            if self._batch is None or self._tips is None:
                self._batch, self._tips = batch, tip[None]
            else:
                self._batch.join(batch)
                self._tips = torch.cat([self._tips, tip[None]])
        except Exception as error:  # memory, for one; the batch may be half moved
            logger.exception("joining answers failed: %d of them end", len(self.rows))
            self.fail(error)

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Let go of rows that are not wanted any more."""
        for index in reversed(range(len(self.rows))):
            if unwanted(self.rows[index]):
                self._leave(index)

    def fail(self, error: Exception) -> None:
        """End all rows."""
        for row in self.rows:
            row.end("failed", error)
        self.rows, self._batch, self._tips = [], None, None

    def step(self) -> None:
        """Decode one token for each row, and tell of it."""
        for late in self._take_up([row for row in self.rows if not row.count]):
            self.join(*late)
        if self._tips is None:  # they all failed on the way
            return
        with self._lock:
            logits = self._base.logits(self._tips)
        tokens = self._choosing(logits, self.rows)
        self.decoded += len(tokens)
        for row, token in zip(self.rows, tokens, strict=True):
            row.take(token)
        self.drop(lambda row: row.ended)
        apart = self._take_up(self.rows)
        try:
            self._feed()
        except Exception as error:
            logger.exception("decoding failed: %d answers end", len(self.rows))
            self.fail(error)
        for late in apart:
            self.join(*late)

    def _feed(self) -> None:
        """Let the base read each row's last token."""
        if self._batch is None:
            return
        token_ids = torch.tensor([row.token for row in self.rows], device=self._base.device)
        with self._lock:
            embeds = self._base.embed(token_ids)[:, None]
            self._tips = self._batch.feed(self._base.trunk, embeds)[:, -1]
        for row in self.rows:
            row.position += 1

    def _take_up(self, rows: list[Row]) -> list[tuple[Row, Batch, Tensor]]:
        """Rows that have read late latents and all that is known of them, no longer among ours."""
        ready = [(row, latents) for row in rows if (latents := row.latents()) is not None]
        apart = []
        for row, latents in ready:
            try:
                batch, tip = self._part(row)
            except Exception:  # memory, for one; nothing was moved
                logger.exception("taking up late latents failed: the answer goes on without them")
                continue
            try:
                self._leave(self.rows.index(row))
            except Exception as error:  # the batch may be half moved
                logger.exception("letting go of an answer failed: %d end", len(self.rows))
                self.fail(error)
                break  # those that are apart have batches of their own, and go on
            try:
                apart.append((row, batch, self._read_late(row, batch, latents)))
            except Exception:
                logger.exception("reading late latents failed: the answer goes on without them")
                self.join(row, batch, tip)
        return apart

    def _part(self, row: Row) -> tuple[Batch, Tensor]:
        """A batch of a row's own, and its last hidden state."""
        assert self._batch is not None
        assert self._tips is not None
        index = self.rows.index(row)
        batch = self._batch if len(self.rows) == 1 else self._batch.part(index)
        return batch, self._tips[index]

    def _read_late(self, row: Row, batch: Batch, latents: Latents) -> Tensor:
        """Let the base read latents, then the token that is known and not read, if there is one."""
        base, count = self._base, len(latents.latents)
        anchor = torch.tensor([[row.position - 1]], device=base.device)
        known = torch.tensor([row.token] if row.count else [], dtype=torch.long, device=base.device)
        where = latents.positions
        position_ids = [latent_positions(anchor, latents=count, positions=where)]
        position_ids += [ahead_positions(anchor, latents=count, ahead=len(known), positions=where)]
        with self._lock:
            embeds = base.embed(known)
            fed = torch.cat([latents.latents.to(embeds.dtype), embeds])[None]
            hidden = batch.feed(base.trunk, fed, position_ids=torch.cat(position_ids, -1)[0])
        row.took_up(latents)
        return hidden[0, -1]

    def _leave(self, index: int) -> None:
        """Let go of one row; the last one takes its place."""
        last = len(self.rows) - 1
        if not last:
            self._batch = self._tips = None
        else:
            assert self._batch is not None
            assert self._tips is not None
            self._batch.leave(index)
            order = [last if at == index else at for at in range(last)]
            self._tips = self._tips[order]
        self.rows[index] = self.rows[last]
        self.rows.pop()
