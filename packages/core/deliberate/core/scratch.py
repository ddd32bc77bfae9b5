"""A coprocessor of the base's architecture that starts from fresh weights.

Source: arXiv:2412.17747, table 5, table 7 and figure 4.
"""

import copy

from transformers import AutoModel, PreTrainedModel

from deliberate.core.base import Base
from deliberate.core.full import FullCoprocessor


class ScratchCoprocessor(FullCoprocessor):
    """As a full copy, but knows nothing of what the base learned."""

    def new_trunk(self, base: Base) -> PreTrainedModel:
        """A decoder with weights as the model's own initialisation draws them."""
        trunk = AutoModel.from_config(copy.deepcopy(base.trunk.config), dtype=base.model.dtype)
        trunk.set_input_embeddings(None)
        return trunk.to(base.device)
