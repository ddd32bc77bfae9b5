"""A coprocessor that reads the base's last hidden states and not its cache: an ablation.

    text --base--> last hidden states --own decoder--> keys, values <--soft tokens read these

Its decoder reads the text itself, so here gradients flow through the text's keys and values.

Source: arXiv:2412.17747, the ablation with last-layer activations in place of the cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from deliberate.core.cache import Reading, cache_keyword, key_values
from deliberate.core.errors import DeliberateError
from deliberate.core.full import FullCoprocessor
from deliberate.core.groups import Groups


class HiddenCoprocessor(FullCoprocessor):
    """As a full copy, but reads what the base thought last of each token."""

    uses = frozenset()
    reads_caches = False
    text_flops = 6

    def last_hidden(
        self,
        embeds: Float[Tensor, "batch anchors latents hidden"],
        *,
        groups: Groups,
        reading: Reading,
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Read the base's last hidden states as a text, then the soft tokens after them.

        Raises:
            DeliberateError: the reading was loaded from a cache, which does not hold them.
        """
        if reading.hidden is None:
            raise DeliberateError(
                "a coprocessor of kind 'hidden' reads the base's last hidden states at every "
                "token, and caches do not keep them: augment with a kind that reads the cache, "
                "such as full"
            )
        states = reading.hidden
        own = DynamicCache()  # made without a config it keeps every position of every layer
        places = torch.arange(states.shape[1], device=states.device)
        self.trunk(
            inputs_embeds=states,
            position_ids=places.expand(states.shape[:2]),
            use_cache=True,
            **{cache_keyword(type(self.trunk)): own},
        )
        keys, values = key_values(own)
        return self.through(embeds, groups=groups, keys=keys, values=values)
