"""Several processes that train one coprocessor, each on its share of every batch.

    torchrun --RANK, WORLD_SIZE--> Processes: the first one writes and speaks

A batch is the same whatever their number, and so is what is learned, but for the order in which
gradients are added up; of a stream each process reads texts of its own.
"""

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from deliberate.core.errors import DeliberateError

T = TypeVar("T")

TIMEOUT = timedelta(days=1)
"""How long a process waits for another one, which may have to fetch a base and read all texts;
where one dies the launcher ends the others."""


class Elsewhere(DeliberateError):
    """A failure that the first process tells of."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    """Its number, from 0."""

    count: int = 1
    """How many there are."""

    device: torch.device
    """Where this one computes."""

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def share_of(self, size: int) -> slice:
        """Which of a batch's rows are this one's."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def mean(self, value: float) -> float:
        """The mean of every process's value."""
        return self._reduced(value, distributed.ReduceOp.SUM) / self.count

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of them."""
        return self._reduced(float(flag), distributed.ReduceOp.MAX) > 0

    def by_first(self, work: Callable[[], int | None]) -> int:
        """Let the first process work while the others wait; all get its number.

        Raises:
            Elsewhere: it failed, in all others.
        """
        number, failed = 0, True
        if not self.first:
            number = self._from_first(0)
            if number < 0:
                raise Elsewhere("the first process stopped, and tells why")
            return number
        try:
            number, failed = work() or 0, False
        finally:  # so that nobody waits for a process that is gone
            self._from_first(-1 if failed else number)
        return number

    def in_turn(self, work: Callable[[], T]) -> T:
        """What each process makes for itself, the others once the first one has.

        They find the files that it kept, and fail with it.
        """
        made: list[T] = []
        self.by_first(lambda: made.append(work()))
        return self.by_all(lambda: made[0] if made else work())

    def by_all(self, work: Callable[[], T]) -> T:
        """What each process makes for itself, all at once; if one fails, they all do.

        Raises:
            DeliberateError: another one failed, in the first.
            Elsewhere: one of them failed, in all others.
        """
        made: list[T] = []
        own: Exception | None = None
        told = "it stopped"
        try:
            made.append(work())
            told = ""
        except (OSError, DeliberateError) as error:
            own, told = error, str(error)
        finally:  # so that nobody waits for a process that is gone
            reasons = self.gathered(told)
        failed = next((rank for rank, reason in enumerate(reasons) if reason), None)
        if failed is None:
            return made[0]
        if not self.first:
            raise Elsewhere(reasons[failed]) from own
        raise own or DeliberateError(
            f"process {failed + 1} of {self.count} failed: {reasons[failed]}"
        )

    def gathered(self, text: str) -> list[str]:
        """Every process's text, in the order of their numbers."""
        if self.count == 1:
            return [text]
        own = torch.tensor([*text.encode()], dtype=torch.uint8, device=self.device)
        sizes = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.count)]
        distributed.all_gather(sizes, torch.tensor([len(own)], device=self.device))
        most = max(int(size) for size in sizes)
        if not most:
            return [""] * self.count
        parts = [torch.empty(most, dtype=torch.uint8, device=self.device) for _ in sizes]
        distributed.all_gather(parts, torch.nn.functional.pad(own, (0, most - len(own))))
        return [
            bytes(part[: int(size)].tolist()).decode()
            for part, size in zip(parts, sizes, strict=True)
        ]

    def _reduced(self, value: float, how: distributed.ReduceOp.RedOpType) -> float:
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(held, op=how)
        return held.item()

    def _from_first(self, number: int) -> int:
        if self.count == 1:
            return number
        held = torch.tensor(int(number), device=self.device)
        distributed.broadcast(held, src=0)
        return int(held.item())


def is_first() -> bool:
    """Whether this is the process that speaks, among those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def sharers(device: torch.device) -> int:
    """How many processes of this machine share the memory of one's device."""
    return 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: str | torch.device) -> Generator[Processes]:
    """This process among those that a launcher started with it, if one did.

    A process group that is there already is used, and left.

    Args:
        device: Where to train; of several CUDA devices each process takes its own.
    """
    count, device = int(os.environ.get("WORLD_SIZE", "1")), torch.device(device)
    if count == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    made = not distributed.is_initialized()
    if made:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
    if distributed.get_rank():  # the first one alone speaks
        logging.getLogger("deliberate").setLevel(logging.ERROR)
    try:
        yield Processes(rank=distributed.get_rank(), count=count, device=device)
    finally:
        if made:
            distributed.destroy_process_group()
