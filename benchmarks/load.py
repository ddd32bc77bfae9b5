"""Claim: under load no request fails but by 429, no answer is wrong, and memory stays flat.

    load    200 clients for 60 s: plain, streamed, after a named cache, of new texts that the
            coprocessor thinks about meanwhile, and clients that leave in the middle of a stream
    memory  10,000 answers to the same mixture, 16 clients: how far the server's resident memory
            rises from the 2,000th answer to the last, each the median of a tenth of all answers

`deliberate serve` runs in a process of its own on `nano`, in float32. Every greedy answer is
compared with the one that `core` gives without a server, token by token; tokens as likely but for
1e-4 are excepted, and so is what was decoded after late latents were taken up. The store's budgets
are small, so that caches are evicted all the time. Times are those of the clients, which share the
processor with the server.

    python benchmarks/load.py
    python benchmarks/load.py --quick
"""

import argparse
import statistics
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx2
from crowd import Asks, Crowd, Heard
from offline import Offline
from ratio import Ratio, report
from served import Served, served

from deliberate.core import load_base, load_coprocessor

GROWTH_TARGET = 20.0
"""MB. Latents, keys and values of one text are 0.3 MB: what is kept of each would show."""

DOCUMENTS, DOCUMENT, PROMPTS = 4, 1200, 60
"""Texts in the store, their characters, and prompts that are asked again and again."""

BUDGETS = ("--memory-budget", "20MB", "--disk-budget", "60MB")
WORK = ("requests_running", "requests_waiting", "engine_running", "engine_waiting")
PATIENCE = 20.0
"""Seconds until the server has noticed that the last clients have left."""

SHOWN = 5
"""Failures that are printed."""


def texts() -> tuple[list[str], list[str]]:
    """Documents and prompts of many lengths, from what Python brings; none begins another."""
    documents = [
        Path(argparse.__file__).read_text()[at * DOCUMENT :][:DOCUMENT] for at in range(DOCUMENTS)
    ]
    source = Path(textwrap.__file__).read_text()
    prompts = [source[at * 130 :][: 40 + at * 97 % 700] for at in range(PROMPTS)]
    return documents, prompts


def stored(url: str, documents: Sequence[str]) -> dict[str, str]:
    """Ids of caches, by their text, once they have latents."""
    found = {}
    for document in documents:
        body = {"text": document, "deliberate": "wait"}
        response = httpx2.post(f"{url}/v1/caches", json=body, timeout=300, trust_env=False)
        assert response.json()["state"] == "augmented", response.text
        found[document] = response.json()["id"]
    return found


def load(server: Served, asks: Asks, options: argparse.Namespace) -> list[Heard]:
    """What many clients hear at once; prints how much and how soon."""
    crowd = Crowd(server.url, tokens=options.tokens, on_answer=lambda _: None)
    seconds = crowd.run(asks, clients=options.clients, seconds=options.seconds)
    answers, asked = crowd.statuses[200], crowd.statuses.total()
    print(f"{options.clients} clients asked {asked} times in {seconds:.0f} s:")
    print(f"{answers / seconds:12.1f} answers a second")
    print(f"{crowd.statuses[429] / asked:12.1%} of all requests told to come again (429)")
    firsts = [heard.first for heard in crowd.heard if heard.first is not None]
    if len(firsts) > 1:
        *_, p95 = statistics.quantiles(firsts, n=20)
        print(f"{statistics.median(firsts):12.3f} s to the first token of a stream (median)")
        print(f"{p95:12.3f} s (95 % of them)")
    return crowd.heard


