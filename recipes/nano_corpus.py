"""What `nano` and its like read: texts by part, their tokenizer, and rows of tokens.

    stdlib | packages | problems --BPE--> rows of tokens, questions marked --shares--> batches

Each part has held-out texts of its own kind, so that a gap between losses is not one between kinds
of text: standard modules and made problems as `deliberate.core.texts` holds them out, and of the
installed packages one file in twenty, by a hash of its name.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from deliberate.core.problems import CUE
from deliberate.core.texts import documents, hold_out
from deliberate.train.mixture import MIX, quotas
from deliberate.train.rows import mixed

PARTS = ("stdlib", "packages", "problems")
"""What is mixed, by name."""

VOCABULARY = 1024
SAMPLED = {"stdlib": 300, "packages": 1200, "problems": 12_000}
"""Texts of each part that the tokenizer is trained on."""

SAMPLED_CHARACTERS = 8_000_000
"""Likewise of any other part, as many texts as have so many characters."""

POSITIONS = 1024
END = "<|endoftext|>"
FILES_HELD_OUT = 20

# Words, digits one by one and punctuation, each with the space before it, line ends with the blanks
# before them, and runs of blanks (indentation) that leave the last one to the next word.
PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|[ \t]*[\r\n]+|\s+(?!\S)|\s+"

# A question at the beginning of a line. Of a text that is worked out it is the whole line, with its
# cue.
QUESTION = re.compile(
    rf"(?:{re.escape(CUE)})?(?:Sort [\d ]+:|[A-Z].*\?|[(\d].* =|[a-z] = \d.*\. [a-z] =)",
    re.MULTILINE,
)


def texts_of(part: str, split: str, *, source: str | None = None) -> Dataset:
    """The texts of a part, with columns `name` and `text`.

    Args:
        part: One of `PARTS`, or another name.
        split: `train` or `validation`.
        source: Where another's texts are, as `documents` takes them.
    """
    held_out = split == "validation"
    if source is not None:
        texts = hold_out(documents(source), source)[held_out]
        return texts.add_column("name", [f"{part}/{number}" for number in range(len(texts))])
    if part != "packages":
        return documents(part, split=split)
    return documents("installed").filter(
        lambda name: name.startswith("site-packages/") and _is_held_out(name) == held_out,
        input_columns="name",
    )


def sample_of(part: str, texts: Dataset) -> list[str]:
    """Texts of a part that the tokenizer is trained on."""
    if part in SAMPLED:
        return texts[: SAMPLED[part]]["text"]
    found, size = [], 0
    for row in texts:
        if size >= SAMPLED_CHARACTERS:
            break
        found.append(row["text"])
        size += len(row["text"])
    return found


def characters(texts: Dataset) -> dict[str, int]:
    """How much there is of each package, or in all."""
    sizes = Counter()
    for name, text in zip(texts["name"], texts["text"], strict=True):
        sizes["/".join(name.split("/")[:2]) if name.startswith("site-") else "all"] += len(text)
    return dict(sizes.most_common())


def train_tokenizer(texts: list[str], *, vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE over `texts`; every text begins with the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def pack_asked(texts: Dataset, tokenizer: PreTrainedTokenizerFast, *, most: int) -> Tensor:
    """Rows of tokens (row, token), those of a made problem's question as their complements.

    Args:
        texts: With columns `name` and `text`.
        tokenizer: From `train_tokenizer`.
        most: Tokens, after which no more texts are read.
    """
    found: list[int] = []
    for start in range(0, len(texts), 256):
        if len(found) >= most:
            break
        some = texts[start : start + 256]
        read = tokenizer(some["text"], return_offsets_mapping=True, verbose=False)
        for name, text, ids, offsets in zip(
            some["name"], some["text"], read["input_ids"], read["offset_mapping"], strict=True
        ):
            spans = list(_questions(name, text))
            asked = [any(low < end <= high for low, high in spans) for _, end in offsets]
            found += [~token if each else token for token, each in zip(ids, asked, strict=True)]
    whole = min(len(found), most) // POSITIONS * POSITIONS
    return torch.tensor(found[:whole], dtype=torch.int32).view(-1, POSITIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Rows of several parts by their position in the run."""

    rows: dict[str, Tensor]
    """Those of each part, (row, token)."""

    weights: dict[str, float]
    """How often each part comes up, relative to the others."""

    seed: int
    """Of the order."""

    def batch(self, first: int, size: int) -> Tensor:
        """The `size` rows from a position on, a function of the position alone."""
        return torch.stack([self._row(position) for position in range(first, first + size)])

    def _row(self, position: int) -> Tensor:
        shares = quotas([self.weights[name] for name in self.rows])
        pool = [name for name, share in zip(self.rows, shares, strict=True) for _ in range(share)]
        block, offset = divmod(position, MIX)
        order = mixed(MIX, number=block, seed=self.seed)
        name = pool[order[offset]]
        index = block * pool.count(name) + sum(pool[each] == name for each in order[:offset])
        rows = self.rows[name]
        epoch, index = divmod(index, len(rows))
        return rows[mixed(len(rows), number=epoch, seed=self.seed)[index]]


def _is_held_out(name: str) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % FILES_HELD_OUT == 0


def _questions(name: str, text: str) -> Iterator[tuple[int, int]]:
    """Where questions stand in a text of made problems: first and last character."""
    if name.startswith(("answered/", "worked/")):
        for match in QUESTION.finditer(text):
            starts = match.start() == 0 or text[match.start() - 1] == "\n"
            whole = text[match.end() : match.end() + 1] == "\n"
            if starts and whole == name.startswith("worked/"):
                yield match.span()
