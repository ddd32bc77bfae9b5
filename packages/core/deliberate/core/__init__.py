"""The method and its files: read a text, write latents, decode from the augmented cache."""

from typing import TYPE_CHECKING

from deliberate.core.lazy_names import lazily

if TYPE_CHECKING:
    from deliberate.core.augment import augment, extend, prefill, tokenize
    from deliberate.core.base import Base, load_base
    from deliberate.core.cache import Cache
    from deliberate.core.cache_file import CacheFile, save
    from deliberate.core.checkpoint import Trained, load_coprocessor, save_coprocessor
    from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig, coprocessor_config
    from deliberate.core.errors import DeliberateError
    from deliberate.core.generate import Generation, Sampling, generate
    from deliberate.core.kinds import build

__all__ = [
    "Base",
    "Cache",
    "CacheFile",
    "Coprocessor",
    "CoprocessorConfig",
    "DeliberateError",
    "Generation",
    "Sampling",
    "Trained",
    "augment",
    "build",
    "coprocessor_config",
    "extend",
    "generate",
    "load_base",
    "load_coprocessor",
    "prefill",
    "save",
    "save_coprocessor",
    "tokenize",
]

lazily(
    __name__,
    {
        "augment": "augment",
        "extend": "augment",
        "prefill": "augment",
        "tokenize": "augment",
        "Base": "base",
        "load_base": "base",
        "Cache": "cache",
        "CacheFile": "cache_file",
        "save": "cache_file",
        "Trained": "checkpoint",
        "load_coprocessor": "checkpoint",
        "save_coprocessor": "checkpoint",
        "Coprocessor": "coprocessor",
        "CoprocessorConfig": "coprocessor",
        "coprocessor_config": "coprocessor",
        "DeliberateError": "errors",
        "Generation": "generate",
        "Sampling": "generate",
        "generate": "generate",
        "build": "kinds",
    },
)
