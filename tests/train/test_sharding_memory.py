"""What two processes that share the weights hold at the peak of a step is what was said."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import dataclasses, gc, json, sys, weakref
import torch
from tokenizers import Tokenizer, models
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from deliberate.core.base import Base
from deliberate.core.groups import sample_anchors
from deliberate.core.kinds import build
from deliberate.train import load_recipe
from deliberate.train.objective import Objective
from deliberate.train.plan import plan
from deliberate.train.processes import joined
from deliberate.train.sharding import shard, share_of

# Wide layers and few tokens: here it is the weights that are gathered which show.
LLAMA = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

class Live(TorchDispatchMode):
    # Sharding empties storages and fills them again, so their sizes are asked anew each time.
    def __init__(self, before):
        super().__init__()
        self.before, self.alive, self.most = before, {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = share_of(tensor).untyped_storage()
                key = storage._cdata
                if key not in self.before and key not in self.alive:
                    forget = lambda _, key=key: self.alive.pop(key, None)
                    self.alive[key] = weakref.ref(storage, forget)
        storages = [reference() for reference in list(self.alive.values())]
        self.most = max(self.most, sum(each.nbytes() for each in storages if each is not None))
        return result

def step(dtype, recompute, processes):
    changes = ["data.length=64", "coprocessor.latents=2", "coprocessor.start=paper"]
    changes += ["objective.ahead=2", "objective.anchors=4", "train.batch=2", "train.shard=full"]
    recipe = load_recipe(None, changes=[*changes, f"train.recompute={recompute}"])
    carried = {"id": "some/body", "dtype": dtype, "architecture": {"model_type": "llama", **LLAMA}}
    recipe = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, **carried))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA)).to(getattr(torch, dtype))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"": 0})))
    base = Base(model=model, tokenizer=tokenizer, id="some/body")
    coprocessor = build(recipe.coprocessor, base).float()
    coprocessor.execution = recipe.train.execution
    objective = Objective(coprocessor, base, recipe)
    token_ids = torch.randint(512, (1, 64))
    anchors = sample_anchors(1, anchors=4, last=60, generator=torch.Generator().manual_seed(1))
    sharded = shard(base, coprocessor, recipe, processes)
    sharded(lambda: objective(token_ids, anchors)).backward()
    gc.collect()
    weights = [*base.model.parameters(), *coprocessor.parameters()]
    held = [share_of(t) for w in weights for t in (w, w.grad) if t is not None]
    with Live({tensor.untyped_storage()._cdata for tensor in held}) as live:
        sharded(lambda: objective(token_ids, anchors)).backward()
    said = plan(recipe, devices=processes.count).memory
    parts = ("gathered weights", "text keys and values", "activations")
    return [live.most, sum(said[part] for part in parts), said["gathered weights"]]

found = []
with joined("cpu") as processes:
    for dtype, recompute in (("float32", "false"), ("bfloat16", "true")):
        found.append(step(dtype, recompute, processes))
    if processes.first:
        open(sys.argv[1], "w").write(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_at_the_peak_of_a_shared_step_is_what_was_said(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "found.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-9000:-1500]
    for most, said, gathered in json.loads((tmp_path / "found.json").read_text()):
        # Most often 0.89 to 1.14; on a busy machine a layer's weights may be freed later.
        assert 0.85 * said < most < 1.35 * said
        assert gathered > 0.8 * said  # so it is this part that is proved
