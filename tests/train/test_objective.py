"""Where anchors are, and latents that come late."""

import json

import pytest
import torch

from deliberate.core.base import load_base
from deliberate.core.errors import TextError
from deliberate.train import train
from deliberate.train.data import batches, load_rows
from deliberate.train.objective import Objective
from deliberate.train.processes import Processes


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def drawn(recipe):
    base = load_base(recipe.base.id)
    alone = Processes(device=base.device)
    rows = load_rows(recipe, base, alone)
    rows.begin(None)
    [batch] = batches(rows, recipe, base, step=0, share=alone)
    rows.close()
    return base.tokenizer, batch.token_ids, batch.anchors


def test_anchors_at_every_token_are_all_that_have_room(recipe):
    _, token_ids, anchors = drawn(recipe("objective.place=every", "objective.delay=2"))
    last = token_ids.shape[1] - 1 - 3 - 2
    assert torch.equal(anchors, torch.arange(last + 1).expand(4, -1))


def test_anchors_at_markers_are_their_last_tokens(recipe):
    chosen = recipe("objective.place=marker", "objective.markers=['xyz.', 'b']")
    tokenizer, token_ids, anchors = drawn(chosen)
    assert anchors.shape == (4, 6)
    for row, marks in zip(token_ids, anchors, strict=True):
        letters = tokenizer.convert_ids_to_tokens(row.tolist())
        assert {letters[mark] for mark in marks} <= {".", "b"}
        assert torch.equal(marks, marks.sort().values)
        dots = [mark for mark in marks.tolist() if letters[mark] == "." and mark >= 3]
        assert all("".join(letters[dot - 3 : dot]) in {"xyz", "end"} for dot in dots)
        assert not [dot for dot in dots if "".join(letters[dot - 3 : dot]) == "end"]


def test_a_row_with_fewer_markers_repeats_them_and_one_without_is_left_out(recipe, corpus):
    corpus.write_text("abc " * 30 + "end." + "cab " * 60)
    chosen = recipe("objective.place=marker", "objective.markers=['end.']", "train.batch=2")
    _, token_ids, anchors = drawn(chosen)
    assert torch.equal(token_ids[0], token_ids[1])
    assert len(anchors.unique()) == 1


def test_a_share_of_the_anchors_is_at_markers_and_the_others_are_anywhere(recipe):
    marker = ["objective.place=marker", "objective.markers=['xyz.']"]
    _, _, all_marked = drawn(recipe(*marker))
    tokenizer, token_ids, anchors = drawn(recipe(*marker, "objective.marked=0.5"))
    assert anchors.shape == all_marked.shape
    assert torch.equal(anchors, anchors.sort().values)
    read = tokenizer.convert_ids_to_tokens(token_ids.flatten().tolist())
    letters = [read[at : at + token_ids.shape[1]] for at in range(0, len(read), token_ids.shape[1])]
    marked = [
        sum("".join(row[mark - 3 : mark + 1]) == "xyz." for mark in marks)
        for row, marks in zip(letters, anchors.tolist(), strict=True)
    ]
    assert min(marked) >= 3
    assert sum(marked) < anchors.numel()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_source_has_markers_of_its_own_or_anchors_anywhere(recipe, tmp_path, streaming):
    named = {"own": "xyz. cab ", "common": "end. abc ", "none": "bca "}
    for name, text in named.items():
        rows = [json.dumps({"text": f"{number} {text * 40}"}) for number in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    paths = {name: tmp_path / f"{name}.jsonl" for name in named}
    chosen = recipe(
        f"data.train=[{{path: {paths['own']}, markers: ['xyz.']}}, {paths['common']}, "
        f"{{path: {paths['none']}, markers: []}}]",
        f"data.validation={paths['none']}",
        f"data.streaming={str(streaming).lower()}",
        "objective.place=marker",
        "objective.markers=['end.']",
        "objective.anchors=12",
        "train.batch=24",
    )
    tokenizer, token_ids, anchors = drawn(chosen)
    met = set()
    for row, marks in zip(token_ids.tolist(), anchors.tolist(), strict=True):
        letters = tokenizer.convert_ids_to_tokens(row)
        [marker] = [one for one in ("xyz.", "end.", "bca") if one in "".join(letters)]
        met.add(marker)
        ends = ["".join(letters[max(0, mark - 3) : mark + 1]) for mark in marks]
        if marker == "bca":
            assert len({end[-1] for end in ends}) > 1
        else:
            assert all(marker.endswith(end) for end in ends)  # cut where the row begins within it
        assert marks == sorted(marks)
    assert met == {"xyz.", "end.", "bca"}


@pytest.mark.parametrize("place", ["every", "marker"])
def test_a_run_learns_at_its_anchors_and_resumes_exactly(recipe, tmp_path, place):
    changes = [f"objective.place={place}", "train.steps=24"]
    changes += ["objective.markers=['c']"] * (place == "marker")
    train(recipe(*changes), tmp_path / "whole")

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(*changes), tmp_path / "parts", on_progress=crash)
    train(recipe(*changes), tmp_path / "parts", resume=True)
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "parts") == whole
    assert sum(whole[-6:]) < sum(whole[:6])


