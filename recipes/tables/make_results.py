"""Make `docs/results.md`: train what its tables need, measure it, write the page. `make results`.

    experiments.yaml --runs not yet trained--> build/results --measures not yet made-->
    docs/results/NAME.json --> docs/results.md, docs/results/*.png

Stopped, it goes on: a run from its last checkpoint, a table from its first measure that is missing.
What `docs/results` holds of the same recipe and the same base is never made again. Several may run
at once: two of them never work on one run.
"""

import argparse
import sys
from pathlib import Path

from experiments import BUDGET, EXPERIMENTS, Experiments, load
from results_page import write_page
from running import Failed, Maker

DOCS, WORK = Path("docs"), Path("build/results")


def main() -> int:
    """Make the tables that were asked for, and write the page of all there is."""
    options = parsed()
    try:
        experiments = load(options.experiments, options.budget)
        tables = chosen(experiments, options.only)
    except (OSError, ValueError) as error:
        say(str(error))
        return 2
    maker = Maker(experiments, kept=options.output / "results", work=options.work)
    failed = []
    for name in [] if options.page else tables:
        table, done = experiments.tables[name], True
        for run, measure in maker.wanted(table):
            try:
                maker.measure(run, measure)
            except Failed as error:
                failed.append(f"{name}, {run}: {error}")
                done = False
        write_page(experiments, maker.base, options.output)
        say(f"{name}: {'done' if done else 'not complete'}")
    path = write_page(experiments, maker.base, options.output)
    say(f"wrote {path}")
    for each in failed:
        say(f"failed: {each}")
    return 1 if failed else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="tables, with commas between them")
    parser.add_argument("--page", action="store_true", help="write the page of what there is")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the runs")
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS)
    parser.add_argument("--budget", type=Path, default=BUDGET, help="the recipe of all runs")
    return parser.parse_args()


def chosen(experiments: Experiments, only: str) -> list[str]:
    """The tables that were named, or all.

    Raises:
        ValueError: one of them is not there.
    """
    named = [name.strip() for name in only.split(",") if name.strip()]
    for name in named:
        if name not in experiments.tables:
            raise ValueError(f"no table {name!r}: known are {', '.join(experiments.tables)}")
    return named or list(experiments.tables)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
