"""The paper's coprocessor: a full copy of the base's decoder, reading its cache.

Source: arXiv:2412.17747, section 2.2 (architecture and initialisation). Fewer layers than the
base's are ours.
"""

import copy

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from deliberate.core.adapters import without_adapters
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.errors import UnsupportedModelError
from deliberate.core.groups import Groups
from deliberate.core.structure import decoder_layers, final_norm
from deliberate.core.trunk_coprocessor import TrunkCoprocessor


class FullCoprocessor(TrunkCoprocessor):
    """A decoder of the base's architecture that starts as the base itself."""

    uses = frozenset({"layers"})
    owns_trunk = True

    def make_decoder(self, base: Base) -> None:
        """Make the decoder, without embedding and head.

        Raises:
            UnsupportedModelError: `latent_norm` is `before` and the base has no single final
                norm, or the base has not the layers that are named.
        """
        trunk = self.new_trunk(base)
        if self.config.layers is not None:
            _keep_layers(trunk, self.config.layers)
        if self.config.latent_norm == "before":
            trunk.set_submodule(final_norm(trunk), nn.Identity())
        # No dropout, as in the base: the latents of a text are a function of the text.
        self.trunk = trunk.requires_grad_(requires_grad=True).eval()

    def new_trunk(self, base: Base) -> PreTrainedModel:
        """The decoder as it is before it learns anything: here a copy of the base's."""
        twin = copy.deepcopy(base.trunk, {id(base.trunk.get_input_embeddings()): None})
        return without_adapters(twin)

    def last_hidden(
        self,
        embeds: Float[Tensor, "batch anchors latents hidden"],
        *,
        groups: Groups,
        reading: Reading,
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Run the soft tokens through the copy, each layer reading the base's cache of its own."""
        return self.through(embeds, groups=groups, keys=reading.keys, values=reading.values)


def _keep_layers(trunk: PreTrainedModel, kept: tuple[int, ...]) -> None:
    """Leave a decoder some of its layers, which keep the numbers they had in the base.

    Raises:
        UnsupportedModelError: it has not these layers.
    """
    layers = decoder_layers(trunk)
    count = len(layers)
    if not 0 <= min(kept) <= max(kept) < count:
        raise UnsupportedModelError(
            f"coprocessor.layers names {list(kept)} and the base has layers 0 to {count - 1}: name "
            "some of those"
        )
    name = next(name for name, child in trunk.named_children() if child is layers)
    trunk.set_submodule(name, nn.ModuleList([layers[index] for index in kept]))
    _keep_per_layer(trunk.config, kept, count)


def _keep_per_layer(config: PreTrainedConfig, kept: tuple[int, ...], count: int) -> None:
    """Cut what a configuration says layer by layer to the layers that are kept."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == count:
            setattr(config, name, [value[index] for index in kept])
    config.num_hidden_layers = len(kept)
