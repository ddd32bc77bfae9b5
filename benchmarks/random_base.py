"""A Llama with random weights: speed does not depend on what a model has learned."""

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deliberate.core import Base
from deliberate.train.precision import faster_dtype


def random_base(
    *, hidden: int, layers: int, vocabulary: int, positions: int, dtype: torch.dtype
) -> Base:
    """A base with heads of 64 numbers, two query heads to a key-value head, and no end token.

    Its feed-forward layers are 3.5 times as wide as the residual stream, as in Llama 3.

    Args:
        hidden: Size of the residual stream; a multiple of 128.
        layers: Decoder layers.
        vocabulary: Tokens it knows.
        positions: Positions it reads.
        dtype: Of its weights.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=None,
    )
    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))
    )
    return Base(model=LlamaForCausalLM(config).to(dtype), tokenizer=tokenizer, id="random Llama")


def chosen_dtype(name: str) -> torch.dtype:
    """A dtype by its name; `auto` is the one in which this machine multiplies faster."""
    return getattr(torch, faster_dtype(torch.device("cpu")) if name == "auto" else name)
