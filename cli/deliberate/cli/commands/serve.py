"""`deliberate serve`: a base with its coprocessor behind a port."""

import dataclasses
import ipaddress
import os
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import engine_options, options
from deliberate.cli.devices import check_device
from deliberate.cli.dry_run import bytes_of
from deliberate.cli.eval_names import EMBEDDED_RUNS
from deliberate.cli.failures import configuring
from deliberate.cli.models import (
    base_fingerprint,
    chosen_device,
    chosen_dtype,
    load_base,
    patient_bars,
)
from deliberate.cli.places import check_there
from deliberate.cli.terminal import note

if TYPE_CHECKING:
    from socket import socket

    import torch

    from deliberate.serve.settings import Settings


class ThinkerPlace(StrEnum):
    """Where the coprocessor works."""

    PROCESS = "process"
    THREAD = "thread"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the models are."""

    thinker: ThinkerPlace
    device: "torch.device"
    thinker_device: "torch.device | None"


def serve(
    *,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="NAME",
            help="The frozen model: `nano`, a folder or a Hub id.",
            show_default="the one that the coprocessor names",
        ),
    ] = None,
    coprocessor: Annotated[
        str | None,
        typer.Option(
            "--coprocessor",
            metavar="NAME",
            help="Writes the latents: `nano`, a folder or a Hub id.",
            show_default="nano, for nano",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="What requests call the model.", show_default="the base's own name"
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen at; 0 takes a free one.")] = (
        8000
    ),
    api_key: Annotated[
        str,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="DELIBERATE_API_KEY",
            show_envvar=True,
            help="What requests must bring; better in the environment, where nobody sees it.",
        ),
    ] = "",
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Folder of cache files.",
            show_default="in the user's cache folder",
        ),
    ] = None,
    disk_budget: Annotated[
        str, typer.Option("--disk-budget", metavar="SIZE", help="Most that caches take on disk.")
    ] = "10GB",
    memory_budget: Annotated[
        str, typer.Option("--memory-budget", metavar="SIZE", help="Most of them kept in memory.")
    ] = "1GB",
    thinker: Annotated[
        ThinkerPlace,
        typer.Option(
            "--thinker",
            help="Where the coprocessor works: a process that may die, a thread that shares the "
            "base's weights, or nowhere.",
        ),
    ] = ThinkerPlace.PROCESS,
    thinker_device: Annotated[
        str | None,
        typer.Option(
            "--thinker-device",
            metavar="DEVICE",
            help="Where the coprocessor's process computes.",
            show_default="the base's",
        ),
    ] = None,
    think_limit: Annotated[
        float, typer.Option("--think-limit", metavar="S", help="Seconds it may take for a text.")
    ] = 60.0,
    gate: Annotated[
        float,
        typer.Option(
            "--gate",
            metavar="NATS",
            help="Ask for latents only where the next token's entropy is at least this.",
            show_default="always ask",
        ),
    ] = 0.0,
    wait_limit: Annotated[
        float,
        typer.Option("--wait-limit", metavar="S", help='Seconds that "deliberate": "wait" waits.'),
    ] = 30.0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds that a request may take.")
    ] = 300.0,
    drain: Annotated[
        float,
        typer.Option("--drain", metavar="S", help="Seconds to finish what runs, once stopped."),
    ] = 30.0,
    max_concurrent: Annotated[
        int, typer.Option("--max-concurrent", metavar="N", help="Requests answered at once.")
    ] = 16,
    max_queue: Annotated[
        int, typer.Option("--max-queue", metavar="N", help="Requests that wait for their turn.")
    ] = 64,
    max_thoughts: Annotated[
        int,
        typer.Option("--max-thoughts", metavar="N", help="Texts that wait for the coprocessor."),
    ] = 256,
    max_body: Annotated[
        str, typer.Option("--max-body", metavar="SIZE", help="Size of the largest request.")
    ] = "4MB",
    engine: engine_options.Engine = engine_options.EngineKind.OWN,
    engine_url: engine_options.Url = "",
    engine_model: engine_options.Model = "",
    engine_key: engine_options.Key = "",
    engine_timeout: engine_options.Timeout = 60.0,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
) -> None:
    """Answer OpenAI's requests over HTTP, with latents as they get ready.

    Without arguments the embedded model is served at http://127.0.0.1:8000, which shows a page to
    try it. An answer begins at once; a coprocessor thinks over its prompt in the background, and
    if it fails or is not there, the base answers alone. Ctrl-C or SIGTERM finishes what runs.
    """
    engine_options.check(engine, engine_url)
    _require_extra()
    from deliberate.serve.settings import Settings

    with configuring():
        settings = Settings(
            name=name or "model",
            host=host,
            port=port,
            api_key=api_key,
            gate=gate,
            wait_seconds=wait_limit,
            think_seconds=think_limit,
            timeout_seconds=timeout,
            drain_seconds=drain,
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            max_thoughts=max_thoughts,
            max_body_bytes=bytes_of(max_body),
            disk_bytes=bytes_of(disk_budget),
            engine_url=engine_url,
            engine_model=engine_model,
            engine_key=engine_key,
            engine_seconds=engine_timeout,
            memory_bytes=bytes_of(memory_budget),
        )
    coprocessor = _of_base(coprocessor, base, thinker)
    _check_names(base, coprocessor)
    _check_thinker_device(thinker_device, thinker)
    from deliberate.serve.listening import listen

    with listen(settings.host, settings.port) as listening:  # before torch is imported
        places = _Places(
            thinker=thinker,
            device=chosen_device(device),
            thinker_device=None
            if thinker_device is None
            else chosen_device(thinker_device, hint="--thinker-device"),
        )
        _serve(settings, listening, base, coprocessor, store, places, dtype, named=name)


def _serve(
    settings: "Settings",
    listening: "socket",
    base: str | None,
    coprocessor: str | None,
    store: Path | None,
    places: _Places,
    dtype: options.Dtype | None,
    *,
    named: str | None,
) -> None:
    """Load what is served, and serve it until it is told to stop."""
    from deliberate.core.atomic import check_writable
    from deliberate.serve.assembly import assemble
    from deliberate.serve.logs import to_stderr
    from deliberate.serve.run import run
    from deliberate.serve.store_lock import lock_store

    if store is not None:
        check_writable(store)
    base, origin = _origin(base, coprocessor)
    folder = store or _default_store(base_fingerprint(base, **origin))
    with lock_store(folder) as lock:  # before the base is loaded
        numbers = chosen_dtype(dtype, places.device)
        loaded = load_base(base, dtype=numbers, device=places.device, **origin)
        settings = dataclasses.replace(settings, name=named or Path(loaded.id).name)
        with patient_bars():
            service = assemble(
                loaded,
                settings,
                folder=folder,
                coprocessor=coprocessor,
                place=places.thinker.value,
                device=places.thinker_device,
                lock=lock,
            )
        to_stderr()
        host, port = listening.getsockname()[:2]
        if not settings.api_key and not ipaddress.ip_address(host).is_loopback:
            note("anyone who reaches this address may use it: set DELIBERATE_API_KEY")
        shown = f"[{host}]" if ":" in host else host
        said = (
            f"{settings.name} is served at http://{shown}:{port} (a page to try it, and /v1 for "
            f"OpenAI's clients); caches are kept in {folder}; Ctrl-C ends"
        )
        run(service, listening, on_ready=lambda: note(said))


def _of_base(coprocessor: str | None, base: str | None, thinker: ThinkerPlace) -> str | None:
    """The coprocessor's name; none where the base is served alone.

    Raises:
        typer.BadParameter: nobody can know which one serves this base.
    """
    if coprocessor is not None:
        return coprocessor
    if base in {None, options.EMBEDDED}:
        return options.EMBEDDED
    if thinker is not ThinkerPlace.NONE:
        raise typer.BadParameter(
            f"which coprocessor serves {base!r}? Name it with --coprocessor, or serve the base "
            "alone with --thinker none"
        )
    return None


def _check_names(base: str | None, coprocessor: str | None) -> None:
    """See that the models may be found.

    Raises:
        OSError: one of them is neither here nor can it be on the Hub.
    """
    if base is not None:
        check_there(base, what="base model", bare=True)
    if coprocessor is not None and coprocessor not in EMBEDDED_RUNS:
        check_there(coprocessor, what="coprocessor")


def _check_thinker_device(name: str | None, thinker: ThinkerPlace) -> None:
    """See that the device of the coprocessor's process may be one.

    Raises:
        typer.BadParameter: no machine has such a device, or there is no such process.
    """
    if name is None:
        return
    if thinker is not ThinkerPlace.PROCESS:
        raise typer.BadParameter(
            f"--thinker-device {name} is a process's and --thinker is {thinker.value}: leave it out"
        )
    try:
        check_device(name)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint="--thinker-device") from error


def _origin(name: str | None, coprocessor: str | None) -> tuple[str, dict[str, str]]:
    """The base's name, or the one that the coprocessor names, and which of its revisions."""
    from deliberate.core.checkpoint import find_coprocessor, read_config

    if name is not None:
        return name, {}
    assert coprocessor is not None
    stated = read_config(find_coprocessor(coprocessor))["base"]
    return stated["id"], {"revision": stated["revision"], "named_by": coprocessor}


def _default_store(fingerprint: str) -> Path:
    """A folder for this base's caches, beside what else is kept for the user."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "deliberate" / "caches" / fingerprint


def _require_extra() -> None:
    """See that the packages that serving needs are installed, before anything is loaded.

    Raises:
        DeliberateError: one of them is not.
    """
    missing = [
        module
        for module in ("deliberate.serve", "fastapi", "uvicorn", "prometheus_client")
        if find_spec(module) is None
    ]
    if missing:
        from deliberate.core.errors import DeliberateError

        raise DeliberateError(
            f"serving needs {', '.join(missing)}, which is not installed: install the wheel of "
            "deliberate-serve that was built beside this one, or packages/serve of the checkout"
        )
