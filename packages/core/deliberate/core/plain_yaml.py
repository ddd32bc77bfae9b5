"""YAML that somebody else may have written: plain values, and no more of them than are there.

text --parse--> plain values, or one sentence that says what is wrong
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from deliberate.core import plain_file
from deliberate.core.plain_json import MOST_DEPTH

MOST_BYTES = 1 << 20
"""Of a recipe; those that ship have less than 4,000."""


class _Loader(yaml.SafeLoader):
    """Refuses what would grow, and a key given twice, of which the library keeps the last."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A value and all in it.

        Raises:
            ValueError: it is an alias, or too deep.
        """
        # Nine lines of aliases of aliases are a billion values.
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"line {self.peek_event().start_mark.line + 1} has an alias (`*`)")
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: Any) -> Any:
        """A text, in which two escapes that are one character in JSON are one here too.

        Raises:
            ValueError: it holds half a character.
        """
        text = super().construct_scalar(node)
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            line = node.start_mark.line + 1
            raise ValueError(
                f"line {line} holds half a character, which no text has: write the whole of it"
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """The keys and values of a mapping.

        Raises:
            ValueError: a key is given twice.
        """
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key.value, str) else None
            if name in seen:
                raise ValueError(f"line {key.start_mark.line + 1} gives {key.value!r:.80} again")
            seen.add(name or id(key))
        return super().construct_mapping(node, deep)


def read(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than a recipe can be.
        ValueError: it is not YAML, or not plain.
    """
    return parse(plain_file.read(path, most=MOST_BYTES).decode("utf-8"))


def parse(text: str) -> Any:
    """The value that YAML holds: no tags of Python's, no aliases.

    Raises:
        ValueError: it is not YAML, holds an alias, a key twice or half a character, or is nested
            too deep.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError("it holds what is too large or nested too deep") from error
