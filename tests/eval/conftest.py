"""What tests of benchmarks share: a tiny base on disk that reads long prompts."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deliberate.core.base import Base

LONG = 2048
SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"


@pytest.fixture(scope="session")
def long_llama(llama: Base) -> Base:
    """The tiny Llama, of positions enough for a prompt with examples."""
    torch.manual_seed(3)
    settings = {**llama.model.config.to_dict(), "max_position_embeddings": LONG}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    return dataclasses.replace(llama, model=model, id="long-llama")


@pytest.fixture
def fresh(llama: Base) -> Callable[[], Base]:
    """Makes a copy of the tiny Llama, for what puts low-rank weights into it."""
    return lambda: dataclasses.replace(llama, model=copy.deepcopy(llama.model))


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of benchmarks' files, where there is one beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("there are no files of benchmarks beside the repository")
    return SHARED


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of a benchmark as a JSONL file, in the folder that is returned."""
    import json

    def write(name: str, *rows: dict) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return tmp_path / "data"

    return write
