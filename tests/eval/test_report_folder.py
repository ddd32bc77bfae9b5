"""The report of made-up results: everything measured is there, and nothing else."""

import copy
import re
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser

import matplotlib
import pytest

from deliberate.cli.eval_kept import PLOTS
from deliberate.core.errors import DeliberateError
from deliberate.core.verdict import verdict
from deliberate.eval.report_folder import extra, render, require_report
from deliberate.eval.report_folder.blocks import Line, Plot
from deliberate.eval.report_folder.document import sections
from deliberate.eval.report_folder.draw import png, svg

HOSTILE = "<script>alert(1)</script>&\"'|`$x$\n**b** [a](b) ]]> -->"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page's elements, their attributes, and the text under headings, tables and the rest."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.text = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in {*self.open}:
            self.text.setdefault(tag, []).append(data)

    def said(self, tag):
        return " ".join("".join(self.text.get(tag, [])).split())

    def those(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def read(folder):
    page = Page()
    page.feed((folder / "report.html").read_text())
    assert page.open == []  # every element is closed where it should be
    return page


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a report without its pictures, which take long; read its page and its Markdown."""
    from deliberate.eval.report_folder import draw, page

    monkeypatch.setattr(draw, "png", lambda plot: b"")
    monkeypatch.setattr(page, "svg", lambda plot: "<svg></svg>")

    def written(results):
        render(tmp_path, results)
        return read(tmp_path), (tmp_path / "report.md").read_text()

    return written


@pytest.fixture(scope="module")
def folder(tmp_path_factory, whole_results):
    """A report of all tasks and two runs, to be read alone."""
    path = tmp_path_factory.mktemp("report")
    render(path, whole_results)
    return path


def test_the_verdict_is_that_of_the_terminal(written, alone):
    page, markdown = written(alone)
    sentences = verdict(alone["tasks"]["perplexity"]["result"][0])
    assert sentences in page.said("p")
    assert sentences.replace("&", r"\&") in markdown


def test_each_number_of_the_first_table_is_in_both_files(written, alone):
    page, markdown = written(alone)
    [report] = alone["tasks"]["perplexity"]["result"]
    for token, found in report["change_percent"]["latents"].items():
        number = f"{found['value']:+.2f}".replace("-", "\N{MINUS SIGN}")
        between = f"{found['low']:+.2f} … {found['high']:+.2f}".replace("-", "\N{MINUS SIGN}")
        for text in (page.said("table"), markdown):
            assert number in text, token
            assert between in text, token


def test_a_change_whose_interval_leaves_zero_out_is_told_without_colour(written, alone):
    row = alone["tasks"]["perplexity"]["result"][0]["change_percent"]["latents"]
    row["1"], row["2"] = (
        {"value": -3.0, "low": -4.0, "high": -2.0},
        {
            "value": -1.0,
            "low": -4.0,
            "high": 2.0,
        },
    )
    _, markdown = written(alone)
    minus = "\N{MINUS SIGN}"
    assert re.search(rf"\*\*{minus}3\.00\s%\*\*", markdown)
    assert re.search(rf"\| {minus}1\.00\s% \(", markdown)


def test_several_runs_are_side_by_side(folder):
    markdown = (folder / "report.md").read_text()
    assert "| Token ahead | runs/4, 4 latents | runs/8, 8 latents | Base perplexity |" in markdown
    names = {path.name for path in folder.glob("*.png")}
    assert all(any(fnmatch(name, each) for each in PLOTS) for name in names)
    assert {"change.png", "change-1.png", "change-2.png", "gate-1.png", "gate-2.png"} <= names


def test_every_plot_is_a_file_that_the_markdown_names_and_a_picture_in_the_page(folder):
    page, markdown = read(folder), (folder / "report.md").read_text()
    files = {path.name for path in folder.glob("*.png")}
    assert set(re.findall(r"\]\(([\w-]+\.png)\)", markdown)) == files
    pictures = page.those("svg")
    assert len(pictures) == len(files) > 8
    assert all(each["role"] == "img" and len(each["aria-label"]) > 40 for each in pictures)
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in folder.glob("*.png"))


def test_plots_of_the_report_before_are_removed_and_no_other_picture_is(tmp_path, alone):
    alone["tasks"] = {"perplexity": alone["tasks"]["perplexity"], "bench": alone["tasks"]["bench"]}
    render(tmp_path, alone)
    own = tmp_path / "own.png"
    own.write_bytes(b"a picture of the user's")
    copied = tmp_path / "copy.png"
    copied.write_bytes((tmp_path / "change.png").read_bytes())
    with (tmp_path / "report.md").open("a") as file:
        file.write("![mine](own.png)\n")
    del alone["tasks"]["perplexity"]
    render(tmp_path, alone)
    assert {path.name for path in tmp_path.glob("*.png")} == {"own.png", "copy.png"}


def test_nothing_in_the_page_is_fetched(folder):
    page = read(folder)
    assert not page.those("script")
    assert not page.those("img")
    for _, attributes in page.found:
        for name in ("src", "href", "xlink:href"):
            if attributes.get(name) is not None:
                assert attributes[name].startswith(("#", "data:"))
    text = (folder / "report.html").read_text()
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_no_two_elements_have_the_same_name(folder):
    page = read(folder)
    names = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(names) == len(set(names))


def test_pictures_take_their_colours_from_the_page(folder):
    pictures = re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(), re.DOTALL)
    for each in pictures:
        assert "var(--ink)" in each
        assert not re.search(r"#[0-9a-f]{6}", each.replace("#000000", ""))


def plots(results):
    return [block for each in sections(results) for block in each.blocks if isinstance(block, Plot)]


def test_the_same_plot_gives_the_same_bytes_and_no_setting_is_left_changed(made_results):
    before = dict(matplotlib.rcParams)
    for name in ("change-1", "quality-problems"):
        [plot] = [plot for plot in plots(made_results) if plot.name == name]
        [again] = [plot for plot in plots(copy.deepcopy(made_results)) if plot.name == name]
        assert png(plot) == png(again)
        assert svg(plot) == svg(again)
    assert dict(matplotlib.rcParams) == before


def test_a_hostile_name_is_drawn_as_it_stands():
    lines = [
        Line(label=name, x=[1, 2], y=[1, 2], low=[0, 1], high=[2, 3], names=[name, name])
        for name in (HOSTILE, "_hidden", "$x^2$", "\N{CJK UNIFIED IDEOGRAPH-65E5}")
    ]
    plot = Plot(name="p", title=HOSTILE, x_label=HOSTILE, y_label="y", lines=lines)
    picture = Page()
    picture.feed(svg(plot))
    assert picture.open == []
    assert not picture.those("script")
    for line in lines[1:]:
        assert line.label in picture.said("text")
    assert "".join(HOSTILE.split("\n")[0][:12]) in picture.said("text")
    png(plot)


def hostile(value):
    """A document whose every text that a user or a model may have written is hostile."""
    said = {"name", "id", "command", "domain", "before", "text", "machine", "signal", "device"}
    if isinstance(value, dict):
        return {
            key: HOSTILE if key in said and each is not None else hostile(each)
            for key, each in value.items()
        }
    return [hostile(each) for each in value] if isinstance(value, list) else value


def test_a_hostile_text_is_shown_as_it_stands(written, made_results, tmp_path):
    results = hostile(made_results)
    results["tasks"]["bench"]["result"]["sets"] = {
        HOSTILE: made_results["tasks"]["bench"]["result"]["sets"]["piqa"]
    }
    for report in results["tasks"]["perplexity"]["result"]:
        report["domains"] = {HOSTILE: report["domains"]["books"]}
    for report in results["tasks"]["problems"]["result"]:
        report["families"] = {HOSTILE: report["families"]["words"]}
    page, markdown = written(results)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert not page.those("b") or all("style" in each for each in page.those("b"))
    assert HOSTILE.split("\n")[0] in page.said("table")
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<script", outside)
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(written, made_results):
    _, markdown = written(hostile(made_results))
    columns = None
    for line in markdown.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert cells is None or columns in {None, cells}
        columns = cells


def test_probabilities_are_to_be_read_without_colour_and_without_a_pointer(written, alone):
    page, markdown = written(alone)
    assert unescape("20 % → 80 %") in page.said("ol").replace("\N{NO-BREAK SPACE}", " ")
    assert "| def | 0.2 | 0.8 |" in markdown


def test_without_what_draws_it_a_report_is_refused_and_the_extra_named(monkeypatch, tmp_path):
    require_report()
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "matplotlib" else 1)
    with pytest.raises(DeliberateError, match=r"matplotlib.*pip install 'jinja2.*' 'matplotlib"):
        require_report()
    with pytest.raises(DeliberateError, match="matplotlib"):
        render(tmp_path, {})
