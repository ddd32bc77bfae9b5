"""The page in a real browser: both answers, coloured tokens, caches; nothing asked elsewhere."""

import json
import math
import re
import time
from contextlib import suppress

import pytest

from deliberate.serve.page import PAGE

PHONE, DESK = 390, 1200
READABLE = 4.5
"""Contrast that WCAG 2 asks of text, at level AA."""


MUCH = "return getComputedStyle(arguments[0]).getPropertyValue('--much')"


@pytest.fixture
def opened(browser, server):
    """Open the page as wide as something, in the light or in the dark."""

    def opened(*, url=server.url, width=DESK, scheme="light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get_log("browser")
        browser.get(url)
        return browser

    return opened


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def one(page, selector):
    return page.find_element("css selector", selector)


def ask(page, prompt, tokens=12):
    for selector, value in (("#prompt", prompt), ("#tokens", str(tokens))):
        one(page, selector).clear()
        one(page, selector).send_keys(value)
    page.execute_script("delete document.body.dataset.state")
    one(page, "#run").click()
    state = until(
        lambda: page.execute_script("return document.body.dataset.state") in {"done", "failed"}
    )
    assert state


def press(page, path):
    """Press a button of a table that may be drawn anew meanwhile."""
    from selenium.common.exceptions import StaleElementReferenceException

    def pressed():
        with suppress(StaleElementReferenceException):
            page.find_element("xpath", path).click()
            return True

    until(pressed)


def test_a_prompt_is_answered_both_ways_and_nothing_outside_is_asked_for(opened, server):
    page = opened()
    page.get_log("performance")
    ask(page, "a prompt to try")
    plain = server.complete("a prompt to try", max_tokens=12, deliberate="never")
    thought = server.complete("a prompt to try", max_tokens=12, deliberate="wait")
    for place, body in (("plain", plain), ("thought", thought)):
        shown = one(page, f"#{place}").get_attribute("textContent")
        assert shown.startswith(body["choices"][0]["text"])
        assert "12 tokens" in one(page, f"#{place}-facts").text
        assert "nats a token" in one(page, f"#{place}-sum").text
    assert "latents used" in one(page, "#thought-facts").text
    assert page.get_log("browser") == []
    asked = [
        message["params"]["request"]["url"]
        for message in messages(page)
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 4
    assert {url.partition("/v1")[0].removesuffix("/ready") for url in asked} == {server.url}


def messages(page):
    return [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]


def test_tokens_are_coloured_by_how_much_latents_changed_them_and_tell_their_numbers(
    opened, server
):
    page = opened()
    ask(page, "colours of tokens", 8)
    body = server.complete(
        "colours of tokens", max_tokens=8, deliberate="wait", return_token_ids=True
    )
    ids = body["choices"][0]["token_ids"]
    scored = server.post("/v1/compare", prompt="colours of tokens", answer=ids).json()["tokens"]
    spans = page.find_elements("css selector", "#thought .token")
    assert len(spans) == len(scored) == 8
    for span, token in zip(spans, scored, strict=True):
        change = token["with"] - token["without"]
        assert span.get_attribute("class") == f"token {'more' if change > 0 else 'less'}"
        much = float(page.execute_script(MUCH, span))
        assert much == pytest.approx(0.8 * math.sqrt(min(1, abs(change) / math.log(4))), abs=0.002)
    from selenium.webdriver import ActionChains

    ActionChains(page).move_to_element(spans[2]).perform()
    tip = until(lambda: one(page, "#tip").text)
    assert json.dumps(scored[2]["text"]) in tip
    assert tip.count("%") == 2
    assert "change" in tip
    assert one(page, "#legend").is_displayed()


def test_caches_are_shown_made_asked_after_and_deleted(opened, server):
    page = opened()
    one(page, "details summary").click()
    one(page, "#text").send_keys("a document for the page")
    one(page, "#keep button").click()
    row = "//tr[td[3]='23']"
    until(lambda: page.find_elements("xpath", f"{row}//span[.='augmented']"))
    press(page, f"{row}//button[.='Ask after it']")
    assert one(page, "#after").is_displayed()
    ask(page, "why")
    assert "latents used" in one(page, "#thought-facts").text
    press(page, f"{row}//button[.='Delete']")
    until(lambda: not page.find_elements("xpath", row))
    assert not one(page, "#after").is_displayed()


def test_a_refusal_is_shown_as_it_was_said(opened):
    page = opened()
    ask(page, "x" * 300)
    assert "the prompt has 300 tokens" in one(page, "#error").text


def test_a_server_with_a_key_is_asked_with_the_key(opened, start):
    page = opened(url=start(api_key="secret").url)
    until(lambda: one(page, "#key").is_displayed())
    one(page, "#key").send_keys("secret")
    ask(page, "with a key")
    assert "12 tokens" in one(page, "#plain-facts").text


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_readable(opened, width, scheme):
    page = opened(width=width, scheme=scheme)
    until(lambda: one(page, "#model").text == "tiny")
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen
    colours = page.execute_script(
        "return ['.lead', 'h1', '#prompt', '#run', '.facts', 'th'].map(s => {"
        "  const style = getComputedStyle(document.querySelector(s));"
        "  let behind = document.querySelector(s);"
        "  while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)')"
        "    behind = behind.parentElement;"
        "  return [s, style.color, getComputedStyle(behind).backgroundColor]; })"
    )
    for selector, text, behind in colours:
        assert contrast(text, behind) >= READABLE, (selector, text, behind)


def contrast(one_colour, other):
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
        line = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]

    low, high = sorted((luminance(one_colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_may_do_nothing_but_run_itself_and_ask_its_server(server):
    response = server.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    source = PAGE.read_text()
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]+|@import|<link[^>]+stylesheet", source)
