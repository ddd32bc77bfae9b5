"""From a base, a coprocessor's name and a folder to a service.

Base, name --check_serves--> Store, Engine, Thinker over a worker --> Service
"""

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from deliberate.core import fingerprint
from deliberate.core.base import Base
from deliberate.core.checkpoint import (
    check_serves,
    find_coprocessor,
    load_coprocessor,
    read_config,
)
from deliberate.core.errors import DeliberateError
from deliberate.core.folder_lock import FolderLock
from deliberate.serve.engine import Engine
from deliberate.serve.service import Service
from deliberate.serve.settings import Settings
from deliberate.serve.store import Store
from deliberate.serve.thinker import Thinker
from deliberate.serve.vllm_engine import VllmEngine
from deliberate.serve.worker import Worker
from deliberate.serve.worker_main import Models
from deliberate.serve.worker_process import ProcessWorker
from deliberate.serve.worker_thread import ThreadWorker

Place = Literal["process", "thread", "none"]
"""Where a coprocessor works: in a process of its own, on the base's own weights, or nowhere."""


def assemble(
    base: Base,
    settings: Settings,
    *,
    folder: Path,
    coprocessor: str | None,
    place: Place,
    device: torch.device | None = None,
    lock: FolderLock | None = None,
) -> Service:
    """Open a store, and have a base and its coprocessor work on it.

    Args:
        base: Loaded, on its device.
        settings: Limits and budgets.
        folder: Of the store; made if missing.
        coprocessor: `nano`, a folder or a Hub id; none where the base is served alone.
        place: Where the coprocessor works; its latents made beforehand are served in any case.
        device: Of the coprocessor's process; the base's where none is named.
        lock: Of the store, where it was taken before.

    Raises:
        DeliberateError: there is no such coprocessor, or it serves another base, or cannot be
            served by another server.
        StoreError: the folder cannot be used, or another server uses it.
    """
    mark = "" if coprocessor is None else _fingerprint(base, coprocessor, settings)
    origin = dataclasses.replace(
        base.origin, coprocessor=coprocessor or "", coprocessor_fingerprint=mark
    )
    store = Store(
        folder,
        origin,
        dtype=base.model.dtype,
        disk_bytes=settings.disk_bytes,
        memory_bytes=settings.memory_bytes,
        lock=lock,
    )
    engine = _engine(base, settings)
    worker = _worker(base, engine, settings, coprocessor, mark, place, device or base.device)
    thinker = Thinker(store, worker, queue=settings.max_thoughts)
    return Service(base, engine, store=store, thinker=thinker, settings=settings)


def _engine(base: Base, settings: Settings) -> Engine:
    rows = max(settings.max_concurrent, settings.max_choices)
    if not settings.engine_url:
        return Engine(base, rows=rows)
    return VllmEngine(
        base,
        url=settings.engine_url,
        model=settings.engine_model or base.id,
        rows=rows,
        patience=settings.engine_seconds,
        key=settings.engine_key,
    )


def _fingerprint(base: Base, coprocessor: str, settings: Settings) -> str:
    """Identify a coprocessor that can be served so.

    Raises:
        DeliberateError: its latents cannot be told as embeddings, and another server decodes.
    """
    folder = find_coprocessor(coprocessor)
    config = read_config(folder)
    check_serves(config, base, name=coprocessor)
    if settings.engine_url and config["coprocessor"]["positions"] != "after":
        raise DeliberateError(
            f"the latents of {coprocessor!r} stand over the text (positions: over), which "
            "embeddings cannot tell a vLLM server: serve it without --engine vllm, or one with "
            "positions: after"
        )
    return fingerprint.of_coprocessor(folder, config["coprocessor"])


def _worker(
    base: Base,
    engine: Engine,
    settings: Settings,
    coprocessor: str | None,
    mark: str,
    place: Place,
    device: torch.device,
) -> Worker | None:
    if coprocessor is None:
        return None
    if place == "process":
        models = Models(
            base=base.id,
            revision=base.revision,
            base_fingerprint=base.fingerprint,
            coprocessor=coprocessor,
            coprocessor_fingerprint=mark,
            dtype=base.model.dtype,
            device=str(device),
        )
        return ProcessWorker(models, limit=settings.think_seconds)
    if place == "thread":
        trained = load_coprocessor(coprocessor, base=base, verify=True)
        return ThreadWorker(base, trained, lock=engine.lock, limit=settings.think_seconds)
    return None
