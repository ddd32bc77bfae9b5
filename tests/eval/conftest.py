"""What tests of measuring share: a tiny base that reads long prompts, made-up results."""

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from experiments import Experiments, load
from transformers import AutoConfig, AutoModelForCausalLM

from deliberate.core.base import Base

LONG = 2048
SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"


@pytest.fixture(scope="session")
def long_llama(llama: Base) -> Base:
    """The tiny Llama, of positions enough for a prompt with examples."""
    torch.manual_seed(3)
    settings = {**llama.model.config.to_dict(), "max_position_embeddings": LONG}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    return dataclasses.replace(llama, model=model, id="long-llama")


@pytest.fixture
def fresh(llama: Base) -> Callable[[], Base]:
    """Makes a copy of the tiny Llama, for what puts low-rank weights into it."""
    return lambda: dataclasses.replace(llama, model=copy.deepcopy(llama.model))


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of benchmarks' files, where there is one beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("there are no files of benchmarks beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def experiments() -> Experiments:
    """What `make results` declares."""
    return load()


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of a benchmark as a JSONL file, in the folder that is returned."""
    import json

    def write(name: str, *rows: dict) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return tmp_path / "data"

    return write


LADDER = ("1", "2", "4", "8", "16", "32")
RUNS = {"runs/4": 4, "runs/8": 8}


def interval(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def perplexity_result(latents: int) -> dict:
    """What `Report.to_dict` gives, made up."""
    base = {token: 11.0 - number / 10 for number, token in enumerate(LADDER)}
    heights = {"latents": -1.5, "shuffled": 31.0, "shuffled_but_last": 2.0, "zero": 1400.0}
    rows = {
        name: {
            token: interval(height / 2**number, abs(height) / 9)
            for number, token in enumerate(LADDER)
        }
        for name, height in heights.items()
    }
    ways = {
        "perplexity": {
            "base": base,
            **{
                name: {token: base[token] * (1 + row[token]["value"] / 100) for token in row}
                for name, row in rows.items()
            },
        },
        "change_percent": rows,
        "latents_against": {name: rows["latents"] for name in rows if name != "latents"},
    }
    counts = {"anchors": 640, "passages": 40, "documents": 24, "resampled": "document"}
    return {
        **ways,
        **counts,
        "delay": 0,
        "delays": {"0": ways, "2": ways},
        "domains": {"books": {**ways, **counts}, "news": {**ways, **counts, "documents": 6}},
        "setting": {"kind": "full", "latents": latents},
        "shuffled_from": "document",
        "gate": gate_result(),
        "examples": {"helped": [example_result(4.0)], "hurt": [example_result(0.25)]},
    }


def gate_result() -> dict:
    """A gate that keeps 90 % of the gain with half of the calls."""
    curve = [
        {
            "threshold": 4 - n,
            "calls_percent": 25.0 * n,
            "gain_percent": 100 - 100 * (1 - n / 4) ** 3,
        }
        for n in range(5)
    ]
    kept = {
        "share_percent": 90,
        "threshold": 1.7,
        "calls_percent": interval(50.0, 4.0),
        "gain_percent": interval(89.0, 5.0),
        "chosen_on": 20,
        "checked_on": 20,
    }
    found = {"gain_nats": 0.015, "curve": curve, "kept": kept}
    return {
        "signal": "entropy",
        "unit": "nats",
        "tokens": {"1": found, "all": {**found, "kept": None}},
    }


def example_result(times: float) -> dict:
    """A place where each token became so many times as probable."""
    tokens = [
        {"text": text, "base": 0.2, "latents": min(1.0, 0.2 * times)}
        for text in ("def", " f", "\n")
    ]
    return {
        "document": 3,
        "domain": "code",
        "before": "class Reader:\n    ",
        "gain_nats": 3 * math.log(times),
        "tokens": tokens,
    }


def problems_result(boost: float) -> dict:
    """What `Accuracy.to_dict` gives, made up; with chains of thought as `Chained` gives them."""
    more = {"base": 0.0, "latents": boost, "shuffled": 1.0, "every:4": boost + 1}
    more |= {"cot": 2.0, "cot:64": 18.0, "cot:latency": 9.0}
    latency = {"latents_seconds": 0.0105, "token_seconds": 0.001}
    chains = {
        name: {
            "most_tokens": tokens,
            "question_cue": "Step by step. ",
            "cue": "\n",
            "answer_cue": "So",
            "decoded_tokens": tokens / 2,
            "extra_tokens": tokens / 2 + 3,
            "tried": {"\n": 2, "\nLet's think step by step.": 1},
            "tried_on": 4,
            **({"latency": latency} if name == "cot:latency" else {}),
        }
        for name, tokens in (("cot", 4), ("cot:64", 64), ("cot:latency", 11))
    }

    def cell(problems: int, steps: float) -> dict:
        shares = {name: 80 - 10 * steps + each for name, each in more.items()}

        def apart(first: str, second: str) -> dict:
            tested = {"gained": 9, "lost": 3, "p": 0.14, "exact": True}
            return {**interval(shares[second] - shares[first], 2.0), **tested}

        others = [name for name in more if name not in {"base", "latents"}]
        return {
            "problems": problems,
            "percent": {name: interval(each, 5.0) for name, each in shares.items()},
            "against_base": {name: apart("base", name) for name in more if name != "base"},
            "latents_against": {name: apart(name, "latents") for name in others},
        }

    steps = {str(number): cell(50, number) for number in (1, 2, 3)}
    return {
        "total": cell(300, 2),
        "families": {family: {"all": cell(150, 2), **steps} for family in ("symbols", "words")},
        "problems": 300,
        "chains": chains,
        "setting": {"kind": "full", "latents": 4},
    }


def median(value: float) -> dict[str, float]:
    return {"median": value, "low": 0.9 * value, "high": 1.1 * value}


def thought_seconds(tokens: int) -> float:
    """Until the base answers after so many tokens of its own; not linear."""
    return 0.004 + 0.001 * tokens + 1e-5 * tokens**2


def cost_result() -> dict:
    """What latents cost, made up."""
    alone = {
        "name": "base",
        "run": None,
        "kind": None,
        "latents": 0,
        "parameters": {"total": 1000, "trained": 0},
        "extra_flops": 0,
        "first_token_seconds": median(0.02),
        "first_token_cached_seconds": median(0.004),
        "extra_seconds": median(0.0),
        "tokens_per_second": median(240.0),
        "peak_bytes": 4096,
        "cache_bytes": 2048,
        "latents_bytes": 0,
    }
    rows = [
        {
            **alone,
            "name": "latents",
            "run": name,
            "kind": "full",
            "latents": count,
            "extra_seconds": median(0.004 + count / 1000),
        }
        for name, count in RUNS.items()
    ]
    return {
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "prompt_tokens": 256,
        "decoded_tokens": 64,
        "repeats": 9,
        "rows": [alone, *rows],
        "by_latents": [
            {"latents": n, "first_token_cached_seconds": median(0.008 + n / 1000)}
            for n in (0, 4, 8, 16, 32, 64)
        ],
        "chain_of_thought": [
            {"tokens": n, "first_token_cached_seconds": median(thought_seconds(n))}
            for n in (4, 8, 16, 32, 64)
        ],
    }


def bench_result() -> dict:
    """What two benchmarks gave, made up."""
    one = {"shots": 0, "score": "acc", "questions": 100, "base": 40.0, "latents": 48.0}
    tested = {"difference": 8.0, "gained": 12, "lost": 4, "p": 0.04, "exact": True}
    return {
        "settings": {},
        "sets": {"piqa": {**one, **tested}, "boolq": {**one, **tested, "p": 0.7}},
        "left_out": {"mbpp": "its answers are programs"},
    }


@pytest.fixture(scope="session")
def whole_results() -> dict:
    """A whole document of two runs with every task, as `results.json` holds it, made up."""
    tasks = {
        "perplexity": [perplexity_result(latents) for latents in RUNS.values()],
        "problems": [problems_result(boost) for boost in (3.0, 6.0)],
        "cost": cost_result(),
        "bench": bench_result(),
    }
    return {
        "format": "deliberate-results",
        "version": 1,
        "made": {
            "deliberate": "0.1.0",
            "torch": "2",
            "transformers": "5",
            "python": "3.11",
            "machine": "2 x Some CPU",
            "command": "deliberate eval runs/4 runs/8 -o report/",
            "commit": None,
        },
        "base": {"id": "tiny", "fingerprint": "0123456789abcdef", "parameters": 1000},
        "runs": [
            {
                "name": name,
                "id": name,
                "fingerprint": f"fedcba987654321{latents}",
                "kind": "full",
                "latents": latents,
                "setting": {"kind": "full", "latents": latents},
                "parameters": 900,
            }
            for name, latents in RUNS.items()
        ],
        "tasks": {
            name: {
                "settings": {"seed": 0},
                "finished": "2026-11-26T01:00:00Z",
                "seconds": 61.5,
                "result": result,
            }
            for name, result in tasks.items()
        },
    }


@pytest.fixture
def made_results(whole_results: dict) -> dict:
    """The same, to be changed."""
    return copy.deepcopy(whole_results)


@pytest.fixture
def alone(made_results: dict) -> dict:
    """The same of its first run alone."""
    first = made_results
    first["runs"] = first["runs"][:1]
    for name in ("perplexity", "problems"):
        first["tasks"][name]["result"] = first["tasks"][name]["result"][:1]
    first["tasks"]["cost"]["result"]["rows"] = first["tasks"]["cost"]["result"]["rows"][:2]
    return first
