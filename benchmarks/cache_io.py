"""Claim: saving and loading a cache costs no more than raw safetensors with the same safety.

The peer writes the same tensors with `safetensors`, over them computes the same SHA-256 as
our `checksum`, flushes the file to disk and renames it. Both loads read every byte, since
mapping a file alone reads nothing. Beside it: one layer of a file against all of them.

    python benchmarks/cache_io.py --repeats 7

`large` is the cache of 2,048 tokens in a model of Gemma 2 2B's shape, `small` that of 512
tokens in one of SmolLM2 135M's.
"""

import argparse
import hashlib
import json
import mmap
import os
import tempfile
from functools import partial
from pathlib import Path

import torch
from ratio import Ratio, in_turn, report
from safetensors.torch import load_file, save_file
from torch import Tensor

from deliberate.core import Cache, CacheFile, save

TARGET = 1.10
SIZES = {
    "small": {"layers": 30, "heads": 3, "tokens": 512, "width": 64},
    "large": {"layers": 26, "heads": 4, "tokens": 2048, "width": 256},
}
MORE_TURNS = {"save small": 5, "load small": 20, "load large": 3}


def random_cache(*, layers: int, heads: int, tokens: int, width: int) -> Cache:
    """A plain cache of bf16 keys and values."""

    def layer() -> Tensor:
        return torch.randn(heads, tokens, width, dtype=torch.bfloat16)

    return Cache(
        keys=[layer() for _ in range(layers)],
        values=[layer() for _ in range(layers)],
        token_ids=torch.arange(tokens),
        position_ids=torch.arange(tokens),
        last_hidden=torch.randn(heads * width, dtype=torch.bfloat16),
    )


def raw_tensors(cache: Cache) -> dict[str, Tensor]:
    """The cache's tensors by name."""
    layers = zip(cache.keys, cache.values, strict=True)
    pairs = {
        f"layers.{index}.{part}": tensor
        for index, pair in enumerate(layers)
        for part, tensor in zip(("keys", "values"), pair, strict=True)
    }
    names = ("token_ids", "position_ids", "last_hidden")
    return {**pairs, **{name: getattr(cache, name) for name in names}}


def raw_save(tensors: dict[str, Tensor], path: Path) -> None:
    """The peer: checksum, write, flush, rename."""
    metadata = {"format": "raw"}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    metadata["checksum"] = digest.hexdigest()
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata=metadata)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def touch(tensors: list[Tensor]) -> None:
    """Read a number of every memory page, so that every byte comes in from the file."""
    for tensor in tensors:
        tensor.view(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()


def load(path: Path) -> None:
    """Ours: open, check the header, and read the whole cache."""
    with CacheFile(path) as file:
        cache = file.cache()
    touch([*cache.keys, *cache.values])


def raw_load(path: Path) -> None:
    """The peer: map the file and read every tensor."""
    touch(list(load_file(path).values()))


def one_layer(path: Path) -> None:
    """Ours: open, check the header, and read the keys and values of one layer."""
    with CacheFile(path) as file:
        middle = file.num_layers // 2
        touch([file.tensor(f"layers.{middle}.{part}") for part in ("keys", "values")])


def resident(path: Path) -> int:
    """Bytes of a file that this process has in memory through its mappings (Linux)."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0]:
            ours = fields[-1] == str(path)
        elif ours and fields[0] == "Rss:":
            found += int(fields[1]) * 1024
    return found


def open_only(path: Path) -> None:
    """Ours: open and check the header."""
    with CacheFile(path):
        pass


def show_one_layer(path: Path, repeats: int) -> None:
    """Print time and bytes of opening a file, and of reading one layer or all of them."""
    runs = {"opening": open_only, "one layer": one_layer, "all layers": load}
    seconds = in_turn({name: partial(run, path) for name, run in runs.items()}, repeats=repeats)
    touched = {"all layers": path.stat().st_size}
    with CacheFile(path) as file:
        touched["opening"] = resident(path)
        kept = [file.tensor(f"layers.{file.num_layers // 2}.{part}") for part in ("keys", "values")]
        touch(kept)
        touched["one layer"] = resident(path)
    for name, each in seconds.items():
        print(f"{name:>18}  {each * 1e3:9.2f} ms  {touched[name] / 1e6:9.2f} MB mapped in")


def main() -> None:
    """Time both sides in turn, print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()

    ratios = {}
    print(f"{'':>18}  {'ours, ms':>9}  {'peer, ms':>9}  {'ratio':>5}  target")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in options.sizes:
            torch.manual_seed(0)
            cache = random_cache(**SIZES[size])
            tensors = raw_tensors(cache)
            ours, peer = Path(folder) / f"{size}.st", Path(folder) / f"{size}.safetensors"
            saves = {"ours": partial(save, cache, ours), "peer": partial(raw_save, tensors, peer)}
            loads = {"ours": partial(load, ours), "peer": partial(raw_load, peer)}
            for what, runs in {"save": saves, "load": loads}.items():
                # What is done in a moment needs more turns for the same certainty.
                repeats = options.repeats * MORE_TURNS.get(f"{what} {size}", 1)
                # Else a save would also wait for the disk to finish the one before it.
                seconds = in_turn(runs, repeats=repeats, before=os.sync)
                value = seconds["ours"] / seconds["peer"]
                ratios[f"{what} {size}"] = Ratio(value=value, target=TARGET, at_least=False)
                print(
                    f"{f'{what} {size}':>18}  {seconds['ours'] * 1e3:9.2f}  "
                    f"{seconds['peer'] * 1e3:9.2f}  {value:5.2f}  <= {TARGET}"
                )
        print(f"\nof the {options.sizes[-1]} file:")
        show_one_layer(ours, options.repeats)
    report("cache_io", ratios)


if __name__ == "__main__":
    main()
