"""A coprocessor that is the base itself with low-rank weights beside its own: one copy of both.

    base's passes: weights switched off       coprocessor's pass: switched on

Source: arXiv:2412.17747, table 5.
"""

from collections.abc import Generator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from deliberate.core.adapters import adapters_on, add_adapters
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.groups import Groups
from deliberate.core.structure import final_norm
from deliberate.core.trunk_coprocessor import TrunkCoprocessor


class LoraCoprocessor(TrunkCoprocessor):
    """Shares the base's weights, and learns low-rank ones."""

    uses = frozenset({"rank", "targets"})

    adapters: nn.ParameterDict
    """The low-rank weights, which the base's layers hold too."""

    def make_decoder(self, base: Base) -> None:
        """Put low-rank weights into the base, switched off.

        Raises:
            UnsupportedModelError: the base has no layers of the names in `targets`, or no single
                final norm where `latent_norm` is `before`.
        """
        rank, targets = self.config.rank, self.config.targets
        self._norm = final_norm(base.trunk) if self.config.latent_norm == "before" else None
        self._set, weights = add_adapters(base.trunk, rank=rank, targets=targets)
        # A parameter's name must not hold a dot.
        self.adapters = nn.ParameterDict({k.replace(".", "/"): v for k, v in weights.items()})
        # Not as a module of this one's, or the base's weights would count as its own.
        object.__setattr__(self, "trunk", base.trunk)

    def last_hidden(
        self,
        embeds: Float[Tensor, "batch anchors latents hidden"],
        *,
        groups: Groups,
        reading: Reading,
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Run the soft tokens through the base's decoder with the low-rank weights on."""
        return self.through(
            embeds,
            groups=groups,
            keys=reading.keys,
            values=reading.values,
            inside=self._as_coprocessor,
        )

    @contextmanager
    def _as_coprocessor(self) -> Generator[None]:
        """The base's decoder is the coprocessor's in this block."""
        norm = self.trunk.get_submodule(self._norm) if self._norm else None
        if self._norm:
            self.trunk.set_submodule(self._norm, nn.Identity())
        try:
            with adapters_on(self.trunk, self._set):
                yield
        finally:
            if self._norm and norm is not None:
                self.trunk.set_submodule(self._norm, norm)
