"""Two processes train what one does, resume exactly, and stop together."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from deliberate.core.checkpoint import read_config
from deliberate.core.errors import CheckpointError, DeliberateError
from deliberate.train import train
from deliberate.train.checkpoint import found
from deliberate.train.data import check_shares
from deliberate.train.recipe import dump

# One start of two processes, which takes seconds, for all that is asked of them.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.train import Elsewhere, Interrupted, load_recipe, saving, spike, train

torch.distributed.init_process_group("gloo")
folder = Path(sys.argv[1])
first = os.environ["RANK"] == "0"
told = {}

def chosen(name, *changes):
    return load_recipe(folder / f"{name}.yaml", changes=changes)

def stop(progress):
    if progress.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)

for name in ("full", "soft", "lora", "pairs", "adapted"):
    train(chosen(name), folder / f"two-{name}", trackers=["tensorboard"])
try:
    train(chosen("full"), folder / "parts", on_progress=stop)  # the first process alone is told
except Interrupted as error:
    told["first"] = str(error)
except Elsewhere as error:
    told["other"] = str(error)
train(chosen("full"), folder / "parts", resume=True)

live = ["data.streaming=true", f"data.train={folder / 'shards'}"]
train(chosen("full", *live), folder / "live")
try:
    train(chosen("full", *live), folder / "live-parts", on_progress=stop)
except (Interrupted, Elsewhere):
    pass
train(chosen("full", *live), folder / "live-parts", resume=True)
short = folder / "short.jsonl"  # one text, for the first process alone
try:
    train(chosen("full", "data.streaming=true", f"data.train={short}"), folder / "short")
except Exception as error:
    told["short"] = f"{type(error).__name__}: {error}"

def full_disk(*arguments, **settings):
    raise OSError("No space left on device")

plain = saving.save_checkpoint
saving.save_checkpoint = full_disk
try:
    train(chosen("full"), folder / "full-disk")
except (OSError, Elsewhere) as error:
    told["disk"] = f"{type(error).__name__}: {error}"
saving.save_checkpoint = plain

plain, calls = Coprocessor.losses, []
spike.LEAST = 3

def jump(*arguments, **settings):
    losses = plain(*arguments, **settings)
    if torch.is_grad_enabled():
        calls.append(1)
    # In the other process alone, two batches a step: the first one sees the mean.
    return losses + 9 if len(calls) > 2 * 5 and not first else losses

Coprocessor.losses = jump
try:
    train(chosen("full", "train.validate_every=100"), folder / "spike")
except (Elsewhere, DeliberateError) as error:
    told["spike"] = f"{type(error).__name__}: {error}"
Coprocessor.losses = plain
for name, changes in (("odd", ["train.batch=3"]), ("nowhere", ["data.train=nowhere.txt"])):
    try:
        train(chosen("full", *changes), folder / name)
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
torch.distributed.destroy_process_group()
(folder / f"told-{os.environ['RANK']}.json").write_text(json.dumps(told))
"""
KINDS = ("full", "soft", "lora")
PAIRS = ("pairs", "adapted")


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_stop_together(recipe, corpus, tmp_path):
    for kind in KINDS:
        # Accumulation, so that the exchange of gradients is put off and then made.
        chosen = recipe(
            f"coprocessor.kind={kind}", "train.accumulate=2", f"data.validation={corpus}"
        )
        (tmp_path / f"{kind}.yaml").write_text(dump(chosen))
        train(chosen, tmp_path / f"one-{kind}")
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(3):  # no multiple of the processes: each one reads every other text
        rows = [{"text": f"{shard} {number} abc" * 9} for number in range(50)]
        (shards / f"{shard}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "short.jsonl").write_text(json.dumps({"text": "abc " * 100}))
    # Answers of very different lengths: a mean of the processes' means would be another.
    rows = [{"q": f"no {n}", "a": "abc " * (1 + 7 * (n % 2))} for n in range(50)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = [f"data.train={source}", "data.question=q", "data.answer=a", "data.length=50"]
    columns += ["objective.ahead=12", "train.accumulate=2"]
    begun = [f"train.init={tmp_path / 'one-full'}", "train.adapt_rank=2", "train.steps=4"]
    for name, changes in zip(PAIRS, ([], begun), strict=True):
        chosen = recipe(*columns, *changes)
        (tmp_path / f"{name}.yaml").write_text(dump(chosen))
        train(chosen, tmp_path / f"one-{name}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-9000:-1500]

    for kind in KINDS + PAIRS:
        assert losses(tmp_path / f"two-{kind}") == pytest.approx(
            losses(tmp_path / f"one-{kind}"), abs=1e-5
        )
        one = load_file(tmp_path / f"one-{kind}/model.safetensors")
        two = load_file(tmp_path / f"two-{kind}/model.safetensors")
        for name, weight in one.items():
            torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=0)

    for uninterrupted, resumed in (("two-full", "parts"), ("live", "live-parts")):
        assert losses(tmp_path / resumed) == losses(tmp_path / uninterrupted)
        whole = load_file(tmp_path / uninterrupted / "model.safetensors")
        parts = load_file(tmp_path / resumed / "model.safetensors")
        assert all(torch.equal(whole[name], parts[name]) for name in whole)

    first, other = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1))
    assert "stopped after step 5 of 8" in first["first"]
    assert "stopped after step 5 of 8" in other["other"]
    assert first["disk"].startswith("OSError: ")
    assert other["disk"].startswith("Elsewhere: ")
    assert first["spike"].startswith("DeliberateError: the loss of step 6 is ")
    assert other["spike"].startswith("Elsewhere: ")
    assert len(losses(tmp_path / "spike")) == 5
    for kind in KINDS:  # of the first process alone
        assert len(list((tmp_path / f"two-{kind}/tensorboard").iterdir())) == 1
        kept = [
            read_config(tmp_path / f"{n}-{kind}/best")["recipe"]["reached"] for n in ("one", "two")
        ]
        assert kept[0]["step"] == kept[1]["step"]
    assert "train.batch is 3 and there are 2 processes" in first["odd"]
    assert first["nowhere"].startswith("TextError: ")
    assert other["nowhere"].startswith("Elsewhere: ")
    assert not (tmp_path / "nowhere").exists()
    assert "has not one row" in first["short"]  # which the other one found
    assert other["short"].startswith("Elsewhere: ")
    assert not (tmp_path / "short").exists()

    # By another number of processes a run is not resumed, and nothing is lost.
    last = found(tmp_path / "parts/checkpoints")[-1]
    again = recipe("train.accumulate=2", f"data.validation={corpus}")
    with pytest.raises(CheckpointError, match=r"written by 2 processes .*torchrun --nproc"):
        train(again, tmp_path / "parts", resume=True)
    assert found(tmp_path / "parts/checkpoints")[-1] == last


def test_a_batch_that_does_not_divide_is_refused(recipe):
    with pytest.raises(DeliberateError, match="multiple of 3"):
        check_shares(recipe("train.batch=4"), 3)
