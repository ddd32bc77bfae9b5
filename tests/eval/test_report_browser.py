"""The report's page in a real browser: it renders, asks nothing of a network, fits a phone."""

import json
import re
from pathlib import Path

import pytest

from deliberate.eval.report_folder import render

PHONE, DESK = 390, 1200
READABLE = 4.5
"""Contrast that WCAG 2 asks of text, at level AA."""


@pytest.fixture(scope="module")
def address(tmp_path_factory, whole_results):
    """Of a report of all tasks and two runs."""
    folder: Path = tmp_path_factory.mktemp("report")
    render(folder, whole_results)
    return (folder / "report.html").as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page as wide as something, in the light or in the dark."""

    def opened(*, width=DESK, scheme="light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(address)
        return browser

    return opened


def test_headings_tables_and_plots_are_to_be_seen(opened):
    page = opened()
    for name, least in (("h1", 1), ("h2", 12), ("svg", 10), ("article", 4)):
        found = page.find_elements("tag name", name)
        assert len(found) >= least, name
        assert all(each.is_displayed() for each in found), name
    for table in page.find_elements("css selector", "div.table table"):
        assert table.is_displayed()
        assert table.find_element("tag name", "caption").get_attribute("textContent")
    for plot in page.find_elements("tag name", "svg"):
        assert plot.size["width"] > 200
        keys_alone = "The lines of" in plot.get_attribute("aria-label")
        assert plot.size["height"] > (40 if keys_alone else 100)


def test_what_is_folded_opens_by_a_key(opened):
    page = opened()
    folded = page.find_element("css selector", "details.table")
    assert not folded.find_element("tag name", "td").is_displayed()
    folded.find_element("tag name", "summary").send_keys("\n")
    assert folded.find_element("tag name", "td").is_displayed()


def test_nothing_fails_and_nothing_outside_is_asked_for(opened):
    page = opened()
    page.get_log("performance")  # of the pages before
    page = opened(width=PHONE, scheme="dark")
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def channels(colour):
    return [float(each) for each in re.findall(r"[\d.]+", colour)[:3]]


def contrast(one, two):
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [value / 255 for value in channels(colour)]
        line = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


COLOURS = """
    const page = getComputedStyle(document.body).backgroundColor;
    const found = (selector, property) => {
        const element = document.querySelector(selector);
        return [getComputedStyle(element)[property], page];
    };
    return {
        page: page,
        body: found("body", "color"),
        note: found(".note", "color"),
        link: found("nav a", "color"),
        interval: found(".interval", "color"),
        better: found("td.better", "color"),
        worse: found("td.worse", "color"),
        plot: found("svg text", "fill"),
    };
"""


def test_light_and_dark_differ_and_text_is_readable_in_both(opened):
    pages = {}
    for scheme in ("light", "dark"):
        found = opened(scheme=scheme).execute_script(COLOURS)
        pages[scheme] = found.pop("page")
        for name, (text, behind) in found.items():
            assert contrast(text, behind) >= READABLE, (scheme, name, text, behind)
    light, dark = (sum(channels(pages[scheme])) for scheme in ("light", "dark"))
    assert light > 700 > 200 > dark


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_does_not_scroll_sideways_and_its_tables_do(opened, width):
    page = opened(width=width)
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen
    if width == PHONE:
        assert page.execute_script(
            "const boxes = [...document.querySelectorAll('.scroll')];"
            "return boxes.some(box => box.scrollWidth > box.clientWidth);"
        )


def test_the_lines_below_rows_go_with_the_column_that_stays(opened):
    page = opened(width=PHONE)
    collapsed = page.execute_script(
        "const cells = [...document.querySelectorAll('tbody th')];"
        "const styled = cells.map(cell => [cell, getComputedStyle(cell)]);"
        "return styled.filter(([cell, style]) => style.position !== 'sticky'"
        "    || style.borderCollapse !== 'separate' || style.borderBottomWidth !== '1px').length;"
    )
    assert collapsed == 0


def test_a_long_value_beside_its_name_is_to_be_read_on_a_phone(opened):
    page = opened(width=PHONE)
    wide = page.execute_script(
        "const rows = [...document.querySelectorAll('tbody tr')];"
        "const pairs = rows.filter(row => row.cells.length === 2);"
        "const boxes = pairs.map(row => row.closest('.scroll'));"
        "return boxes.filter(box => box.scrollWidth > box.clientWidth).length;"
    )
    assert wide == 0


def test_letters_are_large_enough_for_a_phone(opened):
    page = opened(width=PHONE)
    size = page.find_element("tag name", "body").value_of_css_property("font-size")
    assert float(size.removesuffix("px")) >= 16
