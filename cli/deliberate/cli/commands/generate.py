"""`deliberate generate`: text from a prompt, a cache file, or a cache file and a prompt."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import base_for, placed
from deliberate.cli.failures import configuring
from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    import torch

    from deliberate.core.base import Base
    from deliberate.core.cache import Cache
    from deliberate.core.checkpoint import Trained
    from deliberate.core.generate import Generation


def generate(
    cache: Annotated[
        Path | None,
        typer.Argument(
            metavar="CACHE", help="A cache file, with or without latents.", show_default=False
        ),
    ] = None,
    *,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="A text; after a cache, what follows it.")
    ] = None,
    latents: Annotated[
        bool, typer.Option(help="Decode with latents, or from the text alone.")
    ] = True,
    every: Annotated[
        int | None,
        typer.Option(
            "--every", metavar="K", help="Ask for latents again each K tokens.", show_default="once"
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="N", help="The most to decode.")
    ] = 64,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 takes the likeliest token.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Sample from this much probability.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Ends the decoding; may be repeated."),
    ] = None,
    seed: options.Seed = 0,
    stream: Annotated[bool, typer.Option(help="Show text as it comes, or at the end.")] = True,
    coprocessor: options.ImpliedCoprocessorName = None,
    base: options.ImpliedBaseName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    as_json: options.AsJson = False,
) -> None:
    """Decode text from a prompt or a cache file.

    A --prompt with a cache file goes on from the cache's text. The coprocessor is asked for
    latents once, after all of it; a cache that has latents keeps those, and the prompt follows
    them. With --no-latents the base decodes from the text alone.
    """
    _check_use(cache, prompt, every, latents=latents)
    from deliberate.cli.models import chosen_device
    from deliberate.core.generate import Sampling
    from deliberate.core.generate import generate as decode

    with configuring():
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=tuple(stop or ()),
            seed=seed,
            every=every,
        )
    place = chosen_device(device)
    if cache is None:
        model, start = _read_prompt(prompt or "", base, coprocessor, dtype, place)
    else:
        model, start = _read_cache(cache, prompt, base, dtype, place, latents=latents)
    trained = _asked(start, model, coprocessor, every=every) if latents else None
    streaming = stream and not as_json
    began = time.perf_counter()
    [done] = decode(
        model,
        [start],
        sampling,
        coprocessor=None if trained is None else trained.coprocessor,
        on_text=(lambda _, text: typer.echo(text, nl=False)) if streaming else None,
    )
    seconds = time.perf_counter() - began
    result = _report(done, start, model, trained, seconds)
    if as_json:
        emit(result)
    else:
        typer.echo("" if streaming else done.text)
        note(
            "{generated_tokens} tokens after {text_tokens} and {latents} latents, "
            "{tokens_per_second:.1f} tokens/s, ended by {finish}".format(**result)
        )


def _check_use(cache: Path | None, prompt: str | None, every: int | None, *, latents: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        typer.BadParameter: says which.
    """
    if cache is None and prompt is None:
        raise typer.BadParameter("give a cache file, --prompt, or both")
    if every is not None and not latents:
        raise typer.BadParameter("--every asks for latents: leave out --no-latents")


def _read_prompt(
    prompt: str,
    base: str | None,
    coprocessor: str | None,
    dtype: options.Dtype | None,
    device: "torch.device",
) -> "tuple[Base, Cache]":
    """The base, which the coprocessor names if the user does not, and its cache of the prompt."""
    from deliberate.cli.models import chosen_dtype, load_base
    from deliberate.core.augment import prefill, tokenize
    from deliberate.core.checkpoint import find_coprocessor, read_config

    origin = {}
    if base is None and coprocessor is not None:
        stated = read_config(find_coprocessor(coprocessor))["base"]
        base = stated["id"]
        origin = {"revision": stated["revision"], "named_by": coprocessor}
    loaded = load_base(
        base or options.EMBEDDED, dtype=chosen_dtype(dtype, device), device=device, **origin
    )
    return loaded, prefill(loaded, [tokenize(loaded, prompt)])[0]


def _read_cache(
    path: Path,
    prompt: str | None,
    base: str | None,
    dtype: options.Dtype | None,
    device: "torch.device",
    *,
    latents: bool,
) -> "tuple[Base, Cache]":
    """The base that made a cache file, and the cache with the prompt read after it."""
    from deliberate.cli.models import chosen_dtype
    from deliberate.core.augment import extend, tokenize
    from deliberate.core.cache_file import CacheFile

    asked = None if dtype is None else chosen_dtype(dtype, device)
    with CacheFile(path) as file:
        file.verify()
        loaded = base_for(file, base, device=device, dtype=asked)
        cache = placed(file.cache(), loaded.device)
    if not latents:
        cache = cache.text_part()
    if prompt is not None:
        cache = extend(loaded, cache, tokenize(loaded, prompt, further=True))
    return loaded, cache


def _asked(
    start: "Cache", base: "Base", coprocessor: str | None, *, every: int | None
) -> "Trained | None":
    """The coprocessor that will be asked for latents, if any will be."""
    from deliberate.cli.models import load_coprocessor

    if start.latents is None or every is not None:
        return load_coprocessor(coprocessor or start.origin.coprocessor or options.EMBEDDED, base)
    if coprocessor is not None:
        note(f"the cache has latents by {start.origin.coprocessor!r}: {coprocessor!r} is not asked")
    return None


def _report(
    done: "Generation", start: "Cache", base: "Base", trained: "Trained | None", seconds: float
) -> dict[str, Any]:
    if start.latents is not None:
        latents, coprocessor = len(start.latents), start.origin.coprocessor
    elif trained is not None:
        latents, coprocessor = trained.coprocessor.config.latents, trained.id
    else:
        latents, coprocessor = 0, None
    return {
        "text": done.text,
        "finish": done.finish,
        "text_tokens": len(start.token_ids),
        "latents": latents,
        "generated_tokens": len(done.token_ids),
        "seconds": seconds,
        "tokens_per_second": len(done.token_ids) / seconds,
        "base": base.id,
        "coprocessor": coprocessor,
    }
