"""Rows of local files as the harness's tasks expect them, where the two differ.

    a file's row --one function a benchmark--> a row with the columns of the Hub's data set

A file whose rows have the Hub's columns already is taken as it is.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that a benchmark's rows may have."""

    hub: tuple[str, ...]
    """Those of the data set on the Hub, which the harness's task reads."""

    local: tuple[str, ...] = ()
    """Others that are known, if there are any."""

    convert: Callable[[Row], Row] = lambda row: row
    """From `local` to `hub`; raises `ValueError` where a text has not the form it should have."""


def conform(row: Mapping[str, Any], columns: Columns) -> Row:
    """A row with the columns that the harness reads, and no others.

    Raises:
        ValueError: it has neither the one nor the other columns, or a text has another form.
    """
    if all(name in row for name in columns.hub):
        return {name: row[name] for name in columns.hub}
    expected = columns.local or columns.hub
    for name in expected:
        if name not in row:
            either = f", or {', '.join(columns.hub)}" if columns.local else ""
            raise ValueError(f"no field {name!r}: expected are {', '.join(expected)}{either}")
    return columns.convert(dict(row))


def _after(text: str, start: str, field: str) -> str:
    if not text.startswith(start):
        raise ValueError(f"field {field!r} does not begin with {start!r}")
    return text[len(start) :]


def _match(pattern: str, text: str, field: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None:
        raise ValueError(f"field {field!r} has not the form {pattern!r}")
    return found.groups()


def _arc(row: Row) -> Row:
    labels = list(string.ascii_uppercase[: len(row["choices"])])
    return {
        "question": _after(row["query"], "Question: ", "query"),
        "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }


def _math(row: Row) -> Row:
    return {"problem": row["context"], "solution": row["chain_of_thought"]}


def _winogrande(row: Row) -> Row:
    """The harness cuts the sentence at its blank: what is before it is in the options here."""
    first, second = row["context_options"]
    return {
        "sentence": f"_ {row['continuation']}",
        "option1": first,
        "option2": second,
        "answer": str(row["gold"] + 1),
    }


def _piqa(row: Row) -> Row:
    first, second = row["choices"]
    goal = _after(row["query"], "Question: ", "query").removesuffix("\n")
    return {"goal": goal, "sol1": first, "sol2": second, "label": row["gold"]}


def _siqa(row: Row) -> Row:
    """Context and question are one text here; the harness joins them with a space anyway."""
    text, *answers = _match(
        r"[^:]*: (.*)\n\nAnswer1: (.*) Answer2: (.*) Answer3: (.*)\n\nAnswer format: .*",
        row["instruction"],
        "instruction",
    )
    context, _, question = text.partition(" ")
    names = dict(zip(("answerA", "answerB", "answerC"), answers, strict=True))
    label = _after(row["answer"], "answer", "answer")
    return {"context": context, "question": question, "label": label, **names}


def _hellaswag(row: Row) -> Row:
    """Without an activity, and the two sentences of the context in one: see docs/benchmarks.md."""
    return {
        "activity_label": "",
        "ctx_a": row["ctx"],
        "ctx_b": "",
        "endings": row["endings"],
        "label": str(row["label"]),
    }


def _boolq(row: Row) -> Row:
    pattern = r"Passage: (.*)\nQuestion: (.*)\?(?:\nAnswer:)?"
    passage, question = _match(pattern, row["query"], "query")
    if row["choices"] != ["no", "yes"]:
        raise ValueError(f"field 'choices' must be ['no', 'yes'], got {row['choices']}")
    return {"passage": passage, "question": question, "label": row["gold"]}


def _triviaqa(row: Row) -> Row:
    """The harness puts a question mark after the question, as it does after the Hub's own."""
    (question,) = _match(r"Question: (.*)\nAnswer:", row["context"], "context")
    return {"question": question, "answer": {"aliases": row["aliases"]}}


_PROMPTS = {
    # Of the benchmark's own code: before the question, before the options, at the end with
    # options, and at the end without.
    "english": (
        "Q: ",
        " Answer Choices: ",
        "A: Among A through {}, the answer is",
        "A: The answer is",
    ),
    "chinese": ("问题：", " 选项：", "答案：从A到{}, 我们应选择", "答案："),  # noqa: RUF001
}


def _agieval(row: Row) -> Row:
    """With the prompt that the benchmark's own code makes of it."""
    question, options, end, _ = _PROMPTS[row["language"]]
    letters = string.ascii_uppercase[: len(row["options"])]
    return {
        "query": (row["passage"] or "")
        + question
        + row["question"]
        + options
        + " ".join(row["options"])
        + "\n"
        + end.format(letters[-1]),
        "choices": row["options"],
        # Some have several, some are written with spaces or a full stop, and one has none.
        "gold": [letters.index(letter) for letter in row["label"] if letter in letters],
    }


def _agieval_cloze(row: Row) -> Row:
    question, _, _, end = _PROMPTS[row["language"]]
    query = (row["passage"] or "") + question + row["question"] + "\n" + end
    return {"query": query, "answer": row["answer"]}


_ARC = Columns(
    hub=("question", "choices", "answerKey"), local=("choices", "query", "gold"), convert=_arc
)

COLUMNS = {
    "mmlu": Columns(hub=("question", "choices", "answer")),
    "gsm8k": Columns(hub=("question", "answer")),
    "drop": Columns(hub=("query_id", "passage", "question", "answer", "validated_answers")),
    "arc_easy": _ARC,
    "arc_challenge": _ARC,
    "math": Columns(
        hub=("problem", "solution"), local=("context", "chain_of_thought"), convert=_math
    ),
    "winogrande": Columns(
        hub=("sentence", "option1", "option2", "answer"),
        local=("context_options", "continuation", "gold"),
        convert=_winogrande,
    ),
    "piqa": Columns(
        hub=("goal", "sol1", "sol2", "label"), local=("choices", "query", "gold"), convert=_piqa
    ),
    "siqa": Columns(
        hub=("context", "question", "answerA", "answerB", "answerC", "label"),
        local=("instruction", "answer"),
        convert=_siqa,
    ),
    "hellaswag": Columns(
        hub=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        local=("ctx", "endings", "label"),
        convert=_hellaswag,
    ),
    "boolq": Columns(
        hub=("passage", "question", "label"), local=("query", "choices", "gold"), convert=_boolq
    ),
    "mbpp": Columns(hub=("task_id", "text", "code", "test_list")),
    "agieval": Columns(
        hub=("query", "choices", "gold"),
        local=("passage", "question", "options", "label"),
        convert=_agieval,
    ),
    "agieval_cloze": Columns(
        hub=("query", "answer"), local=("passage", "question", "answer"), convert=_agieval_cloze
    ),
    "triviaqa": Columns(
        hub=("question", "answer"), local=("context", "aliases"), convert=_triviaqa
    ),
    "nq_open": Columns(hub=("question", "answer")),
    "humaneval": Columns(hub=("task_id", "prompt", "entry_point", "test")),
    "bbh": Columns(hub=("input", "target")),
}
"""By benchmark; AGIEval's rows without options are of another kind."""