def memory(server: Served, asks: Asks, options: argparse.Namespace) -> tuple[list[Heard], float]:
    """What clients hear of many answers, and MB by which the server's memory rose meanwhile."""
    every, resident = max(1, options.answers // 200), list[float]()

    def on_answer(count: int) -> None:
        if count % every == 0:
            resident.append(server.resident() / 1e6)

    crowd = Crowd(server.url, tokens=options.memory_tokens, on_answer=on_answer)
    crowd.run(asks, clients=options.memory_clients, answers=options.answers)
    tenth, settled = max(1, len(resident) // 10), len(resident) * options.settled // options.answers
    before = statistics.median(resident[settled : settled + tenth])
    after = statistics.median(resident[-tenth:])
    print(f"{crowd.statuses[200]} answers, {options.memory_clients} clients: resident memory of")
    print(f"{resident[0]:12.1f} MB at first")
    print(f"{before:12.1f} MB after {options.settled} answers")
    print(f"{after:12.1f} MB at the end; {max(resident):.1f} MB at most")
    return crowd.heard, after - before


def checked(heard: Sequence[Heard], tokens: int) -> Counter[str]:
    """How many answers are what they should be; prints why, where one is not."""
    base = load_base()
    offline = Offline(base, load_coprocessor("nano", base=base), tokens=tokens)
    found: Counter[str] = Counter()
    for each in heard:
        if each.status == 429:
            continue
        found[each.ask.kind] += 1
        wrong = each.error or (f"status {each.status}" if each.status != 200 else "")
        verdict = offline.compare(each) if not wrong else "failed"
        kind = verdict if verdict in {"same", "tie", "failed"} else "wrong"
        found[kind] += 1
        found["late"] += each.latents == "late"
        if kind in {"failed", "wrong"} and found["failed"] + found["wrong"] <= SHOWN:
            print(f"{each.ask.kind}: {wrong or verdict}")
    return found


def left_over(server: Served) -> list[str]:
    """What a server that nobody asks should not have: work, errors in its log, a bad end."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and any(map(server.metrics().__getitem__, WORK)):
        time.sleep(0.1)
    metrics = server.metrics()
    found = [f"{name} is {metrics[name]:g}" for name in WORK if metrics[name]]
    if code := server.stop():
        found.append(f"it ended with code {code}")
    return found + server.errors()


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a server, compare its answers, and print the table and the line.

    Raises:
        SystemExit: an answer failed, is wrong or is lost, or the server did not end well.
    """
    options = _options(arguments)
    documents, prompts = texts()
    place = "thread" if options.quick else "process"
    chosen = ("--dtype", "float32", "--wait-limit", "300", "--thinker", place, *BUDGETS)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), *chosen) as server:
        caches = stored(server.url, documents)
        under_load = load(server, Asks(prompts, caches, tokens=options.tokens, seed=1), options)
        further = Asks(prompts, caches, tokens=options.memory_tokens, seed=2)
        then, growth = memory(server, further, options)
        left = left_over(server)
    found = checked(under_load, options.tokens) + checked(then, options.memory_tokens)
    print(", ".join(f"{name} {count}" for name, count in found.items()))
    for line in left[:SHOWN]:
        print(line)
    report(
        "load",
        {
            "failed": Ratio(value=found["failed"], target=0, at_least=False),
            "wrong": Ratio(value=found["wrong"], target=0, at_least=False),
            "left over": Ratio(value=len(left), target=0, at_least=False),
            "growth": Ratio(value=growth, target=GROWTH_TARGET, at_least=False),
        },
    )
    if found["failed"] or found["wrong"] or left:
        raise SystemExit(1)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    quick = parser.parse_known_args(arguments)[0].quick

    def number(name: str, full: int, small: int, text: str) -> None:
        parser.add_argument(name, type=int, default=small if quick else full, help=text)

    number("--clients", 200, 8, "that ask at once")
    number("--seconds", 60, 2, "that they ask for")
    number("--tokens", 24, 8, "decoded of each answer")
    number("--answers", 10_000, 60, "while memory is watched")
    number("--settled", 2_000, 20, "answers after which memory should not rise")
    number("--memory-clients", 16, 4, "meanwhile")
    number("--memory-tokens", 8, 4, "decoded of each answer meanwhile")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
