"""Claim: decoding from a cache file costs what transformers' `generate` costs.

    decode  milliseconds a forward of one token, ours from a file and theirs from memory
    think   time to the first token with 16 latents, from a plain cache, in decoded tokens

Both decode greedily after the same text, at the same batch, and must give the same tokens: that
is checked in float32, because in bfloat16 near ties depend on the shapes that are computed; the
times are of the dtype in which this machine multiplies faster.
Ours opens the files and joins them within the time; theirs is handed a cache that is ready.
The file keeps the last hidden state, so ours makes one forward less; each side's time is
divided by the forwards it makes. The base has random weights and never ends a text. What is timed
of ours, and in which turns, is what `deliberate eval --cost` times.

    python benchmarks/decode.py --repeats 5
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from random_base import chosen_dtype, random_base
from ratio import Ratio, in_turn, report
from transformers import DynamicCache

from deliberate.core import (
    Base,
    Cache,
    CacheFile,
    Trained,
    build,
    coprocessor_config,
    prefill,
    save,
)
from deliberate.eval.candidate import Candidate

DECODE_TARGET, THINK_TARGET = 1.05, 4.0
LATENTS = 16


def from_files(asked: Candidate, paths: list[Path], tokens: int) -> list[list[int]]:
    """Ours: open the files and decode from them."""
    caches = []
    for path in paths:
        with CacheFile(path) as file:
            caches.append(file.cache())
    return asked.decode(caches, tokens)


def by_transformers(base: Base, caches: list[Cache], tokens: int) -> list[list[int]]:
    """The peer: its own cache of all but the last token, and its own loop."""
    ids = torch.stack([cache.token_ids for cache in caches])
    output = base.model.generate(
        input_ids=ids[:, -1:],
        attention_mask=torch.ones_like(ids),
        past_key_values=ready(caches),
        max_new_tokens=tokens,
        do_sample=False,
    )
    return output[:, 1:].tolist()


def ready(caches: list[Cache]) -> DynamicCache:
    """What transformers goes on from: all but the last token of texts of one length."""
    joined = DynamicCache()
    for layer in range(len(caches[0].keys)):
        keys = torch.stack([cache.keys[layer][:, :-1] for cache in caches])
        values = torch.stack([cache.values[layer][:, :-1] for cache in caches])
        joined.update(keys, values, layer)
    return joined


def timed(options: argparse.Namespace, dtype: torch.dtype, *, repeats: int) -> dict[str, float]:
    """Seconds of each way, or without repeats just a check that both give the same tokens.

    Raises:
        SystemExit: they do not.
    """
    base = random_base(
        hidden=options.hidden,
        layers=options.layers,
        vocabulary=options.vocabulary,
        positions=options.text + LATENTS + options.tokens,
        dtype=dtype,
    )
    coprocessor = build(coprocessor_config(start="warm", latents=LATENTS), base)
    generator = torch.Generator().manual_seed(1)
    texts = torch.randint(options.vocabulary, (options.batch, options.text), generator=generator)
    caches = prefill(base, list(texts))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{row}.st" for row in range(options.batch)]
        for cache, path in zip(caches, paths, strict=True):
            save(cache, path)
        ours = partial(from_files, Candidate(name="base", base=base), paths, options.tokens)
        theirs = partial(by_transformers, base, caches, options.tokens)
        if not repeats:
            if ours() != theirs():
                raise SystemExit("the decoded tokens differ")
            return {}
        trained = Trained(coprocessor=coprocessor, id="untrained", fingerprint="")
        think = partial(Candidate.of("latents", base, trained).decode, caches, 1)
        runs = {"ours": ours, "transformers": theirs, "think": think}
        return in_turn(runs, repeats=repeats, device=base.device)


def main() -> None:
    """Check that the tokens agree, time in turn, print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--text", type=int, default=256, help="tokens of each text")
    parser.add_argument("--tokens", type=int, default=48, help="tokens decoded")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    options = parser.parse_args()

    dtype = chosen_dtype(options.dtype)
    timed(options, torch.float32, repeats=0)
    seconds = timed(options, dtype, repeats=options.repeats)
    token = seconds["ours"] / (options.tokens - 1)
    their_token = seconds["transformers"] / options.tokens
    first = seconds["think"]
    print(
        f"{options.layers} layers of {options.hidden}, {options.batch} x {options.text} tokens, "
        f"{dtype}"
    )
    print(f"{'ours':>14}  {token * 1e3:7.2f} ms a forward  {token / their_token:5.2f} x theirs")
    print(f"{'transformers':>14}  {their_token * 1e3:7.2f} ms a forward")
    print(
        f"{'first token':>14}  {first * 1e3:7.2f} ms after 16 latents = {first / token:.2f} tokens"
    )
    report(
        "decode",
        {
            "decode": Ratio(value=token / their_token, target=DECODE_TARGET, at_least=False),
            "think": Ratio(value=first / token, target=THINK_TARGET, at_least=False),
        },
    )


if __name__ == "__main__":
    main()
