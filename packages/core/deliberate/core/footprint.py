"""What keeping texts thought over takes on disk, from a base's configuration alone.

    config --> Footprint --tokens, latents--> bytes of a cache, of input embeddings, of latents

The sums for a million documents are in `docs/scaling.md`.
"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

_ID = 8  # bytes of a token's id, and of a position


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes by what is kept."""

    key_values: int
    """Keys and values of one token or latent, in all layers."""

    hidden: int
    """One vector of the residual stream: an input embedding, or a latent."""

    def of_cache(self, tokens: int, latents: int = 0) -> int:
        """The tensors of a cache file; its header is a few thousand bytes more.

        Args:
            tokens: Of the text.
            latents: After it; none for a plain cache.
        """
        ends = 2 if latents else 1  # the last hidden states, before and after latents
        text = tokens * (self.key_values + 2 * _ID)
        return text + latents * (self.key_values + _ID + self.hidden) + ends * self.hidden

    def of_embeds(self, tokens: int, latents: int) -> int:
        """Input embeddings of a text and its latents, for another program to read them."""
        return (tokens + latents) * self.hidden

    def of_latents(self, latents: int) -> int:
        """Latents alone, whose text is read again before them."""
        return latents * self.hidden


def footprint(config: PreTrainedConfig, *, number_bytes: int = 2) -> Footprint:
    """Measure a base by its configuration.

    Args:
        config: Of a base whose every layer keeps keys and values of one width.
        number_bytes: Of a number: 2 in bfloat16, 4 in float32.
    """
    heads: int = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return Footprint(
        key_values=2 * config.num_hidden_layers * kept * head_dim * number_bytes,
        hidden=config.hidden_size * number_bytes,
    )
