"""What was found as Markdown and JSON: `markdown(analysis)`, `as_json(analysis)`. The same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from researcher.intervals import Ratio
from researcher.train.analyse.breakdown import Row, breakdown
from researcher.train.analyse.contrast import Contrast, contrasts
from researcher.train.analyse.figures import Figures
from researcher.train.analyse.homes import Survey
from researcher.train.analyse.label import Agreement
from researcher.train.analyse.searches import SearchRow, searches
from researcher.train.analyse.structure import COUNTS
from researcher.train.analyse.table import Behaviour

MOST = 24
"""Rows of a table on a page; of more, every n-th is shown, and all are in analysis.json."""


class Breakdown(NamedTuple):
    """The rows of all threads by some keys."""

    by: tuple[str, ...]
    rows: list[Row]


class Judged(NamedTuple):
    """What a judge's labels say of some thoughts: the rows by correctness, and how the patterns agree with it."""

    judge: str
    thoughts: int
    failed: int
    rows: list[Row]
    patterns: list[Row]
    """The same thoughts by the patterns' labels."""
    agreement: list[Agreement]


class Analysis(NamedTuple):
    """All that was found; `figures` are those of each thread."""

    names: list[str]
    figures: list[Figures]
    runs: int
    forked: int
    silent: int
    unreadable: list[tuple[str, str]]
    all: Row
    breakdowns: list[Breakdown]
    contrasts: list[Contrast]
    searches: list[SearchRow]
    judged: Judged | None = None


def analyse(survey: Survey, by: Sequence[tuple[str, ...]]) -> Analysis | None:
    """Read the sources and put together what they say; None where no thread said anything."""
    figures = list(survey.figures())
    if not figures:
        return None
    return Analysis(
        names=[source.name for source in survey.sources],
        figures=figures,
        runs=survey.runs,
        forked=survey.forked,
        silent=survey.silent,
        unreadable=[(path.name, why) for path, why in survey.unreadable],
        all=breakdown(figures)[0],
        breakdowns=[Breakdown(names, breakdown(figures, names)) for names in by],
        contrasts=contrasts(figures),
        searches=searches(structure for _, structure in survey.structures),
    )


def markdown(found: Analysis) -> str:
    """The page."""
    lines = ["# Looking inside", "", *_read(found), "", *table([found.all._replace(labels=("all",))], "")]
    for names, rows in found.breakdowns:
        title = "+".join(names)
        body = table(rows, title) if len(rows) > 1 else [f"All threads have the same: {rows[0].name}."]
        lines += ["", f"## By {title}", "", *body]
    lines += _contrast(found.contrasts) + _searches(found.searches)
    if found.judged is not None:
        lines += _judged(found.judged)
    return "\n".join([*lines, "", *EXPLANATION, ""])


EXPLANATION = (
    "Intervals are of 95 %, over the tasks. Tokens are all that a thread sampled, its answer included; `cut` is the",
    "share of threads that ran into their limit. Behaviours are units (sentences, or steps of a written search) for",
    "100 tokens, labelled by their wording; the design note says what this misses. Repeated 40-grams: the share of",
    "tokens in a run of 40 that came before; repeated 4-grams: the same of four words. That a behaviour goes with",
    "being right does not say that it makes right.",
)

SEARCHES = (
    "`branches`: continuations of a step beyond its first; `left`: steps that nothing continued and that came to no",
    "answer, and threads that were cancelled; `merges`: threads that came to a state another had come to;",
    "`aggregations` and `revisions` were made from the findings of several threads and of one; `scores` and `verdicts`",
    "count the judgements of a search's scorer and of the task's verifier.",
)


def _read(found: Analysis) -> list[str]:
    plural = "" if len(found.names) == 1 else "s"
    shown = ", ".join(f"`{name}`" for name in found.names[:6]) + (", ..." if len(found.names) > 6 else "")
    lines = [f"{found.runs:,} runs of {len(found.names)} folder{plural} ({shown}): {len(found.figures):,} threads."]
    if found.silent:
        lines.append(f"In {found.silent:,} runs no such thread said anything.")
    if found.forked:
        lines.append(f"{found.forked:,} threads that a forked run has from another count once.")
    if uncounted := sum(each.tokens is None for each in found.figures):
        of = f"{uncounted:,} of {len(found.figures):,}"
        lines.append(f"For {of} threads nobody counted tokens: they are in no figure of tokens.")
    if found.unreadable:
        lines += ["", f"{len(found.unreadable):,} could not be read:", ""]
        lines += [f"- {name}: {why}" for name, why in found.unreadable[:MOST]]
    return lines


