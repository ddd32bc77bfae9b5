"""What was measured of a run, as its folder keeps it.

eval.json, bench/bench.json, report/ --read_results--> RunResults, all of the same weights

`deliberate eval RUN` writes the first, with `--bench` the second, with `--suite` the third.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deliberate.core import plain_file, plain_json
from deliberate.core.errors import DeliberateError

EVALUATION = "eval.json"
BENCH = Path("bench", "bench.json")
REPORT = Path("report", "results.json")
PAGE = Path("report", "report.md")

_MOST_BYTES = 256 << 20  # of a report, which holds every text's numbers
_PICTURE = re.compile(r"^!\[(.*)\]\(([\w-]+\.png)\)$", re.MULTILINE)
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """All that was measured of one coprocessor."""

    perplexity: dict[str, Any] | None = None
    """By token after the anchor, as `eval.json` holds it."""

    bench: dict[str, Any] | None = None
    """Benchmarks, as `bench.json` holds them."""

    plots: dict[str, Path] = field(default_factory=dict)
    """The report's, by file name in its order."""

    captions: dict[str, str] = field(default_factory=dict)
    """What each shows, in Markdown, by the same names."""

    def __bool__(self) -> bool:
        """Whether anything was measured."""
        benchmarks = (self.bench or {}).get("sets")
        return self.perplexity is not None or bool(benchmarks) or bool(self.plots)


def read_results(folder: Path, fingerprint: str) -> RunResults:
    """Read what was measured of a run.

    Args:
        folder: The run's.
        fingerprint: Of its weights as they are now.

    Raises:
        DeliberateError: a file cannot be read, or measured other weights.
    """
    perplexity, bench = None, None
    if (found := _read(folder / EVALUATION)) is not None:
        _check(found.get("fingerprints"), "latents", fingerprint, folder / EVALUATION)
        perplexity = found
    if (found := _read(folder / BENCH)) is not None:
        _check(found.get("settings"), "coprocessor_fingerprint", fingerprint, folder / BENCH)
        bench = _bench(found, folder / BENCH)
    report = _read(folder / REPORT)
    runs = (report or {}).get("runs")
    if report is None or (isinstance(runs, list) and len(runs) > 1):
        return RunResults(perplexity=perplexity, bench=bench)  # a comparison is not of this run
    _check(runs[0] if isinstance(runs, list) and runs else None, "fingerprint", fingerprint,
           folder / REPORT)  # fmt: skip
    captions = _pictures(folder / PAGE)
    return RunResults(
        perplexity=perplexity or _of_report(report, folder / REPORT),
        bench=bench or _bench(_task(report, "bench"), folder / REPORT),
        plots={name: folder / PAGE.parent / name for name in captions},
        captions=captions,
    )


def _read(path: Path) -> dict[str, Any] | None:
    """What a file of results holds, if there is one.

    Raises:
        DeliberateError: it cannot be read, or is something else.
    """
    if not path.is_file():
        return None
    try:
        content = plain_json.read(path, most=_MOST_BYTES, finite=False)
    except (OSError, ValueError) as error:
        raise DeliberateError(
            f"cannot read {str(path)!r}: {error}; run `deliberate eval` again, or remove it"
        ) from error
    if not isinstance(content, dict):
        raise DeliberateError(_no_results(path))
    return content


def _check(holder: Any, key: str, fingerprint: str, path: Path) -> None:
    """See that results are of these weights.

    Raises:
        DeliberateError: they are not, or do not say.
    """
    if not isinstance(holder, dict):
        raise DeliberateError(_no_results(path))
    measured = holder.get(key)
    if measured != fingerprint:
        raise DeliberateError(
            f"{str(path)!r} measured other weights ({measured!r:.40}) than these "
            f"({fingerprint}): run `deliberate eval` again, or remove it"
        )


def _no_results(path: Path) -> str:
    return f"{str(path)!r} is no report: run `deliberate eval` again, or remove it"


def _task(report: dict[str, Any], name: str) -> Any:
    tasks = report.get("tasks")
    task = tasks.get(name) if isinstance(tasks, dict) else None
    return task.get("result") if isinstance(task, dict) else None


def _bench(found: Any, path: Path) -> dict[str, Any] | None:
    """Benchmarks, if there are any.

    Raises:
        DeliberateError: they are not as `deliberate eval --bench` has them.
    """
    if found is None:
        return None
    parts = [found.get(key) for key in ("settings", "sets")] if isinstance(found, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise DeliberateError(_no_results(path))
    return found


def _of_report(report: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The perplexity that a report holds, without the texts that it quotes.

    Raises:
        DeliberateError: it is not as a report has it.
    """
    found = _task(report, "perplexity")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise DeliberateError(_no_results(path))
    return {key: value for key, value in found[0].items() if key != "examples"}


def _pictures(page: Path) -> dict[str, str]:
    """The plots that a report shows and that are there, with what it says of them.

    Raises:
        DeliberateError: the report cannot be read, or a plot is none.
    """
    if not page.is_file():
        return {}
    try:
        text = plain_file.read(page, most=plain_json.MOST_BYTES).decode("utf-8", "replace")
        found = {name: caption for caption, name in _PICTURE.findall(text)}
        found = {name: caption for name, caption in found.items() if (page.parent / name).exists()}
        odd = [name for name in found if not _is_png(page.parent / name)]
    except OSError as error:
        raise DeliberateError(
            f"cannot read {str(page)!r}: {error}; run `deliberate eval` again, or remove it"
        ) from error
    if odd:
        raise DeliberateError(
            f"{str(page.parent / odd[0])!r} is no PNG: run `deliberate eval` again, or remove it"
        )
    return found


def _is_png(path: Path) -> bool:
    with plain_file.opened(path) as file:
        return file.read(len(_PNG)) == _PNG
