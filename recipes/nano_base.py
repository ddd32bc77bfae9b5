"""Train `nano`, the base model that ships inside the package, or a larger one on other texts.

    texts by part --byte-level BPE, rows--> Llama

`make nano` has 0.5 M parameters read Python and made problems; `make small` has 10 M read books and
arithmetic.

The Python is the source found on this machine, so another machine makes a sister and not a twin;
`corpus.json` beside the model says what was read and how often. Stopped, it goes on from its last
checkpoint; before the rate begins to fall, half-way, also for another number of steps. Measured
runs: `docs/log.md`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from nano_corpus import (
    PARTS,
    POSITIONS,
    VOCABULARY,
    Mixture,
    characters,
    pack_asked,
    sample_of,
    texts_of,
    train_tokenizer,
)
from nano_measures import MEASURED, loss_of, losses, solved
from torch.optim import Optimizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deliberate.train.muon import Muon
from deliberate.train.precision import rate_of

SEED = 17
LAYERS = 4
HIDDEN = 96

HEAD = 64
"""Numbers of a head, but for a model too small for four of them."""

SHORT = 256
"""Tokens that see one another, but for the last steps: attention then costs half as much."""

LONG_SHARE = 0.2
"""Of the steps, at the end, whose rows are whole."""

WARMUP = 50
FALL = 0.5
"""Of the steps, at the end, over which the rate falls to nothing."""

ASKED = 0.1
"""What a token of a made question counts in the loss: it is drawn by chance, and most of a
problem."""

KEEP_EVERY = 200
"""Steps between checkpoints."""

READ = 0.95
"""Of what a part's share of the steps has room for: so that every row is read, few of them twice.
The made problems are fewer and come around again."""

WATCHED = 10
"""Problems of each family and number of steps that are asked at each checkpoint."""


def main() -> None:
    """Train the tokenizer and the model, and write them to the output folder."""
    options = parsed()
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer, corpus = prepared(options)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(shape(tokenizer, layers=options.layers, hidden=options.hidden))
    mixture = Mixture(rows=corpus["train"], weights=options.mixture, seed=SEED)
    train(
        model,
        mixture,
        options,
        watch=lambda: solved(model, tokenizer, count=WATCHED, seed=1)["all"],
    )
    said = {
        "mixture": options.mixture,
        "tokens_read": options.steps * options.batch * POSITIONS,
        "tokens_there": {part: rows.numel() for part, rows in corpus["train"].items()},
        "losses": losses(model, corpus, mixture),
        "percent_solved": solved(model, tokenizer),
        "characters": corpus["characters"],
    }
    print(json.dumps({**said, "characters": {}}, indent=1))  # noqa: T201
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    (options.output / "corpus.json").write_text(json.dumps(said, indent=1) + "\n")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--work", type=Path, required=True, help="folder for rows and checkpoints")
    parser.add_argument("--mixture", type=_weights, default="stdlib=1,packages=3,problems=6")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8, help="rows of 1,024 tokens in a step")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument(
        "--source",
        type=_source,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another part: a text, a folder, JSONL; its last twentieth is held out",
    )
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--tokenizer", type=Path, help="folder of one to take; none trains it")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: needs a C++ compiler"
    )
    options = parser.parse_args()
    options.source = dict(options.source)
    if odd := options.mixture.keys() - {*PARTS, *options.source}:
        known = ", ".join([*PARTS, *options.source])
        parser.error(f"no part {min(odd)!r}: known are {known}; --source names another")
    return options


def prepared(options: argparse.Namespace) -> tuple[PreTrainedTokenizerFast, dict[str, Any]]:
    """The tokenizer, and the rows of each part; from the work folder where it has them."""
    kept = options.work / "corpus.pt"
    if kept.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.work)
        return tokenizer, torch.load(kept, weights_only=True)

    def read(part: str, split: str) -> Dataset:
        return texts_of(part, split, source=options.source.get(part)).shuffle(seed=SEED)

    texts = {part: read(part, "train") for part in options.mixture}
    tokenizer = _tokenizer(options, texts)
    whole = sum(options.mixture.values())
    need = {
        part: int(READ * options.steps * options.batch * POSITIONS * weight / whole)
        for part, weight in options.mixture.items()
    }
    corpus = {
        "train": {
            part: pack_asked(texts[part], tokenizer, most=most) for part, most in need.items()
        },
        "validation": {
            part: pack_asked(read(part, "validation"), tokenizer, most=MEASURED * POSITIONS)
            for part in need
        },
        "characters": {part: characters(texts[part]) for part in need},
    }
    tokenizer.save_pretrained(options.work)
    _save(corpus, kept)
    return tokenizer, corpus


def _tokenizer(options: argparse.Namespace, texts: dict[str, Dataset]) -> PreTrainedTokenizerFast:
    """The one that is given, or one of these texts."""
    if options.tokenizer is not None:
        return PreTrainedTokenizerFast.from_pretrained(options.tokenizer)
    sample = [text for part, some in texts.items() for text in sample_of(part, some)]
    return train_tokenizer(sample, vocabulary=options.vocabulary)


def shape(tokenizer: PreTrainedTokenizerFast, *, layers: int, hidden: int) -> LlamaConfig:
    """The model's configuration; every two heads share their keys and values."""
    heads = max(4, hidden // HEAD // 2 * 2)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=3 * hidden,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def optimizer_of(model: LlamaForCausalLM, rate: float) -> Muon:
    """Orthogonal steps for the layers' matrices, AdamW's for embeddings and norms."""
    matrices = [each for each in model.model.layers.parameters() if each.ndim == 2]
    norms = [each for each in model.parameters() if each.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1, "orthogonal": True},
        {"params": [model.get_input_embeddings().weight]},
        {"params": norms, "weight_decay": 0.0},
    ]
    return Muon(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)


