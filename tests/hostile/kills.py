"""The commands that are killed, again and again, until their work is done.

`make torture` runs it; `killing.py` is the loop.
"""

import argparse
import json
import random
import struct
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from killing import Command, begin, finish, torture
from watch import snapshot


def without_times(value: Any) -> Any:
    """JSON without what no two runs have alike."""
    if isinstance(value, dict):
        times = ("seconds", "finished", "made", "checksum")
        return {key: without_times(each) for key, each in value.items() if key not in times}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def of_run(folder: Path) -> dict[str, Any]:
    """A run's weights to the last bit, and what it says of itself."""
    result: dict[str, Any] = {"files": sorted(snapshot(folder))}
    for name in ("model.safetensors", "best/model.safetensors", "recipe.yaml"):
        result[name] = (folder / name).read_bytes()
    for name in ("config.json", "best/config.json"):
        result[name] = without_times(json.loads((folder / name).read_text()))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return result | {"metrics": [without_times(json.loads(line)) for line in lines]}


def of_caches(folder: Path) -> dict[str, Any]:
    """Each cache file's header and numbers; the order within the header is not fixed."""
    found = {}
    for path in sorted(folder.glob("*.st")):
        content = path.read_bytes()
        [size] = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        numbers = {
            name: content[8 + size :][slice(*part["data_offsets"])]
            for name, part in header.items()
            if name != "__metadata__"
        }
        found[path.name] = header["__metadata__"], numbers
    return found


def of_report(folder: Path) -> dict[str, Any]:
    """What a report has measured, and its files."""
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    tasks.pop("cost")  # nothing but times
    return {"files": sorted(snapshot(folder)), **without_times(tasks)}


def commands(work: Path, hub: Any, names: list[str]) -> dict[str, Command]:
    """The commands that are killed, on nano, and what they need beforehand."""
    rng = random.Random(0)
    words = ["def", "return", "value", "list", "import", "(x)", "=", "0.5", "\n"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(20, 90))) for _ in range(160)]
    rows, text = work / "rows.jsonl", work / "texts.txt"
    rows.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    text.write_text("\n".join(texts))
    caches = ["prefill", "--jsonl", str(rows), "--batch", "4", "-o"]
    recipe = {
        "base": {"id": "nano", "dtype": "float32"},
        "data": {"train": str(text), "length": 64},
        "coprocessor": {"latents": 2},
        "objective": {"ahead": 4, "anchors": 8},
        "train": {
            "steps": 40,
            "batch": 2,
            "keep": 2,
            "checkpoint_every": 3,
            "validate_every": 5,
        },
        "eval": {"texts": 4, "anchors": 4, "ahead": 4},
    }
    settings = work / "recipe.yaml"
    settings.write_text(json.dumps(recipe))  # which is YAML too
    report = (
        "eval nano --suite quick --repeats 1 --prompt-tokens 32 --decoded-tokens 4 --texts 16 "
        "--anchors 4 --length 64 --problems symbols --steps 1-2 --count 4 --delay 0 "
        "--against shuffled,zero --resume -o"
    )
    home = {"HF_HOME": str(work / "home"), "XDG_CACHE_HOME": str(work / "hashes")}
    if "augment" in names:
        made = Command([*caches, str(work / "plain")], work / "plain", of_caches, home)
        finish(begin(made))
    known = {
        "train": Command(
            ["train", str(settings), "--output-dir", str(work / "run"), "--resume"],
            work / "run",
            of_run,
            home,
        ),
        "prefill": Command([*caches, str(work / "caches")], work / "caches", of_caches, home),
        "augment": Command(
            ["augment", str(work / "plain"), "--batch", "4", "-o", str(work / "augmented")],
            work / "augmented",
            of_caches,
            home,
        ),
        "eval": Command([*report.split(), str(work / "report")], work / "report", of_report, home),
    }
    if "push" in names:
        known["push"] = Command(
            ["push", "nano", "someone/nano", "--without-evaluation"],
            work / "nothing",
            lambda _: dict(hub.repositories["someone/nano"].at("main").files),
            home | hub.environment(work / "home") | {"HF_HUB_OFFLINE": "0"},
            signs=lambda: len(hub.requests),
            reset=hub.forget,
        )
    return {name: known[name] for name in names}


def main() -> int:
    """Kill commands, and print a line for each; 1 where a result differs or a file was partial."""
    names = ["train", "prefill", "augment", "eval", "push"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", default=names, metavar="COMMAND")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--forked", action="store_true", help="Fork from a process that has torch imported."
    )
    asked = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "stand_ins"))
    from forked import Forks
    from hub_answers import hub_stand_in

    failed = False
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(hub_stand_in())
        for name, command in commands(work, hub, asked.commands).items():
            began = time.monotonic()
            if asked.forked:
                command.forks = stack.enter_context(Forks(command.surroundings()))
            tally = torture(command, kills=asked.kills, seed=asked.seed)
            print(f"{name}: {tally}; {time.monotonic() - began:,.0f} s", flush=True)  # noqa: T201
            for odd in [*tally.differences, *tally.partial]:
                print(f"  {odd}", flush=True)  # noqa: T201
            failed |= bool(tally.differences or tally.partial)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