def table(rows: Sequence[Row], title: str) -> list[str]:
    """Two tables of these rows: length and repetition, and behaviours."""
    shown = _some(rows)
    head = [title, "threads", "tasks", "accuracy", "tokens", "units", "cut", "repeated 40-grams", "repeated 4-grams"]
    lengths = [
        [r.name, f"{r.threads:,}", f"{r.tasks:,}", percent(r.accuracy), number(r.tokens), number(r.units),
         percent(r.cut), percent(r.looped), percent(r.again)]
        for r in shown
    ]  # fmt: skip
    told = [[r.name, *[number(r.rates[b]) for b in Behaviour], number(r.second_looks)] for r in shown]
    lines = [*grid(head, lengths), "", *grid([title, *[b.value for b in Behaviour], '"wait"'], told)]
    if len(shown) < len(rows):
        lines += ["", f"{len(shown)} of {len(rows)} rows; all are in analysis.json."]
    return lines


def _some(rows: Sequence[Row]) -> list[Row]:
    """Not many more than MOST: every n-th of the first labels and the last, each with all its rows."""
    firsts = list(dict.fromkeys(row.labels[0] for row in rows))
    step = -(-len(rows) // MOST)
    chosen = {*firsts[::step], firsts[-1]}
    return [row for row in rows if row.labels[0] in chosen]


def _contrast(found: Iterable[Contrast]) -> list[str]:
    rows = [
        [each.figure, _round(each.right), _round(each.wrong), f"{each.difference:+.3g}" + _interval(each)]
        for each in found
    ]
    if not rows:
        return ["", "No task has right and wrong threads both: nothing compares them on equal tasks."]
    tasks = next(iter(found)).tasks
    title = f"## Right and wrong on the same {tasks:,} tasks" if tasks > 1 else "## Right and wrong on the same task"
    return ["", title, "", *grid(["figure", "right", "wrong", "difference"], rows)]


def _interval(each: Contrast) -> str:
    return "" if each.interval is None else f" ({each.interval.low:+.3g} to {each.interval.high:+.3g})"


def _searches(found: Iterable[SearchRow]) -> list[str]:
    rows = [
        [each.strategy, each.right, f"{each.runs:,}", *[number(each.means[name], brief=True) for name in COUNTS]]
        for each in found
    ]
    head = ["", "## Searches on the graph, means of a run", ""]
    return [*head, *grid(["strategy", "answer", "runs", *COUNTS], rows), "", *SEARCHES]


def _judged(found: Judged) -> list[str]:
    rows = [
        [each.behaviour.value, f"{each.wanted:,}", f"{each.found:,}",
         *["-" if value is None else f"{value:.2f}" for value in (each.precision, each.recall, each.kappa)]]
        for each in found.agreement
    ]  # fmt: skip
    units = found.agreement[0].units if found.agreement else 0
    lines = ["", f"## As `{found.judge}` labels {found.thoughts:,} of the thoughts", ""]
    lines += grid(["correctness", *[b.value for b in Behaviour]], _rates(found.rows))
    lines += ["", "The same thoughts by the patterns:", ""]
    lines += grid(["correctness", *[b.value for b in Behaviour]], _rates(found.patterns))
    lines += ["", f"The patterns against the judge, on {units:,} units:", ""]
    lines += grid(["behaviour", "judge", "patterns", "precision", "recall", "kappa"], rows)
    if found.failed:
        lines += ["", f"{found.failed:,} thoughts have no labels: the judge failed, or its reply could not be read."]
    return lines


def _rates(rows: Iterable[Row]) -> list[list[str]]:
    return [[r.name, *[number(r.rates[b]) for b in Behaviour]] for r in rows]


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown, its columns of equal width, so that it can be read as text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def number(ratio: Ratio | None, *, brief: bool = False) -> str:
    """`12.3 (10.1 to 14.5)`; a dash where nothing can be said."""
    if ratio is None:
        return "-"
    if ratio.interval is None or brief:
        return _round(ratio.value)
    return f"{_round(ratio.value)} ({_round(ratio.interval.low)} to {_round(ratio.interval.high)})"


def percent(ratio: Ratio | None) -> str:
    """`12.3 % (10.1 to 14.5)`."""
    if ratio is None:
        return "-"
    value, interval = ratio
    within = "" if interval is None else f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{100 * value:.1f} %{within}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(found: Analysis) -> dict[str, Any]:
    """All but the threads' own figures, as JSON holds it."""
    return {name: plain(value) for name, value in found._asdict().items() if name != "figures"}


def plain(value: Any) -> Any:
    """Named tuples, at any depth, as JSON objects."""
    if isinstance(value, Agreement):
        measured = {"precision": value.precision, "recall": value.recall, "kappa": value.kappa}
        return {**{name: plain(each) for name, each in value._asdict().items()}, **measured}
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path | Behaviour) else value
