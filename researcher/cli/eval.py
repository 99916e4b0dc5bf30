"""`researcher eval`: strategies compared on a suite of problems with known answers, at equal budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import anyio
import typer

from researcher.cli.drive import Exit
from researcher.cli.eval_live import Board
from researcher.cli.options import Config, Home, Json, assignments, given
from researcher.cli.output import Output
from researcher.config import load_settings
from researcher.errors import UserError
from researcher.evals.folder import Folder, default_folder, selected
from researcher.evals.harness import Evaluation, check, evaluate
from researcher.evals.identity import identity
from researcher.evals.problem import Grader, Suite
from researcher.evals.record import Key, ResultFile
from researcher.evals.report import write_report
from researcher.evals.suites import open_suite, problems_of
from researcher.evals.trial import Bench, Conditions
from researcher.evals.variants import variants_of
from researcher.models.uri import choose_model, open_model


class Job(NamedTuple):
    """An evaluation, the model it is of and where it goes."""

    suite: Suite
    evaluation: Evaluation
    model: str | None
    home: Path
    out: Path | None
    at_once: int


def evaluate_strategies(
    suite: Annotated[str, typer.Option(help="countdown, game24, documents, reasoning-gym:NAME, jsonl:PATH")],
    strategy: Annotated[list[str], typer.Option(help="Names with commas; label=NAME names a variant of one.")],
    budget: Annotated[str, typer.Option(help="Tokens a run may use, prompts counted in; several with commas.")],
    seeds: Annotated[int, typer.Option(help="How often everything is run, each time with another seed.")] = 3,
    count: Annotated[int, typer.Option(help="How many problems.")] = 100,
    model: Annotated[
        str | None, typer.Option(help="embedded, gguf:PATH, vllm:NAME, http://...#name, openai:name")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="A parameter, strategy.key=value; again for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the results; one that is there goes on.")] = None,
    at_once: Annotated[int, typer.Option(help="Runs side by side.")] = 16,
    width: Annotated[int, typer.Option(help="Threads of one run at once.")] = 4,
    blind: Annotated[bool, typer.Option("--blind", help="Keep the verifying rule from the runs too.")] = False,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep every run's log, to show and replay.")] = False,
    home: Home = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Compare strategies on problems with known answers: a table, a plot and every result, resumable."""
    settings = load_settings(config, flags=given(model=model, home=home))
    for name, value in (("seeds", seeds), ("at-once", at_once), ("width", width)):
        if value < 1:
            raise UserError(f"--{name} {value}: give one or more.")
    opened = open_suite(suite)
    evaluation = Evaluation(
        problems=problems_of(opened, count),
        variants=variants_of(_names(strategy), assignments(param or ())),
        budgets=_budgets(budget),
        seeds=seeds,
        conditions=Conditions(width=width, blind=blind),
    )
    job = Job(opened, evaluation, settings.model, settings.home, out, at_once)
    raise typer.Exit(anyio.run(partial(_run, job, Output(json=json), keep=keep_runs)))


async def _run(job: Job, output: Output, *, keep: bool) -> Exit:
    choice = await choose_model(job.model)
    output.note(choice.reason)
    config = {"suite": job.suite.name, "model": identity(choice.uri), **job.evaluation.described()}
    folder = Folder(job.out or default_folder(job.home, config))
    grader = Grader(job.suite.verifiers)
    async with open_model(choice.uri) as model:
        await check(job.evaluation, model)
        folder.claim(config)
        keys = [trial.key for trial in job.evaluation.trials()]
        known = selected(folder.read(), keys)
        output.note(f"{len(keys):,} runs, {sum(not r.broken for r in known):,} of them done, in {folder.path}")
        board = Board(known, len(keys))
        conditions = job.evaluation.conditions._replace(keep=folder.path if keep else None)
        stop = anyio.Event()
        with ResultFile(folder.results) as file:
            async with anyio.create_task_group() as group:
                await group.start(board.hear, stop, output)
                group.start_soon(board.watch, output)
                try:
                    await evaluate(
                        job.evaluation.trials(),
                        Bench(model, grader, conditions),
                        file,
                        done={result.key for result in known if not result.broken},
                        at_once=job.at_once,
                        seen=board.see,
                        stop=stop,
                    )
                finally:
                    await grader.aclose()
                    group.cancel_scope.cancel()
    return _tell(folder, config, keys, output, interrupted=stop.is_set())


def _tell(folder: Folder, config: Mapping[str, Any], keys: Sequence[Key], output: Output, *, interrupted: bool) -> Exit:
    results = selected(folder.read(), keys)
    report = write_report(folder, results, config)
    output.data(report.table)
    for row in report.rows:
        output.line(row)
    for path in report.files:
        output.note(f"written: {path}")
    if interrupted:
        output.note("interrupted; the same command goes on")
        return Exit.INTERRUPTED
    return Exit.ANSWERED


def _names(options: list[str]) -> list[str]:
    return [name for option in options for part in option.split(",") if (name := part.strip())]


def _budgets(text: str) -> list[int | None]:
    """`1000,4000` as numbers; `none` is no budget."""
    budgets: list[int | None] = []
    for part in text.split(","):
        word = part.strip().replace("_", "")
        if word.lower() == "none":
            budgets.append(None)
        elif word.isascii() and word.isdigit() and int(word) > 0:
            budgets.append(int(word))
        else:
            raise UserError(f"--budget {text}: write tokens with commas, like 1000,4000, or none.")
    return list(dict.fromkeys(budgets))
