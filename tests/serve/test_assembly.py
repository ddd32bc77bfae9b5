"""A service is put together as its options say."""

import pytest
import torch

from deliberate.core import load_base, save_coprocessor
from deliberate.serve import assembly
from deliberate.serve.settings import Settings


@pytest.mark.parametrize("device", [None, torch.device("meta")])
def test_the_coprocessor_s_process_computes_on_the_device_that_is_named(
    llama_folder, make, tmp_path, monkeypatch, device
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    base, made = load_base(str(llama_folder)), []
    save_coprocessor(make(base, "warm"), tmp_path / "coprocessor", base=base)
    monkeypatch.setattr(assembly, "ProcessWorker", lambda models, **_: made.append(models))
    assembly.assemble(
        base,
        Settings(),
        folder=tmp_path / "store",
        coprocessor=str(tmp_path / "coprocessor"),
        place="process",
        device=device,
    ).close()
    [models] = made
    assert models.device == ("cpu" if device is None else "meta")
