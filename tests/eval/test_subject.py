"""What a coprocessor can be compared with: what is refused, and what a lenient one leaves out."""

import pytest

from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError
from deliberate.eval.controls import CONTROLS
from deliberate.eval.subject import Subject, conditions_of, left_out

AGAIN = ("every:2", "every:4")
CHAINS = ("cot", "cot:latency")


@pytest.fixture
def compared(fresh, make):
    """A subject of a kind that is compared with everything that needs no other run."""

    def compared(kind, latents, **settings):
        coprocessor = make(fresh(), "warm", kind=kind, latents=latents)
        named = {"controls": tuple(CONTROLS), "every": (2, 4), "chains": CHAINS}
        trained = Trained(coprocessor=coprocessor, id="tiny", fingerprint="f")
        return Subject(trained=trained, **named | settings)

    return compared


@pytest.mark.parametrize(
    ("kind", "latents", "expected"),
    [
        ("full", 3, ()),
        ("hidden", 3, ()),
        ("full", 1, ("shuffled_but_last", "reversed")),
        ("hidden", 1, ("shuffled_but_last", "reversed")),
        ("continued", 3, (*CONTROLS, *AGAIN, *CHAINS)),
    ],
)
def test_a_lenient_subject_leaves_out_what_there_cannot_be(compared, kind, latents, expected):
    subject = compared(kind, latents, lenient=True)
    assert left_out(subject) == list(expected)
    conditions = conditions_of(subject, 0)
    assert list(conditions) == [
        name for name in ("latents", *CONTROLS, *AGAIN) if name not in expected
    ]
    assert {name: conditions[name].every for name in AGAIN if name in conditions} == (
        {} if kind == "continued" else {"every:2": 2, "every:4": 4}
    )


def test_any_other_refuses_what_was_named_and_leaves_out_what_nobody_named(compared):
    with pytest.raises(CheckpointError, match=r"'shuffled_but_last' needs two .* writes 1: leave"):
        conditions_of(compared("full", 1), 0)
    with pytest.raises(CheckpointError, match=r"'every:2' asks .* 'continued' writes none: leave"):
        conditions_of(compared("continued", 3, controls=None), 0)
    unnamed = compared("full", 1, controls=None, every=(), chains=())
    assert left_out(unnamed) == ["shuffled_but_last"]
    assert list(conditions_of(unnamed, 0)) == ["latents", "shuffled"]
