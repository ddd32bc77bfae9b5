"""Claim: answers from the engine cost what transformers' `generate` costs, and less together.

    alone     time a token at batch 1, the engine's and transformers'
    together  tokens a second of 8 answers asked for at once, and one after the other
    first     time to the first token after an augmented cache of 2,000 tokens and a question of 16,
              and after reading the 2,000 tokens and the question

Everything is greedy in float32 and must give the same tokens whichever way it comes. The first two
are taken on `nano`, the third on a base of random weights, for which `nano` has too few positions.
Ways take turns, and a ratio is the median of those of each turn: on a busy machine the times mean
little by themselves.

    python benchmarks/serve.py --repeats 7
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import torch
from random_base import random_base
from ratio import Ratio, report

from deliberate.core import (
    Base,
    Cache,
    Sampling,
    augment,
    build,
    coprocessor_config,
    load_base,
    prefill,
)
from deliberate.serve.engine import Engine, Piece, Request

ALONE_TARGET, TOGETHER_TARGET, FIRST_TARGET = 1.05, 3.0, 10.0
TOGETHER, LATENTS, QUESTION = 8, 16, 16


def ask(engine: Engine, requests: list[Request]) -> list[list[int]]:
    """Ask for answers, all at once, and wait for the last."""
    answers: list[list[int]] = [[] for _ in requests]
    ended = threading.Semaphore(0)

    def told(answer: list[int]) -> Callable[[Piece], None]:
        def tell(piece: Piece) -> None:
            answer.extend(token.id for token in piece.tokens)
            if piece.finish is not None:
                ended.release()

        return tell

    for request, answer in zip(requests, answers, strict=True):
        engine.submit(request, told(answer))
    for _ in requests:
        ended.acquire()
    return answers


def by_transformers(base: Base, token_ids: torch.Tensor, tokens: int) -> list[list[int]]:
    """The peer, which has no other requests to look after."""
    output = base.model.generate(
        input_ids=token_ids[None],
        attention_mask=torch.ones_like(token_ids)[None],
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return [output[0, len(token_ids) :].tolist()]


def in_turn(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, turn by turn, after one turn that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """The median over turns."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def decoding(tokens: int, text: int, repeats: int) -> dict[str, list[float]]:
    """Seconds a token of `nano`: transformers', ours alone, one by one and together.

    Raises:
        SystemExit: the tokens differ.
    """
    base = load_base()
    end, base.model.generation_config.eos_token_id = base.tokenizer.eos_token_id, base.vocab
    generator = torch.Generator().manual_seed(1)
    # Of one length, as transformers' would have to be too.
    texts = torch.randint(end + 1, base.vocab, (TOGETHER, text), generator=generator)
    requests = [Request(token_ids=one, sampling=Sampling(max_tokens=tokens)) for one in texts]
    engine = Engine(base)

    def alone() -> list[list[int]]:
        return ask(engine, requests[:1])

    def theirs() -> list[list[int]]:
        return by_transformers(base, texts[0], tokens)

    def one_by_one() -> list[list[int]]:
        return [ask(engine, [request])[0] for request in requests]

    def together() -> list[list[int]]:
        return ask(engine, requests)

    if alone() != theirs() or one_by_one() != together():
        raise SystemExit("the decoded tokens differ")
    ways = {"transformers": theirs, "alone": alone}
    seconds = in_turn(ways, repeats)
    seconds |= in_turn({"one by one": one_by_one, "together": together}, max(1, repeats // 2))
    engine.close(0.0)
    return {
        name: [
            each / tokens / (TOGETHER if name in {"one by one", "together"} else 1) for each in s
        ]
        for name, s in seconds.items()
    }


def first_token(text: int, hidden: int, layers: int, repeats: int) -> dict[str, list[float]]:
    """Seconds to the first token, with an augmented cache and without any."""
    base = random_base(
        hidden=hidden,
        layers=layers,
        vocabulary=4096,
        positions=text + LATENTS + QUESTION + 1,
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(2)
    token_ids = torch.randint(4096, (text + QUESTION,), generator=generator)
    coprocessor = build(coprocessor_config(start="warm", latents=LATENTS), base)
    cache: Cache = augment(base, coprocessor, prefill(base, [token_ids[:text]]))[0]
    engine, sampling = Engine(base), Sampling(max_tokens=1)
    cached = Request(token_ids=token_ids[text:], cache=cache, sampling=sampling)
    whole = Request(token_ids=token_ids, sampling=sampling)
    seconds = in_turn(
        {"cached": lambda: ask(engine, [cached]), "prefilled": lambda: ask(engine, [whole])},
        repeats,
    )
    engine.close(0.0)
    return seconds


def main() -> None:
    """Check that the tokens agree, time in turn, print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--text", type=int, default=64, help="tokens of each text of nano")
    parser.add_argument("--tokens", type=int, default=128, help="tokens decoded of each answer")
    parser.add_argument("--prefix", type=int, default=2000, help="tokens of the cached text")
    parser.add_argument("--hidden", type=int, default=256, help="of the base that reads it")
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()

    token = decoding(options.tokens, options.text, options.repeats)
    first = first_token(options.prefix, options.hidden, options.layers, options.repeats)
    ratios = {
        "alone": Ratio(
            value=ratio(token["alone"], token["transformers"]), target=ALONE_TARGET, at_least=False
        ),
        "together": Ratio(
            value=ratio(token["one by one"], token["together"]),
            target=TOGETHER_TARGET,
            at_least=True,
        ),
        "first": Ratio(
            value=ratio(first["prefilled"], first["cached"]), target=FIRST_TARGET, at_least=True
        ),
    }
    for name, seconds in token.items():
        print(f"{name:>14}  {statistics.median(seconds) * 1e3:8.2f} ms a token")
    for name, seconds in first.items():
        print(f"{name:>14}  {statistics.median(seconds) * 1e3:8.2f} ms to the first token")
    print(f"medians of {options.repeats} turns; {torch.get_num_threads()} threads")
    report("serve", ratios)


if __name__ == "__main__":
    main()
