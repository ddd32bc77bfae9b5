"""A text of any length is tokenized in stretches, and gets the tokens that it has as a whole."""

import pytest
from datasets import Dataset
from tokenizers import processors

from deliberate.core import load_base, tokenize, tokens
from deliberate.core.errors import TextError
from deliberate.core.packing import Packer, Wanted
from deliberate.core.passages import passages
from deliberate.core.python_source import stdlib_texts

STRETCH = 2000


@pytest.fixture(scope="module")
def nano():
    return load_base()


@pytest.fixture(scope="module")
def texts():
    return list(stdlib_texts("validation").values())[:12]


@pytest.fixture
def given(monkeypatch):
    """Lengths of what tokenizers are given at once, from now on."""
    lengths = []

    def watch(tokenizer):
        kind, call = type(tokenizer), type(tokenizer).__call__

        def counted(self, asked, *more, **options):
            lengths.append(len(asked) if isinstance(asked, str) else sum(map(len, asked)))
            return call(self, asked, *more, **options)

        monkeypatch.setattr(kind, "__call__", counted)
        return lengths

    return watch


def test_stretches_have_the_tokens_of_the_whole(nano, texts, monkeypatch, given):
    whole = nano.tokenizer(texts)["input_ids"]
    assert max(map(len, texts)) > 5 * STRETCH
    monkeypatch.setattr(tokens, "STRETCH", STRETCH)
    lengths = given(nano.tokenizer)
    assert tokens.token_lists(nano.tokenizer, texts) == whole
    assert [tokens.token_ids(nano.tokenizer, text).tolist() for text in texts] == whole
    assert max(lengths) <= STRETCH


def test_special_tokens_stand_around_the_whole_text_alone(llama, monkeypatch):
    monkeypatch.setattr(tokens, "STRETCH", 8)
    tokenizer = type(llama.tokenizer)(
        tokenizer_object=llama.tokenizer.backend_tokenizer.__class__.from_str(
            llama.tokenizer.backend_tokenizer.to_str()
        ),
        eos_token="<end>",
    )
    end = ("<end>", 0)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> <end> $A <end>", special_tokens=[end]
    )
    text = "abc " * 20
    whole = tokenizer(text)["input_ids"]
    assert whole.count(0) == 3
    assert tokens.token_ids(tokenizer, text).tolist() == whole
    assert tokens.token_ids(tokenizer, text, special=False).tolist() == whole[2:-1]
    assert tokens.token_lists(tokenizer, [text, "", "a"]) == [
        whole,
        [0, 0, 0],
        tokenizer("a")["input_ids"],
    ]


@pytest.mark.parametrize(
    "text", ["ab" * 40, " " * 80, "a  b" * 20, "\n" * 80], ids=["word", "blanks", "gaps", "lines"]
)
def test_what_has_no_place_to_be_cut_is_cut_all_the_same(llama, monkeypatch, text):
    whole = llama.tokenizer(text)["input_ids"]
    monkeypatch.setattr(tokens, "STRETCH", 8)
    assert tokens.token_ids(llama.tokenizer, text).tolist() == whole  # a character is a token


def test_rows_and_their_marks_are_those_of_whole_texts(nano, texts, monkeypatch):
    def packed():
        return Packer(nano.tokenizer, length=64, wanted=Wanted(markers=["=", "return"]))(texts)

    whole = packed()
    assert sum(map(len, whole["marks"])) > 100
    monkeypatch.setattr(tokens, "STRETCH", STRETCH)
    monkeypatch.setattr("deliberate.core.packing.STRETCH", STRETCH)
    assert packed() == whole


def test_passages_are_those_of_whole_texts(nano, texts, monkeypatch):
    rows = Dataset.from_dict({"text": texts, "domain": [str(len(text)) for text in texts]})

    def cut():
        return passages(rows, nano.tokenizer, length=64, least=16, limit=20)

    whole = cut()
    for each in whole:
        assert each.domain == str(len(texts[each.document]))
        text = nano.tokenizer(texts[each.document])["input_ids"]
        assert any(
            each.token_ids == [text[0], *text[first : first + 63]]
            for first in range(1, len(text), 63)
        )
    monkeypatch.setattr(tokens, "STRETCH", STRETCH)
    assert cut() == whole


def test_of_a_text_far_too_long_no_more_is_read_than_shows_it(nano, monkeypatch, given):
    lengths = given(nano.tokenizer)
    with pytest.raises(TextError, match=r"the text has at least [1-9]\d+ tokens and 'nano' reads"):
        tokenize(nano, "word " * 10_000_000)
    assert sum(lengths) < 2 * tokens.STRETCH
