"""What arguments of `deliberate eval` say together, checked before anything heavy is imported.

parameters --one that excludes another, or a run that is nowhere--> one sentence
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deliberate.cli.eval_against import BASELINES, NOTHING, parsed
from deliberate.cli.eval_names import EMBEDDED_RUNS, EMBEDDED_TEXTS, delays, listed
from deliberate.cli.eval_tasks import COST, PERPLEXITY, PROBLEMS
from deliberate.cli.places import check_there, may_be_source


def check_runs(runs: Sequence[str], baselines: Iterable[str]) -> None:
    """See that each run is named once, and that it and each baseline may be found.

    Args:
        runs: What is measured.
        baselines: What it is compared with.

    Raises:
        OSError: a run is neither here nor can it be on the Hub.
        ValueError: a run is named twice.
    """
    places: set[str | Path] = set()
    for run in runs:
        place = run if run in EMBEDDED_RUNS else Path(run).resolve()
        if place in places:
            raise ValueError(f"{run!r} is named twice: name each run once")
        places.add(place)
    for run in (*runs, *baselines):
        if run not in EMBEDDED_RUNS:
            check_there(run, what="coprocessor")


def check_texts(wanted: Sequence[str], said: Mapping[str, Any]) -> None:
    """See that options for texts go together, where texts are measured.

    Args:
        wanted: Names of the tasks.
        said: The command's parameters, with the values of a suite.

    Raises:
        ValueError: two do not.
    """
    if PERPLEXITY not in wanted:
        return
    if said["data"] == "":
        raise ValueError("--data is empty: name held-out texts, or leave it out")
    _check_data(said["data"])
    if said["skip_bad"] and said["data"] is None:
        raise ValueError("--skip-bad is for files of --data, and none is named: leave it out")
    if said["anchors"] is not None and said["every_token"]:
        raise ValueError(
            f"--every-token and --anchors {said['anchors']} exclude each other: leave out one"
        )
    _check_columns(said)
    late = None if said["delay"] is None else delays(said["delay"])
    _check_length(said["length"], said["ahead"], max(late or (0,)))
    if said["against"] is not None:
        against = parsed(said["against"])
        if PROBLEMS in wanted:  # which chains of thought are for
            against = replace(against, chains=())
        against.check(ahead=said["ahead"], delays=late)


def check_costs(wanted: Sequence[str], said: Mapping[str, Any]) -> None:
    """See that what costs are compared with has a cost of its own.

    Args:
        wanted: Names of the tasks.
        said: The command's parameters, with the values of a suite.

    Raises:
        ValueError: something has not.
    """
    if list(wanted) != [COST] or said["against"] is None:
        return
    for each in listed("control", said["against"]):
        if each.partition(":")[0] not in (*BASELINES, NOTHING):
            raise ValueError(
                f"against {each!r} is for answers and not for their costs, which --cost compares "
                f"with {' and '.join(f'{name}:RUN' for name in BASELINES)}: leave it out"
            )


def _check_data(data: str | None) -> None:
    """See that there may be texts of a name.

    Raises:
        FileNotFoundError: nothing here has that name, and nothing on the Hub can.
    """
    if not (data is None or data in EMBEDDED_TEXTS or may_be_source(data)):
        raise FileNotFoundError(
            f"no texts at {data!r:.200}: give a file, a folder, a Hub id like 'owner/name' or one "
            f"of {', '.join(EMBEDDED_TEXTS)}"
        )


def _check_columns(said: Mapping[str, Any]) -> None:
    """See that columns of questions and answers are named together.

    Raises:
        ValueError: they are not, or beside the column of texts.
    """
    named = [
        name for name in ("question", "answer", "template", "separator") if said[name] is not None
    ]
    if named and (not {"question", "answer"} <= {*named} or said["field"] is not None):
        odd = ", ".join(f"--{name}" for name in [*named, *(["field"] if said["field"] else [])])
        raise ValueError(
            f"--question and --answer go together, and without --field, got {odd}: name both "
            "columns, or leave out what goes with them"
        )


def _check_length(length: int | None, ahead: int, late: int) -> None:
    """See that a passage has room for more than one anchor, as `Sample` does again.

    Raises:
        ValueError: it has not.
    """
    least = ahead + late + 2
    if length is not None and length < least:
        plus = " + delay" if late else ""
        raise ValueError(f"length must be at least ahead{plus} + 2 = {least}, got {length}")
