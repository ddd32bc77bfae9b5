"""A base's folder, checked before a library opens what is in it.

    folder --check--> nothing, or one sentence that says what is wrong

transformers joins the names in a folder's files to its path as they are: an index of shards may
name a file anywhere, which no fingerprint covers, and `adapter_config.json` another model.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from deliberate.core import plain_file, plain_json
from deliberate.core.errors import DeliberateError

INDEX = "model.safetensors.index.json"

_READ = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", INDEX)

_SAYING = (ImportError, OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError)
"""What libraries raise with a sentence in it."""

_RAISED = (*_SAYING, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)
"""What they raise of files that say what cannot be: none of them looks at all of it first."""


@contextmanager
def explained(
    wrong: str, *, mend: str = "get the model again", of: tuple[type[Exception], ...] = _RAISED
) -> Generator[None]:
    """Turn what a library raises of a base's configuration or files into one sentence.

    Args:
        wrong: How the sentence begins.
        mend: How it ends where the library says no sentence of its own.
        of: What is raised; all that libraries raise is for blocks of theirs alone.

    Raises:
        DeliberateError: the block raised something.
    """
    try:
        yield
    except of as error:
        raise DeliberateError(f"{wrong}: {_reason(error, mend)}") from error


def _reason(error: Exception, mend: str) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    # Of a field, the first line says which one, and the second one what it has.
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if "ignore_mismatched_sizes" in first:  # an option that nobody here can set
        return "its weights have other shapes than its config.json says: get the model again"
    if isinstance(error, _SAYING) and first:
        return first
    return f"it says what cannot be or is not known ({type(error).__name__}: {first}): {mend}"


def check(folder: Path, *, name: str) -> None:
    """Refuse a folder whose files lead out of it, or are none.

    Args:
        folder: The base's.
        name: What the user calls it, for the message.

    Raises:
        DeliberateError: says which file, and what is wrong with it.
    """
    if (folder / "adapter_config.json").exists():
        raise DeliberateError(
            f"{name!r} has an adapter_config.json, which names another model: merge the adapter "
            "into its model, and name the folder of that"
        )
    found: dict[str, Any] = {}
    wrong = f"cannot load {name!r} as a base model"
    with explained(wrong, of=(OSError, ValueError, RecursionError)):
        for path in sorted({path for pattern in _READ for path in folder.glob(pattern)}):
            with plain_file.opened(path):
                pass
        for file in _SETTINGS:
            if (folder / file).exists():
                found[file] = _object(folder / file)
        _check_names(found, folder, name)
        kernels = [*filter(None, _values(found.get("config.json"), "attn_implementation"))]
    if odd := [each for each in kernels if not isinstance(each, str) or "/" in each]:
        raise DeliberateError(
            f"{name!r} asks in its config.json for attention by {odd[0]!r:.80}, which would be "
            "code from the Hub: take that line out"
        )


def _object(path: Path) -> dict[str, Any]:
    """What a file of settings holds, by the rules of those who wrote it: `Infinity` is in some.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        content = json.loads(plain_file.read(path, most=plain_json.MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} holds no JSON object")
    return content


def _check_names(found: dict[str, Any], folder: Path, name: str) -> None:
    """See that what names a file names one of the folder's own.

    Raises:
        DeliberateError: it does not.
    """
    shards = found.get(INDEX, {"weight_map": {}}).get("weight_map")
    if not isinstance(shards, dict):
        raise DeliberateError(f"{name!r} has no weight_map in its {INDEX}: get the model again")
    settings = found.get("tokenizer_config.json", {})
    several = settings.get("fast_tokenizer_files") or []
    if not isinstance(several, list):
        raise DeliberateError(
            f"{name!r} has fast_tokenizer_files in its tokenizer_config.json that are no list: get "
            "the model again"
        )
    others = [settings.get("fast_tokenizer_file"), *several]
    for file, named in (
        *((INDEX, each) for each in dict.fromkeys(map(str, shards.values()))),
        *(("tokenizer_config.json", each) for each in others if each is not None),
    ):
        suffix = ".safetensors" if file == INDEX else ".json"
        if not isinstance(named, str) or Path(named).name != named or not named.endswith(suffix):
            raise DeliberateError(
                f"{name!r} names {named!r:.200} in its {file}, which is no *{suffix} of its own "
                "folder: get the model again"
            )
        if not (folder / named).is_file():
            raise DeliberateError(
                f"{name!r} names {named!r:.200} in its {file} and does not hold it: get the model "
                "again"
            )


def _values(value: Any, ending: str) -> list[Any]:
    """What is under the keys that end so, at any depth."""
    if isinstance(value, dict):
        own = [each for key, each in value.items() if key.endswith(ending)]
        return [*own, *(found for each in value.values() for found in _values(each, ending))]
    if isinstance(value, list):
        return [found for each in value for found in _values(each, ending)]
    return []
