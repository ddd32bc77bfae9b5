"""What plots of a report look like: each condition its own look, and nothing that hides latents."""

import re
from itertools import combinations
from math import dist
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from deliberate.eval import report_folder
from deliberate.eval.report_folder.blocks import Line, Plot, Said
from deliberate.eval.report_folder.document import heading, sections
from deliberate.eval.report_folder.draw import LIGHT, _figure, svg
from deliberate.eval.report_folder.gate import gate
from deliberate.eval.report_folder.looks import look
from deliberate.eval.report_folder.markdown import markdown
from deliberate.eval.report_folder.perplexity import perplexity
from deliberate.eval.report_folder.problems import problems
from deliberate.eval.report_folder.words import FIXED, styles


def plots(found):
    return {block.name: block for each in found for block in each.blocks if isinstance(block, Plot)}


def test_forty_looks_differ_without_their_colour():
    looks = [look(number) for number in range(40)]
    assert len({(each.mark, str(each.stroke)) for each in looks}) == 40
    assert all(each.width < looks[0].width for each in looks[1:])


def perceived(colour):
    """Where a colour is in Oklab, in which distances are as they look."""
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour))
    long, medium, short = (
        (x * r + y * g + z * b) ** (1 / 3)
        for x, y, z in (
            (0.4122, 0.5363, 0.0514),
            (0.2119, 0.6807, 0.1074),
            (0.0883, 0.2817, 0.6300),
        )
    )
    return (
        0.2105 * long + 0.7936 * medium - 0.0041 * short,
        1.9780 * long - 2.4286 * medium + 0.4506 * short,
        0.0259 * long + 0.7828 * medium - 0.8087 * short,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_two_conditions_of_one_plot_look_to_have_the_same_colour(scheme):
    css = Path(*report_folder.__path__, "templates", "report.css").read_text()
    dark = dict(re.findall(r"--(c\d+): (#\w+);", css))
    values = LIGHT if scheme == "light" else LIGHT | dark
    used = [look(style).colour for style in styles([*FIXED, "every:8"]).values()]
    for one, other in combinations(used, 2):
        assert dist(perceived(values[one]), perceived(values[other])) > 0.1, (one, other)


def test_a_condition_has_one_style_whatever_else_is_drawn():
    more = ["every:8", "cot:4", "cot:64"]
    whole = styles([*FIXED, *more])
    assert len(set(whole.values())) == len(whole)
    for name, style in whole.items():
        assert styles([name]).get(name) == style or name == "cot:64"
    assert styles(["cot:4", "cot:64"])["cot:64"] == whole["cot:64"]


def test_what_is_far_beyond_the_latents_is_named_and_not_drawn(alone):
    [report] = alone["tasks"]["perplexity"]["result"]
    far = {"value": 15936.0, "low": 15000.0, "high": 16000.0}
    report["change_percent"]["shuffled"]["1"] = far
    plot = plots(perplexity(alone))["change"]
    assert "another text's latents at token" in plot.note
    assert plot.bounds[1] < 100
    own = plot.lines[0]
    assert plot.bounds[0] < min(own.low)
    assert plot.bounds[1] > max(own.high)


def unsolved(report):
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    cells = [report["total"], *(each for f in report["families"].values() for each in f.values())]
    for cell in cells:
        cell["percent"] = dict.fromkeys(cell["percent"], nothing)
    same = {**nothing, "gained": 0, "lost": 0, "p": 1.0}
    for key in ("against_base", "latents_against"):
        report["total"][key] = dict.fromkeys(report["total"][key], same)


def test_where_nothing_is_solved_a_sentence_stands_in_place_of_plots(alone):
    unsolved(alone["tasks"]["problems"]["result"][0])
    found = problems(alone)
    assert plots(found) == {}
    said = [block.text for block in found[0].blocks if isinstance(block, Said)]
    assert any("Nothing is solved by anyone" in text for text in said)
    text = markdown(heading(alone), sections(alone))
    assert "Nothing differs" in text
    assert "tell next to nothing" in text
    assert "+0.00 points" not in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "by number of steps" not in text


def test_shares_are_drawn_from_zero(made_results):
    for name, plot in plots(problems(made_results)).items():
        if not plot.keys_alone:
            assert plot.bounds[0] == 0, name
            assert plot.bounds[1] >= 10, name


def test_a_gate_without_a_gain_has_a_sentence_and_no_curve(alone):
    [report] = alone["tasks"]["perplexity"]["result"]
    for each in report["gate"]["tokens"].values():
        each["kept"] = None
    [section] = gate(alone)
    [said] = section.blocks
    assert "No gain that can be told" in said.text


def test_a_long_label_is_wrapped_and_no_letter_is_lost():
    label = "chain of thought, 4 tokens in the time that the latents take to be written at all"
    line = Line(label=label, x=[1, 2], y=[1, 2])
    drawn = svg(Plot(name="p", title="t", x_label="x", y_label="y", lines=[line]))
    assert "…" not in drawn
    assert all(word in drawn for word in label.split())


def test_names_of_points_that_are_close_stand_apart():
    line = Line(label="l", x=[0, 9, 9.01, 9.02], y=[0, 5, 5, 5.01], names=["a", "b", "c", "d"])
    plot = Plot(name="p", title="t", x_label="x", y_label="y", lines=[line])
    figure = _figure(plot, LIGHT)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 4
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_names_of_axes_are_no_longer_than_the_plots(made_results):
    for plot in plots(sections(made_results)).values():
        figure = _figure(plot, LIGHT)
        figure.draw_without_rendering()
        for axes in figure.axes:
            for name in (axes.xaxis.label, axes.yaxis.label):
                box = name.get_window_extent()
                assert box.x0 >= 0 <= box.y0
                assert box.x1 <= figure.bbox.x1
                assert box.y1 <= figure.bbox.y1, plot.name
