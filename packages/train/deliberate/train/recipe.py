"""Recipes: everything that decides what a training run makes, in one YAML file.

    recipes/x.yaml + `--set section.key=value` --> Recipe --> recipe.yaml in the run's folder

An unknown section or key is an error that lists the known ones.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from deliberate.core.coprocessor import CoprocessorConfig, coprocessor_config
from deliberate.core.errors import RecipeError
from deliberate.core.kinds import KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSection:
    """The frozen model."""

    id: str = "nano"
    """`nano`, a folder or a Hub id."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """In which its weights are held while training; `bfloat16` also trains under autocast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """The texts."""

    train: str = "stdlib"
    """`stdlib`, `installed`, a text file, a JSONL file or a folder."""

    validation: str | None = None
    """Likewise. None: the held-out modules of `stdlib` and `installed`, or the last rows of
    the training texts."""

    field: str = "text"
    """The key of the text in JSONL files."""

    length: int = 512
    """Tokens in each packed row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """What is learned: the tokens after anchors."""

    ahead: int = 8
    """Tokens after each anchor that the loss is taken on (the paper's N_A)."""

    anchors: int = 64
    """Anchors drawn in each row (the paper draws 128 in 2,048 tokens)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """How it is learned."""

    steps: int = 300
    """Optimizer steps."""

    batch: int = 8
    """Rows in each forward and backward."""

    accumulate: int = 1
    """Forwards and backwards in each optimizer step."""

    learning_rate: float = 2e-4
    """Peak rate of the network's weights."""

    soft_learning_rate: float | None = 1e-3
    """Peak rate of soft tokens and soft embeddings; none is that of the network."""

    warmup: int = 50
    """Steps over which the rate rises to its peak; it then falls as a cosine."""

    final_rate: float = 0.0
    """The rate at the last step, as a share of its peak."""

    weight_decay: float = 0.0
    """Of matrices; vectors and soft tokens have none."""

    beta2: float = 0.98
    """AdamW's second decay rate."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    seed: int = 0
    """Of initialisation, the order of rows and the anchors."""

    checkpoint_every: int = 250
    """Steps between checkpoints."""

    keep: int = 2
    """Checkpoints kept."""

    validate_every: int = 250
    """Steps between validations; the last step is always validated."""

    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the finished coprocessor's weights are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSection:
    """How validation and `deliberate eval` measure."""

    texts: int = 64
    """Passages of held-out text; each has at most `data.length` tokens."""

    anchors: int = 32
    """Anchors in each passage."""

    ahead: int = 32
    """Tokens after each anchor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole training run."""

    base: BaseSection = field(default_factory=BaseSection)
    data: DataSection = field(default_factory=DataSection)
    coprocessor: CoprocessorConfig = field(default_factory=coprocessor_config)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    train: TrainSection = field(default_factory=TrainSection)
    eval: EvalSection = field(default_factory=EvalSection)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        if self.coprocessor.kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(
                f"coprocessor.kind must be one of {known}, got {self.coprocessor.kind!r}"
            )
        for section, name in _AT_LEAST_ONE:
            value = getattr(getattr(self, section), name)
            if value < 1:
                raise ValueError(f"{section}.{name} must be at least 1, got {value}")
        if self.data.length <= self.objective.ahead:
            raise ValueError(
                f"data.length must be above objective.ahead, got {self.data.length} and "
                f"{self.objective.ahead}"
            )
        if self.train.learning_rate <= 0:
            raise ValueError(f"train.learning_rate must be above 0, got {self.train.learning_rate}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        return dataclasses.asdict(self)


_AT_LEAST_ONE = [
    ("data", "length"),
    ("objective", "ahead"),
    ("objective", "anchors"),
    ("train", "steps"),
    ("train", "batch"),
    ("train", "accumulate"),
    ("train", "checkpoint_every"),
    ("train", "keep"),
    ("train", "validate_every"),
    ("eval", "texts"),
    ("eval", "anchors"),
    ("eval", "ahead"),
]

_SECTIONS = {
    "base": BaseSection,
    "data": DataSection,
    "objective": ObjectiveSection,
    "train": TrainSection,
    "eval": EvalSection,
}


def load_recipe(path: Path | None = None, *, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes from the command line on top.

    Args:
        path: A YAML file; none gives the defaults.
        changes: Each `section.key=value`, the value in YAML.

    Raises:
        RecipeError: the file cannot be read or is not a recipe.
        ValueError: an unknown section or key, or a value that cannot be.
    """
    content = _read(path) if path else {}
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"a change must look like train.steps=100, got {change!r}")
        if not isinstance(content.setdefault(section, {}), dict):
            raise ValueError(f"section {section!r} must hold keys, got {content[section]!r}")
        content[section][key] = yaml.safe_load(text)
    return resolve(content)


def resolve(content: dict[str, Any]) -> Recipe:
    """Make a recipe of plain values.

    Raises:
        ValueError: an unknown section or key, or a value that cannot be.
    """
    known = [*_SECTIONS, "coprocessor"]
    unknown = [name for name in content if name not in known]
    if unknown:
        raise ValueError(f"unknown section {unknown[0]!r}: known are {', '.join(sorted(known))}")
    for name, values in content.items():
        if not isinstance(values, dict):
            raise ValueError(f"section {name!r} must hold keys, got {values!r}")
    sections = {
        name: _section(name, kind, content.get(name, {})) for name, kind in _SECTIONS.items()
    }
    settings = _checked("coprocessor", CoprocessorConfig, content.get("coprocessor", {}))
    return Recipe(coprocessor=coprocessor_config(**settings), **sections)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(
            f"no recipe at {str(path)!r}: give a YAML file, or none for nano"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"cannot read recipe {str(path)!r}: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {str(path)!r} must hold sections such as `train:`")
    return content


def _section(name: str, kind: Any, values: dict[str, Any]) -> Any:
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"unknown key {name}.{unknown[0]}: known are {', '.join(known)}")
    return kind(**_checked(name, kind, values))


def _number(value: Any) -> Any:
    """A float of an integer, and of what YAML takes for text: `1e-4` without a point."""
    if type(value) is int or (isinstance(value, str) and "e" in value.lower()):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _checked(section: str, kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values, each of its field's type; an integer serves where a float is wanted.

    Raises:
        ValueError: a value is of another type, or not among its field's choices.
    """
    checked = dict(values)
    hints = get_type_hints(kind)
    for name in values.keys() & hints.keys():
        value, hint = values[name], hints[name]
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                allowed = " or ".join(get_args(hint))
                raise ValueError(f"{section}.{name} must be {allowed}, got {value!r}")
            continue
        allowed = get_args(hint) or (hint,)
        if float in allowed:
            checked[name] = value = _number(value)
        if type(value) not in allowed:
            wanted = " or ".join(t.__name__ for t in allowed if t is not type(None))
            raise ValueError(f"{section}.{name} must be {wanted}, got {value!r}")
    return checked
