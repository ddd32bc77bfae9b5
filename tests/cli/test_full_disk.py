"""A disk that fills up under a command: one sentence, nothing half-written, and the way on."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from deliberate.core import CacheFile, load_base, save_coprocessor

FULL = "no space left on device"
ROOM = 64 << 20


@pytest.fixture
def filled(run):
    """Run a command whose disk fills up on the way; what it printed, and its last line."""

    def filled(*arguments):
        outcome = run(*arguments)
        assert outcome.code == 1, outcome
        assert "Traceback" not in outcome.err
        last = outcome.err.splitlines()[-1]
        assert last.startswith("deliberate: ")
        assert FULL in last.lower()
        return outcome.out, last

    return filled


@pytest.fixture
def many(offline) -> Path:
    """Forty texts of nearly as many tokens as the tiny base reads."""
    path = Path("many.jsonl").absolute()
    texts = [f"{number:02} " + "words " * 9 for number in range(40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def checksum(path: Path) -> str:
    """Of what a cache file holds; the order of its header is not fixed."""
    with CacheFile(path) as file:
        file.verify()
        return file.metadata["checksum"]


@pytest.fixture
def goes_on(run, filled):
    """Sees that a command names the folder that is full, keeps whole files, and goes on later."""

    def goes_on(command, folder, small):
        _, told = filled(*command, folder)
        assert str(folder) in told
        before = small.files()
        assert 4 <= len(before) < 40
        assert all(name.endswith(".st") for name in before)
        small.resize(ROOM)
        again = run(*command, folder, "--json")
        assert json.loads(again.out)["skipped"] == len(before), again.err
        after = small.files()
        assert len(after) == 40
        assert all(after[name] == kept for name, kept in before.items())

    return goes_on


def test_prefill_keeps_whole_files_and_goes_on(run, goes_on, disk, many, llama_folder):
    small = disk(256 << 10)
    command = ["prefill", "--jsonl", many, "--base", llama_folder, "--batch", 4, "-o"]
    goes_on(command, small.path / "caches", small)
    assert run(*command, "elsewhere").code == 0
    for path in Path("elsewhere").iterdir():
        assert checksum(path) == checksum(small.path / "caches" / path.name)


def test_augment_keeps_whole_files_and_goes_on(
    run, goes_on, disk, many, llama_folder, coprocessor_folder
):
    assert run("prefill", "--jsonl", many, "--base", llama_folder, "-o", "plain").code == 0
    small = disk(256 << 10)
    command = ["augment", "plain", "--coprocessor", coprocessor_folder, "--batch", 4, "-o"]
    goes_on(command, small.path / "thought", small)


@pytest.fixture
def after(make, llama_folder, offline):
    """A coprocessor whose latents stand after the text, as `export-embeds` wants them."""
    base = load_base(str(llama_folder))
    save_coprocessor(make(base, "paper"), Path("after"), base=base)
    return Path("after")


@pytest.mark.parametrize("command", ["prefill", "augment", "export-embeds"])
def test_a_disk_without_any_room_is_told_of(
    run, filled, disk, cache, after, llama_folder, many, command
):
    assert run("augment", cache, "--coprocessor", after).code == 0
    small = disk(64 << 10)
    (small.path / "earlier").write_text("kept")
    small.fill()
    before = small.files()
    made = small.path / "made"
    arguments = {
        "prefill": [["--text", "hello", "--base", llama_folder, "-o", f"{made}.st"],
                    ["--jsonl", many, "--base", llama_folder, "-o", made]],
        "augment": [[cache, "--coprocessor", after, "-o", f"{made}.st"]],
        "export-embeds": [["cache.augmented.st", "-o", f"{made}.safetensors"],
                          ["cache.augmented.st", "-o", f"{made}.pt"]],
    }  # fmt: skip
    for each in arguments[command]:
        _, told = filled(command, *each)
        assert str(made) in told
        assert small.files() == before
        assert not list(small.path.glob("*made*/*"))


@pytest.fixture
def recipe(llama_folder, offline):
    words = ["abc", "cab", "xyz.", "0123", "the", "end.\n"]
    path = Path("mine.txt").absolute()
    path.write_text(" ".join(random.Random(0).choices(words, k=3000)))
    settings = {
        "base": {"id": str(llama_folder), "dtype": "float32"},
        "data": {"train": str(path), "length": 48},
        "coprocessor": {"latents": 2},
        "objective": {"ahead": 3, "anchors": 4},
        "train": {
            "steps": 12,
            "batch": 2,
            "checkpoint_every": 1,
            "validate_every": 6,
            "keep": 20,
        },
        "eval": {"texts": 3, "anchors": 2, "ahead": 4},
    }
    recipe = Path("recipe.yaml")
    recipe.write_text(json.dumps(settings))  # which is YAML too
    return recipe


def lines_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in each.items() if name != "seconds"} for each in lines]


def test_training_keeps_its_checkpoints_and_goes_on_to_the_same_weights(run, filled, disk, recipe):
    small = disk(256 << 10)
    command = ["train", recipe, "--resume", "--output-dir"]
    _, told = filled(*command, small.path / "run")
    assert str(small.path / "run") in told
    kept = {name: file for name, file in small.files().items() if "/step-" in name}
    steps = {Path(name).parent.name for name in kept}
    assert 0 < len(steps) < 12
    assert len(kept) == 3 * len(steps)
    assert not [path for path in small.path.rglob(".*part*")]
    filled(*command, small.path / "run")
    assert {name: small.files()[name] for name in kept} == kept
    small.resize(ROOM)
    assert run(*command, small.path / "run").code == 0
    assert run(*command, "elsewhere").code == 0
    for name in ("model.safetensors", "best/model.safetensors"):
        assert (small.path / "run" / name).read_bytes() == Path("elsewhere", name).read_bytes()
    assert lines_of(small.path / "run") == lines_of(Path("elsewhere"))


def test_a_run_is_not_begun_on_a_disk_without_room(filled, disk, recipe):
    small = disk(64 << 10)
    small.fill()
    _, told = filled("train", recipe, "--output-dir", small.path / "run")
    assert str(small.path / "run") in told
    assert not small.files()
    assert not (small.path / "run").exists()


@pytest.fixture
def measure(coprocessor_folder):
    Path("held.jsonl").write_text(
        "\n".join(json.dumps({"text": "words and more words " * (2 + row)}) for row in range(5))
    )
    few = ("--ahead", 8, "--anchors", 3, "--texts", 4, "--against", "shuffled")
    return ["eval", coprocessor_folder, "--data", "held.jsonl", *few, "--json"]


def test_what_was_measured_is_shown_though_it_cannot_be_kept(run, filled, disk, measure):
    small = disk(32 << 10)
    (small.path / "earlier").write_text("kept")
    before = small.files()
    out, told = filled(*measure, "-o", small.path / "report")
    assert str(small.path / "report") in told
    shown = json.loads(out)
    assert {name: small.files()[name] for name in before} == before
    small.resize(ROOM)
    again = run(*measure, "-o", small.path / "report", "--resume")
    assert again.code == 0, again.err
    assert json.loads(again.out)["change_percent"] == shown["change_percent"]
    assert (small.path / "report/report.html").read_text().endswith("</html>")


def test_a_single_file_of_results_is_shown_likewise(run, filled, disk, measure):
    small = disk(64 << 10)
    (small.path / "result.json").write_text("earlier")
    small.fill()
    before = small.files()
    out, told = filled(*measure, "-o", small.path / "result.json", "--force")
    assert str(small.path / "result.json") in told
    assert small.files() == before
    small.empty()
    again = run(*measure, "-o", small.path / "result.json", "--force")
    assert again.out == out


def test_a_report_is_not_begun_on_a_disk_without_room(filled, disk, measure):
    small = disk(64 << 10)
    small.fill()
    out, told = filled(*measure, "-o", small.path / "report")
    assert not out
    assert str(small.path / "report") in told
    assert not (small.path / "report").exists()


@pytest.fixture
def ask(coprocessor_folder):
    """Six questions of PIQA, made up, and the command that asks them."""
    pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")
    choices = {"sol1": "a fire", "sol2": "an ice cube", "label": 0}
    things = ("hands", "tea", "soup", "milk", "feet", "rooms")
    rows = [json.dumps({"goal": f"warm {thing}"} | choices) for thing in things]
    Path("data/piqa").mkdir(parents=True)
    Path("data/piqa/validation.jsonl").write_text("\n".join(rows))
    return ["eval", coprocessor_folder, "--bench", "piqa", "--bench-data", "data", "--json", "-o"]


def test_benchmarks_are_not_begun_on_a_disk_without_room(filled, disk, ask):
    small = disk(64 << 10)
    (small.path / "there").mkdir()
    small.fill()
    for name in ("made", "there"):
        out, told = filled(*ask, small.path / name)
        assert not out
        assert str(small.path / name) in told
    assert not small.files()
    assert not (small.path / "made").exists()


def test_a_benchmark_that_cannot_be_kept_is_told_and_is_asked_again(run, filled, disk, ask):
    small = disk(64 << 10)
    (small.path / "answers").mkdir()
    with (small.path / "most").open("wb") as file:
        file.write(bytes(60 << 10))  # a page is left: enough to begin in the folder
    before = small.files()
    outcome = run(*ask, small.path / "answers")
    scored, told = outcome.err.splitlines()[-2:]
    assert outcome.code == 1
    assert scored.startswith("piqa: ")
    assert FULL in told
    assert str(small.path / "answers") in told
    assert small.files() == before
    small.resize(ROOM)
    again = run(*ask, small.path / "answers", "--resume")
    assert again.code == 0, again.err
    assert scored in again.err.splitlines()
    assert json.loads(again.out) == json.loads((small.path / "answers/bench.json").read_text())


def test_pushing_needs_no_room(hub, disk, coprocessor_folder):
    """Not where the run is, nor for what the Hub's client keeps, nor for temporary files."""
    small = disk(1 << 20)
    subprocess.run(["cp", "-r", str(coprocessor_folder), str(small.path / "run")], check=True)
    small.fill()
    before = small.files()
    full = {name: str(small.path / "home") for name in ("HF_HOME", "XDG_CACHE_HOME")}
    program = "import sys; from deliberate.cli.main import main; sys.exit(main())"
    pushed = subprocess.run(
        [sys.executable, "-c", program, "push", str(small.path / "run"), "someone/x",
         "--without-evaluation"],
        env=os.environ | hub.environment(small.path / "home") | full | {"TMPDIR": str(small.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    files = hub.repositories["someone/x"].at("main").files
    assert files["model.safetensors"] == (small.path / "run/model.safetensors").read_bytes()
    assert small.files() == before


def test_pulling_names_the_folder_that_is_full(
    filled, run, hub, disk, coprocessor_folder, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    names = ("config.json", "model.safetensors")
    hub.add("someone/x", {name: (coprocessor_folder / name).read_bytes() for name in names})
    small = disk(64 << 10)
    small.fill()
    _, told = filled("pull", "someone/x", "-o", small.path / "here")
    assert str(small.path / "here") in told
    assert not (small.path / "here").exists()
    small.resize(ROOM)
    assert run("pull", "someone/x", "-o", small.path / "here").code == 0


@pytest.mark.parametrize("room", [16 << 10, 160 << 10])
def test_no_room_for_what_is_kept_of_texts_is_told_of(run, filled, disk, recipe, monkeypatch, room):
    """Neither for the copy that `datasets` makes of them, nor for the rows of tokens."""
    texts = [f"{number} " + "some words more. " * 17 for number in range(300)]
    Path("mine.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = json.loads(recipe.read_text())
    settings["data"]["train"] = "mine.jsonl"
    recipe.write_text(json.dumps(settings))
    small = disk(room)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(small.path / "kept"))
    _, told = filled("train", recipe, "--output-dir", "run")
    assert str(small.path) in told
    assert not Path("run").exists()
    small.resize(ROOM)
    assert run("train", recipe, "--output-dir", "run").code == 0


@pytest.mark.filterwarnings("ignore:Not enough free disk space:UserWarning")
def test_no_room_for_what_comes_from_the_hub_is_told_of(
    filled, run, hub, disk, coprocessor_folder, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    names = ("config.json", "model.safetensors")
    hub.add("someone/x", {name: (coprocessor_folder / name).read_bytes() for name in names})
    small = disk(16 << 10)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(small.path / "hub"))
    filled("pull", "someone/x")
    small.resize(ROOM)
    assert run("pull", "someone/x").code == 0
