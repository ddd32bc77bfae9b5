"""`deliberate export-embeds`: an augmented cache as input embeddings, for other programs."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.cache_files import base_for, check_output, placed
from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    import torch

    from deliberate.core.cache_file import CacheFile

SAFE, PICKLED = ".safetensors", ".pt"


def export_embeds(
    cache: Annotated[
        Path, typer.Argument(metavar="CACHE", help="An augmented cache file.", show_default=False)
    ],
    *,
    output: options.Output = None,
    unscaled: Annotated[
        bool,
        typer.Option(
            "--unscaled",
            help="For a program that multiplies what it is given by the scale of the embedding "
            "layer, as vLLM before 0.18 does for Gemma 1 and 2.",
        ),
    ] = False,
    base: options.ImpliedBaseName = None,
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the embeddings of a text and its latents, as a frozen model takes them elsewhere.

    `cache.st` becomes `cache.safetensors`, with one tensor `prompt_embeds` of a row for each token
    and each latent. A name with .pt is written by torch.save, as vLLM's `prompt_embeds` are.

    Read from the first position on, they give what decoding from the cache gives, where the
    coprocessor's latents stand after the text (`positions: after`); others are refused.
    """
    from deliberate.cli.models import chosen_device
    from deliberate.core.cache_file import CacheFile
    from deliberate.core.embeds import embedding_scale, input_embeds

    output = _checked(output or cache.with_suffix(SAFE), cache, force=force)
    with CacheFile(cache) as file:
        file.verify()
        _check_latents(file, cache)
        model = base_for(file, base, device=chosen_device(device))
        held = placed(file.cache(), model.device)
    embeds = input_embeds(model, held, unscaled=unscaled).cpu().contiguous()
    described = {
        "format": "deliberate.embeds",
        "version": "1",
        "base": model.id,
        "base_fingerprint": model.fingerprint,
        "coprocessor": held.origin.coprocessor,
        "coprocessor_fingerprint": held.origin.coprocessor_fingerprint,
        "divided_by": f"{embedding_scale(model) if unscaled else 1.0:g}",
    }
    _write(embeds, output, described)
    result = {
        "output": str(output),
        "tokens": len(held.token_ids),
        "latents": len(embeds) - len(held.token_ids),
        "hidden": embeds.shape[1],
        "dtype": str(embeds.dtype).removeprefix("torch."),
        **{key: described[key] for key in ("base", "coprocessor", "divided_by")},
    }
    note("{tokens} tokens and {latents} latents for {base!r}, {dtype}".format(**result))
    emit(result) if as_json else typer.echo(output)


def _checked(output: Path, cache: Path, *, force: bool) -> Path:
    """Where to write.

    Raises:
        typer.BadParameter: its name says no format.
    """
    if output.suffix not in {SAFE, PICKLED}:
        raise typer.BadParameter(
            f"{str(output)!r} says no format: name it {SAFE}, or {PICKLED} for torch.save",
            param_hint="--output",
        )
    check_output(output, force=force, sources=[cache] if cache.exists() else [])
    return output


def _check_latents(file: "CacheFile", path: Path) -> None:
    """Refuse a plain cache before a base is loaded.

    Raises:
        CacheError: it has no latents.
    """
    from deliberate.core.errors import CacheError

    if not file.num_latents:
        raise CacheError(
            f"{str(path)!r} has no latents: write them with `deliberate augment {path}`"
        )


def _write(embeds: "torch.Tensor", output: Path, described: dict[str, str]) -> None:
    """Write the tensor whole, in the format that the name says."""
    import torch
    from safetensors.torch import save_file

    from deliberate.core.atomic import replacing, write_bytes

    if output.suffix == SAFE:
        with replacing(output) as temporary:
            save_file({"prompt_embeds": embeds}, temporary, metadata=described)
    else:
        content = io.BytesIO()  # of a full disk torch.save tells in words of its own
        torch.save(embeds.clone(), content)
        write_bytes(output, content.getvalue())
