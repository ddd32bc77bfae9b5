"""Odd prompts over HTTP: each is answered or refused by name, by any clock."""

import itertools
import time

import pytest

ODD = {
    "one token": "a",
    "emoji": "\U0001f600\U0001f44d\U0001f3fd\u200d\U0001f680",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0644\u064a\u0643\u0645\u202c",
    "null bytes": "a\0b\0\0c",
    "blank": " \n\t",
    "no round trip": "  \ufffd \u0301e\u0301 \xa0fi\ufb01",
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_prompt_is_answered_and_kept(server, served_base, name):
    expected = len(served_base.tokenizer(ODD[name])["input_ids"])
    assert server.complete(ODD[name])["usage"]["prompt_tokens"] == expected
    kept = server.post("/v1/caches", text=ODD[name])
    assert kept.status_code in {200, 201, 202}, kept.text
    assert kept.json()["tokens"] == expected


def test_a_clock_that_is_set_back_harms_no_answer_and_no_number(start, monkeypatch):
    server = start(timeout_seconds=20.0)
    expected = server.complete("abc", deliberate="never")["choices"][0]["text"]
    began, asked = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: began - 3600 * next(asked))
    assert server.complete("abc", deliberate="wait")["choices"]
    assert server.complete("abc", deliberate="never")["choices"][0]["text"] == expected
    shown = server.http.get("/metrics").text.splitlines()
    numbers = [float(line.rsplit(" ", 1)[1]) for line in shown if line and line[0] != "#"]
    assert len(numbers) > 10
    assert min(numbers) >= 0
    assert max(numbers) < began * 2