def test_a_marker_that_is_nowhere_is_refused(recipe, tmp_path):
    changes = ["objective.place=marker", "objective.markers=['Answer:']"]
    with pytest.raises(TextError, match="'Answer:'"):
        train(recipe(*changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["objective.place=marker"], "at least one, go with place marker"),
        (["objective.markers=[x]"], "go with place marker and with no other"),
        (["objective.place=marker", "objective.markers=['']"], "empty text"),
        (["objective.place=marker", "objective.markers=[1]"], "must be a list of str, got 1"),
        (["objective.place=marker", "objective.markers=x"], "must be list, got 'x'"),
        (["data.train=[{path: stdlib, markers: []}]"], "go with data.train and objective.place"),
        (["data.train=[{path: stdlib, markers: ['']}]"], "must not hold the empty text"),
        (["data.train=[{path: stdlib, markers: x}]"], "must be list, got 'x'"),
        (
            [
                "objective.place=marker",
                "objective.markers=[x]",
                "data.validation=[{path: stdlib, markers: [y]}]",
            ],
            r"data\.validation has markers \['y'\] for 'stdlib'",
        ),
        (["objective.marked=0.5"], "it goes with place marker"),
        (["objective.marked=0"], "above 0 and at most 1, got 0"),
        (["objective.skip=-1"], r"objective\.skip must be at least 0 and below .*, got -1 and 3"),
        (["objective.skip=3"], r"below objective\.ahead, got 3 and 3"),
        (["objective.delay=-1"], r"objective\.delay must be at least 0"),
        (["objective.delay=30"], r"above objective\.ahead \+ objective\.delay"),
    ],
)
def test_what_cannot_be_is_refused(recipe, changes, told):
    with pytest.raises(ValueError, match=told):
        recipe(*changes)


def test_a_run_with_a_delay_learns_from_other_targets(recipe, tmp_path):
    train(recipe("train.steps=30", "objective.delay=2"), tmp_path / "late")
    train(recipe("train.steps=30"), tmp_path / "now")
    late = losses(tmp_path / "late")
    assert late != losses(tmp_path / "now")
    assert sum(late[-6:]) < sum(late[:6])


def test_tokens_that_are_skipped_are_no_part_of_the_loss(recipe, base, make):
    coprocessor = make(base, "warm")
    _, token_ids, anchors = drawn(recipe())
    each = coprocessor.losses(base, base.read(token_ids), anchors, ahead=3)
    for skip in (0, 2):
        loss = Objective(coprocessor, base, recipe(f"objective.skip={skip}"))(token_ids, anchors)
        torch.testing.assert_close(loss, each[..., skip:].mean())