def rate_at(step: int, steps: int) -> float:
    """The share of the peak rate: a rise, a plateau and a straight fall."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (FALL * steps))


def train(
    model: LlamaForCausalLM,
    mixture: Mixture,
    options: argparse.Namespace,
    *,
    watch: Callable[[], Any] = lambda: None,
) -> None:
    """Pretrain, from the last checkpoint in the work folder on.

    Args:
        model: What learns.
        mixture: What it reads.
        options: From the command line.
        watch: Says at each checkpoint what is worth to be told then.
    """
    optimizer = optimizer_of(model, options.learning_rate)
    kept = options.work / "checkpoint.pt"
    first = _resumed(model, optimizer, kept)
    run = torch.compile(model) if options.compile else model
    faster = rate_of(model.device, "bfloat16") > rate_of(model.device, "float32")
    since = time.perf_counter()
    for step in range(first, options.steps):
        long = step >= (1 - LONG_SHARE) * options.steps
        rows = mixture.batch(step * options.batch, options.batch).view(
            -1, POSITIONS if long else SHORT
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=faster):
            loss = loss_of(run, rows, asked=ASKED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _move(optimizer, options.learning_rate * rate_at(step, options.steps))
        if (step + 1) % 20 == 0:
            took, since = time.perf_counter() - since, time.perf_counter()
            said = {"step": step + 1, "loss": round(loss.item(), 4), "seconds": round(took, 1)}
            print(json.dumps(said), flush=True)  # noqa: T201
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == options.steps:
            _keep(model, optimizer, step + 1, kept)
            print(json.dumps({"step": step + 1, "watched": watch()}), flush=True)  # noqa: T201


def _move(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def _weights(said: str) -> dict[str, float]:
    """Of each part, from `stdlib=1,packages=3`."""
    found = dict(each.split("=") for each in said.split(","))
    return {name: float(weight) for name, weight in found.items()}


def _source(said: str) -> tuple[str, str]:
    """Name and path, from `books=texts/books`.

    Raises:
        argparse.ArgumentTypeError: it is not of that form, or the name is taken.
    """
    name, equals, path = said.partition("=")
    if not equals or name in PARTS:
        raise argparse.ArgumentTypeError(f"must be NAME=PATH with a new name, got {said!r}")
    return name, path


def _resumed(model: LlamaForCausalLM, optimizer: Optimizer, kept: Path) -> int:
    """Take up a checkpoint; the step to go on with."""
    if not kept.exists():
        return 0
    state = torch.load(kept, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _keep(model: LlamaForCausalLM, optimizer: Optimizer, step: int, kept: Path) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    _save(state, kept)


def _save(content: dict[str, Any], path: Path) -> None:
    """Write a file that is whole under its name, however this ends."""
    new = path.with_suffix(".new")
    torch.save(content, new)
    new.replace(path)


if __name__ == "__main__":
    main()
