"""Recipes: everything that decides what a training run makes, in one YAML file.

    x.yaml, or a shipped one's name + `--set section.key=value` --> Recipe --> recipe.yaml in the
    run's folder

An unknown section or key is an error that lists the known ones.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from deliberate.core import plain_yaml
from deliberate.core.coprocessor import CoprocessorConfig, coprocessor_config
from deliberate.core.errors import RecipeError
from deliberate.core.kinds import KINDS, check_kind
from deliberate.core.sources import sources
from deliberate.train.init import settled
from deliberate.train.sections import (
    BaseSection,
    DataSection,
    EvalSection,
    ObjectiveSection,
    TrainSection,
)
from deliberate.train.shipped import recipe_file, shipped


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
        check_kind(self.coprocessor)
        if not math.isfinite(self.coprocessor.latent_scale):
            raise ValueError(
                f"coprocessor.latent_scale must be finite, got {self.coprocessor.latent_scale}"
            )
        self._check_pairs()
        self._check_markers()
        self._check_thoughts()
        self._check_adapted()
        behind = self.objective.ahead + self.objective.delay
        if self.data.length <= behind:
            raise ValueError(
                f"data.length must be above objective.ahead + objective.delay, got "
                f"{self.data.length} and {behind}"
            )

    def _check_pairs(self) -> None:
        if self.data.pairs is not None and self.objective.skip:
            raise ValueError(
                f"objective.skip is {self.objective.skip} and data.question "
                f"{self.data.question!r}: answers are learned from their first token on; leave "
                "objective.skip out"
            )
        if self.data.pairs is not None and self.objective.place != "uniform":
            raise ValueError(
                f"objective.place is {self.objective.place!r} and data.question "
                f"{self.data.question!r}: a question has one anchor, its last token; leave "
                "objective.place out"
            )

    def _check_markers(self) -> None:
        for name in ("train", "validation"):
            for source in sources(getattr(self.data, name) or ()):
                heeded = name == "train" and self.objective.place == "marker"
                if source.markers is not None and not heeded:
                    raise ValueError(
                        f"data.{name} has markers {[*source.markers]} for {source.path!r}: markers "
                        "of a source go with data.train and objective.place marker alone"
                    )

    def _check_thoughts(self) -> None:
        if self.objective.thought and self.data.pairs is not None:
            raise ValueError(
                f"objective.thought is {self.objective.thought} and data.question "
                f"{self.data.question!r}: thoughts go with texts; write them into these, "
                "behind the questions, and name what opens and closes one (`thought` of a source)"
            )
        for name in ("train", "validation"):
            for source in sources(getattr(self.data, name) or ()):
                if source.thought is None:
                    continue
                if name != "train" or not self.objective.thought or self.data.streaming:
                    raise ValueError(
                        f"data.{name} has thought {[*source.thought]} for {source.path!r}: "
                        "thoughts go with data.train, objective.thought above 0 and "
                        "data.streaming false"
                    )
                if self.objective.place != "marker":
                    raise ValueError(
                        f"data.train has thought {[*source.thought]} for {source.path!r} and "
                        f"objective.place is {self.objective.place!r}: with thoughts it must "
                        "be marker"
                    )

    def _check_adapted(self) -> None:
        rank, kind = self.train.adapt_rank, self.coprocessor.kind
        if rank is not None and not KINDS[kind].owns_trunk:
            able = ", ".join(name for name, made in KINDS.items() if made.owns_trunk)
            raise ValueError(
                f"train.adapt_rank is {rank} and kind {kind!r} has no trunk of its own to adapt: "
                f"leave it out to train all weights, or begin from another kind ({able})"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        return dataclasses.asdict(self)


_SECTIONS = {
    "base": BaseSection,
    "data": DataSection,
    "objective": ObjectiveSection,
    "train": TrainSection,
    "eval": EvalSection,
}


def load_recipe(path: str | Path | None = None, *, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes from the command line on top.

    Args:
        path: A YAML file, or a shipped recipe's name; none gives the defaults.
        changes: Each `section.key=value`, the value in YAML.

    Raises:
        RecipeError: the file cannot be read or is not a recipe.
        DeliberateError: it begins from a coprocessor that is not to be had.
        ValueError: an unknown section or key, or a value that cannot be.
    """
    content = {} if path is None else _read(recipe_file(path))
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"a change must look like train.steps=100, got {change!r}")
        if not isinstance(content.setdefault(section, {}), dict):
            raise ValueError(f"section {section!r} must hold keys, got {content[section]!r}")
        content[section][key] = _value(change, text)
    return resolve(content)


