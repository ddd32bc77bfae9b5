"""Measure a bigger base beside the base: its perplexity at the very same anchors, paired.

held-out texts --base, bigger base--> losses by token ahead --bootstrap--> change
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from deliberate.core.atomic import write_bytes
from deliberate.core.base import Base, load_base
from deliberate.core.errors import DeliberateError
from deliberate.core.losses import Losses
from deliberate.core.measure import AHEAD_REPORTED, measure
from deliberate.core.passages import passages
from deliberate.core.texts import documents
from deliberate.eval.bootstrap import changes, resampled_unit

AHEAD = 32


def main() -> None:
    """Measure, and write one JSON object of the keys that `deliberate eval` has."""
    options = parsed()
    base, bigger = load_base(options.base), load_base(options.bigger)
    result = compared(base, bigger, options)
    write_bytes(options.output, (json.dumps(result, indent=1) + "\n").encode())


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("bigger")
    parser.add_argument("--data", required=True)
    parser.add_argument("--texts", type=int, required=True)
    parser.add_argument("--anchors", type=int, required=True)
    parser.add_argument("--length", type=int, required=True, help="most tokens in a passage")
    parser.add_argument("--against", choices=["none"], default="none")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--force", action="store_true", help="write over a file")
    return parser.parse_args()


def compared(base: Base, bigger: Base, options: argparse.Namespace) -> dict[str, object]:
    """The change of perplexity from the base to the bigger one, by token ahead.

    Raises:
        DeliberateError: they do not have the same tokens.
    """
    if base.tokenizer.get_vocab() != bigger.tokenizer.get_vocab():
        raise DeliberateError(
            f"{bigger.id!r} has other tokens than {base.id!r}, so that their perplexities are not "
            "of the same: train it with --tokenizer"
        )
    texts = documents(options.data, split="validation")
    least = AHEAD + 2
    chosen = passages(
        texts, base.tokenizer, length=options.length, least=least, limit=options.texts
    )
    found = {
        name: measure(model, {}, chosen, anchors=options.anchors, ahead=AHEAD)
        for name, model in (("base", base), ("latents", bigger))
    }
    sums = {name: losses.sums["base"] for name, losses in found.items()}
    first = found["base"]
    losses = Losses(
        sums=sums, counts=first.counts, documents=first.documents, partners=first.partners
    )
    change = changes(losses, "latents")
    tokens = [token for token in AHEAD_REPORTED if token <= AHEAD]
    return {
        "perplexity": {
            name: {str(token): losses.perplexity(name)[token - 1] for token in tokens}
            for name in sums
        },
        "change_percent": {"latents": {str(token): asdict(change[token - 1]) for token in tokens}},
        "anchors": int(losses.anchors.sum()),
        "passages": len(chosen),
        "documents": len(losses.documents.unique()),
        "resampled": resampled_unit(losses),
        "data": options.data,
        "seed": 0,
        "parameters": {"base": base.num_parameters, "latents": bigger.num_parameters},
        "setting": {"kind": "base"},
        "fingerprints": {"base": base.fingerprint, "latents": bigger.fingerprint},
    }


if __name__ == "__main__":
    main()
