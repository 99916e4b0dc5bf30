"""`researcher analyse PATH...`: what the thinking in stored runs does, by correctness and over training."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from researcher.cli.options import Json, home_of
from researcher.cli.output import Output
from researcher.errors import UserError
from researcher.models.uri import parse_model_uri

if TYPE_CHECKING:
    from researcher.train.analyse.report import Analysis, Judged
    from researcher.train.analyse.thoughts import Thought
    from researcher.types import VerdictStatus


def analyse(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Trainings, homes of runs, kept runs of eval, or runs; else the home."),
    ] = None,
    by: Annotated[
        str, typer.Option(help="correctness, iteration, strategy, suite, source, model, outcome; a+b crosses two.")
    ] = "correctness,iteration,strategy",
    judge: Annotated[str | None, typer.Option(help="A model that labels some thoughts too: a URI as in run.")] = None,
    judged: Annotated[int, typer.Option(help="How many thoughts the judge is given, drawn evenly.")] = 100,
    out: Annotated[Path | None, typer.Option(help="A folder for report.md, analysis.json, threads and charts.")] = None,
    json: Json = False,
) -> None:
    """Find exploration, backtracking, verification and summing-up in the thinking of stored runs."""
    from researcher.train.analyse.breakdown import keys
    from researcher.train.analyse.homes import Survey, sources
    from researcher.train.analyse.report import analyse as put_together
    from researcher.train.analyse.report import markdown

    wanted = keys(by)
    if judge is not None:
        parse_model_uri(judge)
    if judged < 1:
        raise UserError(f"--judged {judged}: give 1 or more.")
    places = [source._replace(grades=_grades(source.runs.parent)) for source in sources(paths or [home_of(None)])]
    survey = Survey(places, sampled=0 if judge is None else judged)
    found = put_together(survey, wanted)
    output = Output(json=json)
    if found is None:
        raise UserError(_nothing(survey.runs, [f"{path.name}: {why}" for path, why in survey.unreadable]))
    for name, why in found.unreadable:
        output.note(f"not read: {name}: {why}")
    if judge is not None:
        found = found._replace(judged=anyio.run(_ask, judge, survey.kept()))
    output.data(markdown(found))
    _lines(output, found)
    if out is not None:
        _write(out, found, output)


def _grades(folder: Path) -> dict[tuple[str, str], VerdictStatus]:
    """What an evaluation in this folder found of the answers to its problems; its runs may not know it themselves."""
    files = sorted(folder.glob("results*.jsonl"))
    if not files:
        return {}
    from researcher.evals.record import read_results

    found: dict[tuple[str, str], VerdictStatus] = {}
    for result in (result for file in files for result in read_results(file)):
        if result.answer is not None:
            found[result.problem, result.answer] = result.status
        found |= {(result.problem, each.answer): each.status for each in result.samples if each.answer is not None}
    return found


async def _ask(uri: str, kept: Sequence[tuple[str, Thought]]) -> Judged:
    from researcher.models.uri import open_model
    from researcher.train.analyse.judge import Judge

    async with open_model(uri) as model:
        asked = Judge(model)
        told = await asked.compare(kept)
    if not told.thoughts:
        raise UserError(f"--judge {uri}: it labelled none of {len(kept)} thoughts; the first: {asked.failed[0]}")
    return told


def _nothing(runs: int, unreadable: list[str]) -> str:
    if unreadable:
        return f"no run could be read: {unreadable[0]}" + (f" (and {len(unreadable) - 1} more)" * (len(unreadable) > 1))
    return f"in {runs:,} runs no thread has said anything; there is nothing to analyse"


def _lines(output: Output, found: Analysis) -> None:
    """A JSON line for each row, for machines."""
    from researcher.train.analyse.report import plain

    output.line({"all": plain(found.all)})
    for names, rows in found.breakdowns:
        for row in rows:
            output.line({"by": list(names), "row": plain(row)})
    for contrast in found.contrasts:
        output.line({"contrast": plain(contrast)})
    for search in found.searches:
        output.line({"search": plain(search)})
    if found.judged is not None:
        output.line({"judged": plain(found.judged)})
    for name, why in found.unreadable:
        output.line({"unreadable": name, "why": why})


def _write(out: Path, found: Analysis, output: Output) -> None:
    import msgspec

    from researcher.train.analyse.drawings import drawings
    from researcher.train.analyse.report import as_json, markdown

    drawn = drawings(found)
    shown = "".join(f"\n![{name}]({name})\n" for name in drawn)
    files = {
        "report.md": markdown(found) + shown,
        "analysis.json": jsonlib.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n",
        "threads.jsonl": "".join(msgspec.json.encode(each).decode() + "\n" for each in found.figures),
        **drawn,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: it cannot be written ({error.strerror}); choose another folder.") from None
    output.note(f"written: {out}: {', '.join(files)}")
