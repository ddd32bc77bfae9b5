"""How much memory a run needs at its peak, beyond what was held before it.

    run --CUDA: the allocator's own account; elsewhere: each storage from its making to its end-->
    bytes

The second sees what tensors hold and not what a kernel allocates within itself; a test sets it
against the record of torch's CPU allocator.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_rise(run: Callable[[], object], device: torch.device) -> int:
    """Bytes by which a run lifts what tensors on a device hold, at its peak."""
    if device.type != "cuda":
        with _Storages(device) as storages:
            run()
        return storages.most
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


class _Storages(TorchDispatchMode):
    """Follows every storage that is made while it is on, until it is freed."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.most = 0
        self._held = 0
        self._device = device
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in self._storages((args, kwargs)):
            self._follow(storage, 0)  # met for the first time as an input, it was there before
        result = func(*args, **kwargs)
        for storage in self._storages(result):
            self._follow(storage, storage.nbytes())
        return result

    def _storages(self, tree: Any) -> Iterator[UntypedStorage]:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor) and leaf.device == self._device:
                yield leaf.untyped_storage()

    def _follow(self, storage: UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = size
            self._held += size
            self.most = max(self.most, self._held)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._held -= self._known.pop(key)
