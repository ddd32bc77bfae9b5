"""Names of models and datasets, as far as they can be told from others without asking the Hub."""

import re
from pathlib import Path

DATASET_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""`deliberate.core.sources.HUB_ID`."""

_ROWS_OR_TEXT = re.compile(r".*\.(txt|(jsonl|parquet)(\.gz)?)")
"""What is here or nowhere, though it be like such an id."""

_MAYBE_HUB_ID = re.compile(r"(hf://(models/)?)?(\w[^/@]*/)?\w[^/@]*(@.*)?", re.DOTALL)
"""Every id of the Hub's, and more; `deliberate.core.hub_id` tells them apart."""


def may_be_source(name: str) -> bool:
    """Whether a name is of something here, or of a dataset that the Hub may have.

    `deliberate.core.sources` looks for it again.
    """
    if Path(name).exists():
        return True
    return DATASET_ID.fullmatch(name) is not None and _ROWS_OR_TEXT.fullmatch(name) is None


def check_there(name: str, *, what: str, bare: bool = False) -> None:
    """See that a name is of a folder, or of one that the Hub may have.

    Args:
        name: What was typed.
        what: What is looked for, for the message.
        bare: Whether an id may lack a user, as `gpt2` does.

    Raises:
        FileNotFoundError: it is not.
        NotADirectoryError: it is a file's.
    """
    if name and Path(name).is_file():
        raise NotADirectoryError(f"{name!r} is a file and not a {what}'s folder: name the folder")
    if name and Path(name).is_dir():
        return
    maybe = _MAYBE_HUB_ID.fullmatch(name)
    if maybe is None or not (maybe[3] or bare):
        raise FileNotFoundError(
            f"no {what} at {name!r:.200}: it is neither a folder nor a Hub id like 'user/repo' "
            "or 'user/repo@revision'"
        )
