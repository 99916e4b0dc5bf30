"""Writes what an evaluation found beside its results: `summary.json` and `table.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from researcher.evals.folder import Folder
from researcher.evals.record import Result
from researcher.evals.summary import Row, summarise, winners
from researcher.evals.table import markdown


class Report(NamedTuple):
    """The rows, the table as Markdown, and the files that were written."""

    rows: list[Row]
    table: str
    files: list[Path]


def write_report(folder: Folder, results: Sequence[Result], config: Mapping[str, Any]) -> Report:
    """The report of these results, written into the folder."""
    rows, best = summarise(results), winners(results)
    table = markdown(rows, best, about=about(config))
    summary = {"config": config, "rows": [_plain(row) for row in rows], "winners": [_plain(each) for each in best]}
    files = [
        folder.write("summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n"),
        folder.write("table.md", table),
    ]
    return Report(rows, table, files)


def about(config: Mapping[str, Any]) -> str:
    """What was measured, in a sentence."""
    seeds = f"{config['seeds']} seed{'' if config['seeds'] == 1 else 's'}"
    what = f"{config['count']:,} problems of `{config['suite']}`, {seeds}, on `{config['model']}`"
    blind = "; the rule that judges is kept from the runs" if config["blind"] else ""
    return f"{what}; {config['width']} threads of a run at once{blind}."


def _plain(value: Any) -> Any:
    """Named tuples as JSON objects."""
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
