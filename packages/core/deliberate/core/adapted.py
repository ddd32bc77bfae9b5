"""A trained coprocessor that is adapted: low-rank weights on its own trunk learn, the rest stays.

    trained coprocessor --B = 0--> the same --training--> A, B, soft tokens --merge--> coprocessor

What comes out is of the kind that went in.

Source: arXiv:2412.17747, section A.2.
"""

import copy
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.adapters import add_adapters, keep_on, merge_adapters
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.trunk_coprocessor import TrunkCoprocessor


class AdaptedCoprocessor(Coprocessor):
    """A trained coprocessor with low-rank weights; those and the soft tokens are what learns."""

    adapters: nn.ParameterDict
    """The low-rank weights, which the trained trunk's layers hold too."""

    soft_tokens: nn.Parameter
    """The trained coprocessor's."""

    def __init__(self, trained: TrunkCoprocessor, *, rank: int) -> None:
        """Put low-rank weights beside those of a trained coprocessor, which is used up.

        Args:
            trained: Of a kind that owns its trunk; its weights want no gradient from now on.
            rank: Of the product that each linear layer gets.
        """
        nn.Module.__init__(self)
        # Not as a module of this one's, or the trained weights would count as what learns.
        object.__setattr__(self, "_trained", trained.requires_grad_(requires_grad=False))
        self.config, self.execution = trained.config, trained.execution
        name, weights = add_adapters(trained.trunk, rank=rank, targets=None)
        keep_on(trained.trunk, name)
        # A parameter's name must not hold a dot.
        self.adapters = nn.ParameterDict({k.replace(".", "/"): v for k, v in weights.items()})
        self.soft_tokens = trained.soft_tokens
        self.soft_tokens.requires_grad_()

    @property
    def trained(self) -> TrunkCoprocessor:
        """What is adapted."""
        return cast(TrunkCoprocessor, vars(self)["_trained"])

    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Write latents with the low-rank weights on."""
        self.trained.execution = self.execution
        return self.trained(reading, anchors)

    def soft_parameters(self) -> list[nn.Parameter]:
        """The soft tokens."""
        return [self.soft_tokens]

    def finished(self) -> TrunkCoprocessor:
        """A copy of the trained coprocessor with the low-rank products added to its weights."""
        merged = copy.deepcopy(self.trained)
        merge_adapters(merged.trunk)
        return merged
