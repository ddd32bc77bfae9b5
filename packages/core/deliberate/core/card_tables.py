"""What was measured of a coprocessor, as its card shows it: tables, verdicts, plots.

RunResults --measured--> Markdown
"""

from typing import Any

from deliberate.core.errors import DeliberateError
from deliberate.core.local_paths import without_folders
from deliberate.core.run_results import RunResults
from deliberate.core.verdict import columns, verdict

PLOTS = "plots"
"""Folder of the plots in the repository."""


def measured(results: RunResults) -> str:
    """All that was measured, in Markdown.

    Raises:
        DeliberateError: a file of results does not hold what `deliberate eval` writes.
    """
    if not results:
        return (
            "It was not evaluated: nothing is known of its gain. "
            "`deliberate eval RUN` measures it, and pushing again adds the table."
        )
    parts = []
    try:
        if results.perplexity is not None:
            parts.append(_perplexity(results.perplexity))
        if results.bench is not None and results.bench["sets"]:
            parts.append(_benchmarks(results.bench))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeliberateError(
            f"what was measured is not as `deliberate eval` writes it ({error!r}): "
            "run `deliberate eval RUN` again, or remove it"
        ) from error
    for name, caption in results.captions.items():
        parts.append(f"![{caption}]({PLOTS}/{name})")
    return "\n\n".join(parts)


def _data(report: dict[str, Any]) -> str:
    data = report.get("data")
    name = code(without_folders(data)) if isinstance(data, str) else "held-out text"
    counts = [
        number_of(report[key], key.removesuffix("s"))
        for key in ("documents", "passages", "anchors")
        if isinstance(report.get(key), int)
    ]
    if isinstance(report.get("length"), int):
        counts.append(f"at most {number_of(report['length'], 'token')} a passage")
    return f"{name} ({', '.join(counts)})" if counts else name


def _perplexity(report: dict[str, Any]) -> str:
    base = report["perplexity"]["base"]
    changes = report["change_percent"]
    present = columns(report)
    rows = [["token after the anchor", "base alone", *present.values()]]
    for token, value in base.items():
        cells = [
            _cell(report["perplexity"][name].get(token), changes[name].get(token))
            for name in present
        ]
        rows.append([token, "-" if value is None else f"{value:.3f}", *cells])
    intro = (
        f"Perplexity on {_data(report)}, and in brackets its change against the base alone in "
        f"percent, with a 95 % interval (paired bootstrap over {report.get('resampled', 'text')}s)."
    )
    return "\n\n".join([intro, markdown_table(rows), verdict(report)])


def _cell(value: float | None, change: dict[str, float | None] | None) -> str:
    """A perplexity, its change, and that change's interval, as far as they are known."""
    if value is None:
        return "-"
    if change is None or change["value"] is None:
        return f"{value:.3f}"
    low, high = change["low"], change["high"]
    interval = "" if low is None or high is None else f": {low:+.2f} to {high:+.2f}"
    return f"{value:.3f} ({change['value']:+.2f} %{interval})"


def _benchmarks(bench: dict[str, Any]) -> str:
    settings = bench["settings"]
    rows = [["benchmark", "shots", "score", "questions", "base alone", "with latents", "p"]]
    for name, one in bench["sets"].items():
        scores = [f"{one[condition]:.2f} %" for condition in ("base", "latents")]
        counted = [str(one["shots"]), code(one["score"]), f"{one['questions']:,}"]
        rows.append([code(name), *counted, *scores, f"{one['p']:.3g}"])
    limit = settings["limit"]
    few = "" if limit is None else f", at most {limit} questions of each task"
    data = "the Hub" if settings["data"] == "Hub" else "files of whoever ran it"
    intro = (
        f"Benchmarks through lm-evaluation-harness {code(settings['harness'])}, with data from "
        f"{data}{few}; p is McNemar's, over the same questions."
    )
    return "\n\n".join([intro, markdown_table(rows)])


def code(value: Any) -> str:
    """A value from a file, so that nothing in it can be taken for Markdown."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "/")
    return f"`{text}`"


def markdown_table(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def number_of(number: int, noun: str) -> str:
    """A number and what it is of, as `1 token` or `2 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
