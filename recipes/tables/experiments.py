"""What `docs/results.md` is made of, as `experiments.yaml` declares it.

experiments.yaml, nano.yaml --> runs as changes of one recipe, measures, tables
a run, the base's fingerprint --> its key: whether a measurement is still of it
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deliberate.core import plain_yaml
from deliberate.train.recipe import Recipe, load_recipe

HERE = Path(__file__).parent
EXPERIMENTS, BUDGET = HERE / "experiments.yaml", HERE.parent / "nano.yaml"

SHOWS = ("tokens", "controls", "chains", "reasoning", "late")
"""How a table may be shown; `results_page.py` has a function for each."""

NAMED = re.compile(r"@([\w-]+(?:\.jsonl)?)")
"""A run's folder or a file of pairs, within a value or an argument."""

COST = "cost"
"""The measure that every row of every table has beside its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page."""

    name: str
    title: str
    show: str
    """One of `SHOWS`."""

    measure: str
    runs: Sequence[str]
    note: str = ""
    paper: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The paper's own rows, changes in percent at the tokens shown."""

    by: str = ""
    """`steps`: the plot is by the runs' steps and not by token ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiments:
    """Everything that is trained and measured."""

    budget: Path
    """The recipe that all runs are changes of."""

    said: Mapping[str, Any]
    """What it says, without what it leaves to the defaults: an option that is new to recipes makes
    no run another."""

    common: Recipe
    """What it says, resolved."""

    runs: Mapping[str, Mapping[str, Any]]
    """Changes by run."""

    bases: Mapping[str, Mapping[str, Any]]
    """Bases to be trained and compared with, by name: `layers`."""

    pairs: Mapping[str, Any]
    """`family`, `steps`, and how many pairs of each split."""

    measures: Mapping[str, str]
    """Arguments of `deliberate eval`."""

    tables: Mapping[str, Table]

    def __post_init__(self) -> None:
        """See that what is named is there.

        Raises:
            ValueError: a table, a measure or a run names what is not.
        """
        for table in self.tables.values():
            _check(f"show of table {table.name}", table.show, SHOWS)
            _check(f"measure of table {table.name}", table.measure, self.measures)
            for run in table.runs:
                _check(f"run of table {table.name}", run, [*self.runs, *self.bases])
        for where, text in (
            *((f"run {name}", json.dumps(run)) for name, run in self.runs.items()),
            *((f"measure {name}", text) for name, text in self.measures.items()),
        ):
            for named in NAMED.findall(text):
                _check(f"what {where} names", named, [*self.runs, *PAIRS])

    def recipe(self, name: str, place: Callable[[str], str]) -> Recipe:
        """A run's recipe, resolved.

        Args:
            name: Of the run.
            place: Where a run that it begins from, or a file of pairs, is.

        Raises:
            ValueError: a change is none of a recipe, or not possible.
        """
        return load_recipe(self.budget, changes=self.changes(name, place))

    def changes(self, name: str, place: Callable[[str], str]) -> list[str]:
        """What `deliberate train --set` takes for a run.

        Args:
            name: Of the run.
            place: As in `recipe`.
        """
        changes = dict(self.runs[name])
        if (share := changes.pop("share", None)) is not None:
            for part in ("steps", "warmup"):
                whole = getattr(self.common.train, part)
                changes[f"train.{part}"] = max(1, round(share * whole))
        return [f"{key}={_written(value, place)}" for key, value in changes.items()]

    def arguments(self, measure: str, place: Callable[[str], str]) -> str:
        """What `deliberate eval RUN` takes for a measure."""
        return NAMED.sub(lambda found: place(found[1]), self.measures[measure])

    def after(self, text: str) -> list[str]:
        """The runs that a run's changes or a measure's arguments name."""
        return [name for name in dict.fromkeys(NAMED.findall(text)) if name in self.runs]

    def key(self, name: str, base: str) -> str:
        """What a run comes to depends on: eight digits of a hash.

        Args:
            name: Of the run.
            base: Fingerprint of the base.
        """
        if name in self.bases:
            return _hash([base, self.common.data.length, dict(self.bases[name])])
        changes = self.changes(name, lambda named: f"@{named}")
        before = [self.key(each, base) for each in self.after(json.dumps(self.runs[name]))]
        pairs = [dict(self.pairs)] if "pairs-" in json.dumps(changes) else []
        return _hash([base, self.said, changes, before, pairs])

    def measured_key(self, measure: str, base: str) -> str:
        """What a measure depends on besides its run: its arguments, and the runs they name."""
        text = self.measures[measure]
        pairs = [dict(self.pairs)] if "@pairs-" in text else []
        return _hash([text, [self.key(each, base) for each in self.after(text)], pairs])


PAIRS = ("pairs-train.jsonl", "pairs-validation.jsonl")
"""Files of questions and answers, one a split."""


def load(path: Path = EXPERIMENTS, budget: Path = BUDGET) -> Experiments:
    """Read the experiments.

    Args:
        path: The file of runs, measures and tables.
        budget: The recipe that all runs are changes of.

    Raises:
        ValueError: a key is missing or unknown, or names what is not there.
    """
    content = plain_yaml.read(path)
    known = ("runs", "bases", "pairs", "measures", "tables")
    if not isinstance(content, dict) or set(content) != set(known):
        raise ValueError(f"{str(path)!r} must hold {', '.join(known)}, got {list(content or ())}")
    try:
        tables = {
            name: Table(name=name, **{**said, "note": " ".join(said.get("note", "").split())})
            for name, said in content.pop("tables").items()
        }
        runs = content["runs"]
        content["runs"] = {name: _whole(name, runs) for name in runs}
        content["measures"] = {
            name: " ".join(text.split()) for name, text in content["measures"].items()
        }
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"a run, table or measure of {str(path)!r} is not complete: {error}"
        ) from error
    common = load_recipe(budget)
    said = plain_yaml.read(budget)
    return Experiments(budget=budget, said=said, common=common, tables=tables, **content)


def _whole(name: str, runs: Mapping[str, Any], *, within: Sequence[str] = ()) -> dict[str, Any]:
    """A run's changes with those of the run that it is like.

    Raises:
        ValueError: there is no such run, or a run is like itself.
    """
    changes = dict(runs[name])
    if (other := changes.pop("like", None)) is None:
        return changes
    _check(
        f"what run {name} is like", other, [each for each in runs if each not in (*within, name)]
    )
    return {**_whole(other, runs, within=[*within, name]), **changes}


def _written(value: Any, place: Callable[[str], str]) -> str:
    """A value in YAML; quoted where it would lose its blanks."""
    if isinstance(value, str):
        value = NAMED.sub(lambda found: place(found[1]), value)
        return value if value.strip() == value else json.dumps(value)
    return json.dumps(value)


def _check(what: str, name: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """See that something is there.

    Raises:
        ValueError: it is not.
    """
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
