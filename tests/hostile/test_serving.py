"""What is served was compared with its checksum first."""

import pytest
import torch

from deliberate.core.base import load_base
from deliberate.core.checkpoint import load_coprocessor, save_coprocessor
from deliberate.core.errors import CheckpointError
from deliberate.serve.worker_main import Models, _load

pytestmark = pytest.mark.usefixtures("no_home")


def test_a_damaged_coprocessor_is_not_served(llama_folder, make, tmp_path):
    base, folder = load_base(str(llama_folder)), tmp_path / "coprocessor"
    save_coprocessor(make(base, "warm"), folder, base=base)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    models = Models(
        base=base.id,
        revision="",
        base_fingerprint=base.fingerprint,
        coprocessor=str(folder),
        coprocessor_fingerprint=load_coprocessor(folder, base=base).fingerprint,
        dtype=torch.float32,
    )
    with pytest.raises(CheckpointError, match="checksum"):
        _load(models)
    content[-1] ^= 1
    weights.write_bytes(content)
    whole = load_coprocessor(folder, base=base, verify=True)
    models = Models(
        base=base.id,
        revision="",
        base_fingerprint=base.fingerprint,
        coprocessor=str(folder),
        coprocessor_fingerprint=whole.fingerprint,
        dtype=torch.float32,
    )
    assert _load(models)[1].fingerprint == whole.fingerprint
