"""Make `docs/results.md`: train what its tables need, measure it, write the page. `make results`.

    experiments.yaml --runs not yet trained--> build/results --measures not yet made-->
    docs/results/NAME.json --> docs/results.md, docs/results/*.png

Stopped, it goes on: a run from its last checkpoint, a table from its first measure that is missing.
What `docs/results` holds of the same recipe and the same base is never made again. Several may run
at once: two of them never work on one run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import BUDGET, EXPERIMENTS, Experiments, load
from page_parts import PICTURES
from results_page import write_page
from running import Failed, Maker

from deliberate.core.errors import DeliberateError
from deliberate.eval.report_folder import require_report

DOCS, WORK = Path("docs"), Path("build/results")


def main() -> int:
    """Make the tables that were asked for, and write the page of all there is.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a wrong use, 130 after Ctrl-C.
    """
    options = parsed()
    try:
        experiments = load(options.experiments, options.budget)
        tables = [] if options.page else chosen(experiments, options.only)
    except (OSError, ValueError) as error:
        say(str(error))
        return 2
    try:
        require_report()  # before hours are spent
        return make(experiments, tables, output=options.output, work=options.work)
    except (DeliberateError, OSError, ValueError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped, nothing is lost: go on with the same command")
        return 130


def make(experiments: Experiments, tables: Sequence[str], *, output: Path, work: Path) -> int:
    """Make tables, one after the other; what fails is told at the end, and the rest is made.

    Args:
        experiments: What is declared.
        tables: Those to be made.
        output: Folder of the page.
        work: Folder of the runs.

    Returns:
        The exit code.
    """
    maker = Maker(experiments, kept=output / PICTURES, work=work)
    failed = []
    for name in tables:
        table, before = experiments.tables[name], len(failed)
        for run, measure in maker.wanted(table):
            try:
                maker.measure(run, measure)
            except Failed as error:
                failed.append(f"{name}, {run}: {error}")
        write_page(experiments, maker.base, output)
        say(f"{name}: {'done' if len(failed) == before else 'not complete'}")
    say(f"wrote {write_page(experiments, maker.base, output)}")
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