def resolve(content: dict[str, Any]) -> Recipe:
    """Make a recipe of plain values.

    Raises:
        DeliberateError: it begins from a coprocessor that is not to be had.
        ValueError: an unknown section or key, or a value that cannot be.
    """
    known = [*_SECTIONS, "coprocessor"]
    unknown = [name for name in content if name not in known]
    if unknown:
        raise ValueError(f"unknown section {unknown[0]!r}: known are {', '.join(sorted(known))}")
    for name, values in content.items():
        if not isinstance(values, dict):
            raise ValueError(f"section {name!r} must hold keys, got {values!r}")
        odd = [key for key in values if not isinstance(key, str)]
        if odd:
            raise ValueError(f"section {name!r} must hold keys that are text, got {odd[0]!r}")
    sections = {
        name: _section(name, kind, content.get(name, {})) for name, kind in _SECTIONS.items()
    }
    settings = _checked("coprocessor", CoprocessorConfig, content.get("coprocessor", {}))
    start = settings.get("start", "")  # no field, so that its type was not looked at
    if not isinstance(start, str):
        raise ValueError(f"coprocessor.start must be str, got {start!r}")
    return Recipe(coprocessor=settled(sections["train"].init, settings), **sections)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = plain_yaml.read(path)
    except FileNotFoundError as error:
        raise RecipeError(
            f"no recipe at {str(path)!r}: give a YAML file, the name of one that ships "
            f"({', '.join(shipped())}), or none for a short run on nano"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"cannot read recipe {str(path)!r}: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {str(path)!r} must hold sections such as `train:`")
    return content


def _value(change: str, text: str) -> Any:
    """What a change sets.

    Raises:
        ValueError: its text is not YAML.
    """
    try:
        return plain_yaml.parse(text)
    except ValueError as error:  # also of a date that cannot be
        raise ValueError(f"change {change!r} is not YAML: {error}; quote its value") from error


def _section(name: str, kind: Any, values: dict[str, Any]) -> Any:
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"unknown key {name}.{unknown[0]}: known are {', '.join(known)}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in values and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{name} must have {missing[0]}, got {values!r}")
    return kind(**_checked(name, kind, values))


def _listed(name: str, kind: Any, value: Any) -> Any:
    """One of several values that have keys of their own, the first of which text alone stands for.

    Raises:
        ValueError: it has none.
    """
    first = dataclasses.fields(kind)[0].name
    if isinstance(value, str):
        value = {first: value}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a list of {{{first}: ...}}, got {value!r} in it")
    return _section(name, kind, value)


def _number(value: Any) -> Any:
    """A float of an integer, and of what YAML takes for text: `1e-4` without a point."""
    if type(value) is int or (isinstance(value, str) and "e" in value.lower()):
        try:
            return float(value)
        except (ValueError, OverflowError):
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
        rows = next((each for each in allowed if get_origin(each) is tuple), None)
        if rows is not None and isinstance(value, list):
            wanted = get_args(rows)[0]
            if dataclasses.is_dataclass(wanted):
                checked[name] = tuple(_listed(f"{section}.{name}", wanted, each) for each in value)
                continue
            odd = [each for each in value if type(each) is not wanted]
            if odd:
                raise ValueError(
                    f"{section}.{name} must be a list of {wanted.__name__}, got {odd[0]!r} in it"
                )
            checked[name] = tuple(value)
            continue
        if type(value) not in {get_origin(each) or each for each in allowed}:
            wanted = " or ".join(
                "list" if get_origin(t) is tuple else (get_origin(t) or t).__name__
                for t in allowed
                if t is not type(None)
            )
            quoted = "; quote text that YAML takes for more" if isinstance(value, dict) else ""
            raise ValueError(f"{section}.{name} must be {wanted}, got {value!r}{quoted}")
    return checked
