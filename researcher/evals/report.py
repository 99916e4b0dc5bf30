"""Writes what an evaluation found beside its results: `summary.json`, `table.md` and the charts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from researcher import charts
from researcher.errors import UserError
from researcher.evals.curves import Curve, curves
from researcher.evals.folder import Folder
from researcher.evals.record import Result
from researcher.evals.savings import Saving, savings
from researcher.evals.summary import Row, Winner, summarise, winners
from researcher.evals.table import curve_table, markdown, saving_table

TOKENS = "completion tokens of a run, on average (prompts come on top; see the table)"


class Report(NamedTuple):
    """What was found, as Markdown, and the files it was written to."""

    rows: list[Row]
    best: list[Winner]
    curves: list[Curve]
    savings: list[Saving]
    text: str
    files: list[Path]
    notes: list[str]
    """What could not be drawn, and why."""


def write_report(
    folder: Folder, results: Sequence[Result], config: Mapping[str, Any], *, subsampled: Iterable[str] = ()
) -> Report:
    """The report of these results, written into the folder; `subsampled`: the strategies to draw curves from."""
    rows, best = summarise(results), winners(results)
    drawn, saved, notes = _subsampled(results, config, subsampled)
    text = markdown(rows, best, about=about(config), budget_of=config.get("budget_of", "total"))
    text += curve_table(drawn) + saving_table(saved)
    summary = {"config": config, "rows": rows, "winners": best, "curves": drawn, "savings": saved}
    files = [
        folder.write("summary.json", json.dumps(plain(summary), indent=1, ensure_ascii=False) + "\n"),
        folder.write("table.md", text),
        folder.write("accuracy.svg", accuracy_chart(rows, config)),
    ]
    if drawn:
        files.append(folder.write("samples.svg", curve_chart(drawn, config)))
    return Report(rows, best, drawn, saved, text, files, notes)


def _subsampled(
    results: Iterable[Result], config: Mapping[str, Any], labels: Iterable[str]
) -> tuple[list[Curve], list[Saving], list[str]]:
    """Curves of these strategies at their largest budget, and what stops would save of those that are votes."""
    drawn: list[Curve] = []
    saved: list[Saving] = []
    notes: list[str] = []
    for label in labels:
        own = [result for result in results if result.strategy == label]
        largest = [result for result in own if result.budget == _largest(own)]
        try:
            drawn += curves(label, largest)
        except UserError as why:
            notes.append(str(why))
            continue
        if config["strategies"][label]["strategy"] == "vote":
            widths = (1, int(config["width"]))
            saved += savings(label, largest, widths=widths)
    return drawn, saved, notes


def _largest(results: Iterable[Result]) -> int | None:
    budgets = {result.budget for result in results}
    return None if None in budgets else max((budget for budget in budgets if budget is not None), default=None)


def accuracy_chart(rows: Iterable[Row], config: Mapping[str, Any]) -> str:
    """Accuracy against the tokens that were really sampled, a line for each strategy over its budgets."""
    lines: dict[str, list[charts.Spot]] = {}
    for row in rows:
        if row.accuracy is not None:
            lines.setdefault(row.strategy, []).append(charts.Spot(row.completion, row.accuracy, *row.interval))
    series = [charts.Series(name, spots) for name, spots in lines.items()]
    return charts.chart(series, title=title(config), x_label=TOKENS, y_label=_accuracy(config))


def curve_chart(drawn: Iterable[Curve], config: Mapping[str, Any]) -> str:
    """Accuracy against the tokens of n samples, a line for each way to choose among them."""
    series = [
        charts.Series(
            f"{curve.strategy}: {curve.method}",
            [charts.Spot(point.completion, point.accuracy, *point.interval) for point in curve.points],
        )
        for curve in drawn
    ]
    x_label = "completion tokens of n samples, on average"
    return charts.chart(series, title=f"{title(config)}: subsampled", x_label=x_label, y_label=_accuracy(config))


def _accuracy(config: Mapping[str, Any]) -> str:
    return "accuracy, 95 % interval " + ("over seeds" if config["seeds"] > 1 else "(Wilson)")


def title(config: Mapping[str, Any]) -> str:
    """What was measured, above a chart."""
    return f"{config['suite']}, {config['count']:,} problems, {_seeds(config)}"


def about(config: Mapping[str, Any]) -> str:
    """What was measured, in a sentence."""
    what = f"{config['count']:,} problems of `{config['suite']}`, {_seeds(config)}, on `{config['model']}`"
    blind = "; the rule that judges is kept from the runs" if config["blind"] else ""
    return f"{what}; {config['width']} threads of a run at once{blind}."


def _seeds(config: Mapping[str, Any]) -> str:
    return f"{config['seeds']} seed{'' if config['seeds'] == 1 else 's'}"


def plain(value: Any) -> Any:
    """Named tuples, at any depth, as JSON objects."""
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
