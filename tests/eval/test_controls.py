"""Each control against one forward over the text, the changed latents and what follows."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError
from deliberate.core.groups import ahead_positions, latent_positions
from deliberate.core.measure import Condition, measure
from deliberate.core.passages import Passage
from deliberate.eval import Sample, evaluate
from deliberate.eval.controls import CONTROLS, Random

TEXTS = [list(range(2, 16)), list(range(40, 54))]
AHEAD, SEED = 4, 7


def trained(coprocessor):
    return Trained(coprocessor=coprocessor.requires_grad_(False), id="tiny", fingerprint="f")


@torch.no_grad()
def slow_loss(base, token_ids, anchor, latents, positions, *, ahead=AHEAD):
    """Losses on the tokens after an anchor, from the model itself on one long sequence."""
    text = torch.tensor([token_ids[: anchor + 1]])
    following = torch.tensor([token_ids[anchor + 1 : anchor + 1 + ahead]])
    where = torch.tensor([[anchor]])
    count = len(latents)
    position_ids = torch.cat(
        [
            torch.arange(anchor + 1)[None],
            latent_positions(where, latents=count, positions=positions)[0],
            ahead_positions(where, latents=count, ahead=ahead - 1, positions=positions)[0],
        ],
        dim=-1,
    )
    embeds = base.model.get_input_embeddings()
    fed = torch.cat([embeds(text), latents[None], embeds(following[:, :-1])], dim=1)
    logits = base.model(inputs_embeds=fed, position_ids=position_ids).logits[0, -ahead:]
    return cross_entropy(logits, following[0], reduction="none")


def by_hand(name, right, other, drawn):
    """The control's latents, said once more."""
    if name == "shuffled":
        return other
    if name == "shuffled_but_last":
        return torch.stack([other[0], other[1], right[2]])
    if name == "zero":
        return right * 0
    if name == "reversed":
        return torch.stack([right[2], right[1], right[0]])
    lengths = (right**2).sum(-1).sqrt() / (drawn**2).sum(-1).sqrt()
    return drawn * lengths[:, None]


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_is_one_forward_with_the_changed_latents(llama, start, make, name):
    writer = make(llama, start)
    chosen = [Passage(document=number, token_ids=ids) for number, ids in enumerate(TEXTS)]
    conditions = {"control": Condition(writer=writer, change=CONTROLS[name](SEED))}
    measured = measure(llama, conditions, chosen, anchors=None, ahead=AHEAD)
    count = len(TEXTS[0]) - AHEAD
    drawn = torch.randn(2, count, 3, 16, generator=torch.Generator().manual_seed(SEED))
    for row, token_ids in enumerate(TEXTS):
        slow = torch.zeros(AHEAD)
        for anchor in range(count):
            with torch.no_grad():
                right, other = (
                    writer(llama.read(torch.tensor([ids])), torch.tensor([[anchor]]))[0, 0]
                    for ids in (token_ids, TEXTS[1 - row])
                )
            latents = by_hand(name, right, other, drawn[row, anchor])
            slow += slow_loss(llama, token_ids, anchor, latents, writer.config.positions)
        sums = measured.sums["control"][row].float() / count
        torch.testing.assert_close(sums, slow / count, atol=2e-5, rtol=2e-5)


def test_random_latents_are_as_long_and_the_same_for_a_seed():
    latents, partners = torch.randn(2, 5, 3, 16), torch.tensor([1, 0])
    first, second = Random(3), Random(3)
    drawn = first(latents, partners)
    torch.testing.assert_close(drawn.norm(dim=-1), latents.norm(dim=-1))
    assert torch.equal(drawn, second(latents, partners))
    assert not torch.equal(drawn, first(latents, partners))
    assert not torch.equal(drawn, Random(4)(latents, partners))


@pytest.fixture
def corpus(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.txt").write_text("some words of a text " * (2 + index))
    return str(tmp_path)


def test_named_controls_and_both_baselines_are_measured_and_compared(llama, make, corpus):
    report = evaluate(
        llama,
        trained(make(llama, "warm")),
        soft=trained(make(llama, "warm", kind="soft")),
        pause=trained(make(llama, "warm", kind="pause")),
        controls=list(CONTROLS),
        data=corpus,
        sample=Sample(length=40, ahead=8, anchors=5),
    ).to_dict()
    names = {*CONTROLS, "soft", "pause"}
    assert report["change_percent"].keys() == names | {"latents"}
    assert report["latents_against"].keys() == names
    assert report["pause_setting"]["kind"] == "pause"
    for name in names:
        for token, change in report["latents_against"][name].items():
            ratio = report["perplexity"]["latents"][token] / report["perplexity"][name][token]
            assert change["value"] == pytest.approx(100 * (ratio - 1), rel=1e-6)
            assert change["low"] <= change["value"] <= change["high"]


def test_a_control_that_has_nothing_to_change_is_refused(llama, make, corpus):
    few = {"data": corpus, "sample": Sample(length=40, ahead=8, anchors=5)}
    one = trained(make(llama, "warm", latents=1))
    with pytest.raises(CheckpointError, match=r"'reversed' needs two latents.* writes 1: leave"):
        evaluate(llama, one, controls=["zero", "reversed"], **few)
    continued = trained(make(llama, "warm", kind="continued"))
    with pytest.raises(CheckpointError, match=r"'zero' needs latents, .*'continued' writes 0"):
        evaluate(llama, continued, controls=["zero"], **few)
    soft = trained(make(llama, "warm", kind="soft"))
    with pytest.raises(CheckpointError, match="must be of kind pause with 3"):
        evaluate(llama, trained(make(llama, "warm")), pause=soft, **few)
