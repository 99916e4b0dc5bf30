"""`researcher run` and `researcher resume`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer

from researcher.cli.approve import at_terminal, policies
from researcher.cli.drive import drive, exit_code, tell_end
from researcher.cli.equipment import Equipment, again, equipment, model_again, warn
from researcher.cli.exits import Exit
from researcher.cli.job import Job, resolve
from researcher.cli.live import Screen
from researcher.cli.options import Approvals, Config, Home, Json, RunId, Sandbox, assignments, given
from researcher.cli.output import Output
from researcher.cli.plan import print_plan
from researcher.cli.runs import find_run
from researcher.cli.show import print_answer
from researcher.config import Settings, load_settings
from researcher.engine.budget import Prices
from researcher.engine.orchestrator import Orchestrator
from researcher.engine.run import Run, RunResult
from researcher.errors import UserError
from researcher.events import RunStarted
from researcher.protocols import Approve
from researcher.report.writer import render_report
from researcher.store import RunReader, run_path
from researcher.types import Budget


def run(
    question: Annotated[str | None, typer.Argument(help="The question; `-` reads it from stdin.")] = None,
    docs: Annotated[Path | None, typer.Option(help="A folder of documents to search and cite.")] = None,
    strategy: Annotated[str | None, typer.Option(help="chain_of_thought, vote, research, ...")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the strategy, key=value.")] = None,
    threads: Annotated[int | None, typer.Option(help="How many reasoner threads.")] = None,
    model: Annotated[
        str | None, typer.Option(help="embedded, gguf:PATH, vllm:NAME, http://...#name, openai:name")
    ] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="Most tokens, prompts counted in.")] = None,
    budget_calls: Annotated[int | None, typer.Option(help="Most model calls.")] = None,
    budget_seconds: Annotated[float | None, typer.Option(help="Most seconds.")] = None,
    budget_cost: Annotated[float | None, typer.Option(help="Most dollars, where prices are known.")] = None,
    budget_sampled: Annotated[int | None, typer.Option(help="Most sampled tokens, without prompts.")] = None,
    seed: Annotated[int | None, typer.Option(help="The only randomness of the strategy.")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="A tool the threads may call; again for more.")] = None,
    sandbox: Sandbox = None,
    approve: Approvals = None,
    verifier: Annotated[str | None, typer.Option(help="exact, numeric, countdown, game24, judge, ...")] = None,
    gold: Annotated[str | None, typer.Option(help="The right answer, for a verifier.")] = None,
    numbers: Annotated[str | None, typer.Option(help="A Countdown problem: the numbers, like 3,5,8.")] = None,
    target: Annotated[int | None, typer.Option(help="A Countdown problem: the target.")] = None,
    home: Home = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings; call nothing.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write the cited report to this file.")] = None,
    json: Json = False,
) -> None:
    """Answer a question with many reasoner threads; the answer goes to stdout, progress to stderr."""
    flags = given(
        docs=docs, strategy=strategy, params=assignments(set_ or ()), threads=threads, model=model, seed=seed,
        budget_tokens=budget_tokens, budget_calls=budget_calls, budget_seconds=budget_seconds,
        budget_cost=budget_cost, budget_sampled=budget_sampled, tools=tool, verifier=verifier, home=home,
        sandbox=sandbox, approval=policies(approve or ()),
    )  # fmt: skip
    settings = load_settings(config, flags=flags)
    job = resolve(question, settings, gold=gold, numbers=numbers, target=target)
    output = Output(json=json)
    if dry_run:
        print_plan(job, output)
        return
    equipped = equipment(settings, job.task.tools, named=sandbox is not None)
    raise typer.Exit(anyio.run(partial(start, job, output, report=report, equipped=equipped)))


def resume(
    run: RunId,
    model: Annotated[str | None, typer.Option(help="Another model than the run began with.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="A new budget: most tokens of the whole run.")] = None,
    budget_calls: Annotated[int | None, typer.Option(help="A new budget: most calls of the whole run.")] = None,
    budget_seconds: Annotated[float | None, typer.Option(help="A new budget: most seconds of the whole run.")] = None,
    budget_cost: Annotated[float | None, typer.Option(help="A new budget: most dollars of the whole run.")] = None,
    budget_sampled: Annotated[int | None, typer.Option(help="A new budget: most sampled tokens.")] = None,
    sandbox: Sandbox = None,
    approve: Approvals = None,
    home: Home = None,
    config: Config = None,
    report: Annotated[Path | None, typer.Option(help="Write the cited report to this file.")] = None,
    json: Json = False,
) -> None:
    """Go on with a run that was interrupted; no finished call is made again."""
    flags = given(
        model=model, home=home, budget_tokens=budget_tokens, budget_calls=budget_calls,
        budget_seconds=budget_seconds, budget_cost=budget_cost, budget_sampled=budget_sampled,
        sandbox=sandbox, approval=policies(approve or ()),
    )  # fmt: skip
    settings = load_settings(config, flags=flags)
    budget = settings.budget.to_budget() if "budget" in flags else None
    path = find_run(settings.home, run)
    going = partial(_resume, path, settings, budget=budget, output=Output(json=json), report=report)
    raise typer.Exit(anyio.run(partial(going, named=sandbox is not None)))


async def start(job: Job, output: Output, *, report: Path | None = None, equipped: Equipment | None = None) -> Exit:
    """Start the job's run, follow it to its end and print its answer; the exit code."""
    settings, screen = job.settings, Screen()
    equipped = equipped or equipment(settings, job.task.tools)
    async with Orchestrator(
        settings.model,
        home=settings.home,
        documents=settings.docs,
        tools=job.task.tools,
        prices=_prices(settings),
        approve=_asker(job.task.tools, equipped, output, screen),
        **equipped._asdict(),
    ) as orchestrator:
        for notice in orchestrator.notices:
            output.note(notice)
        run = await orchestrator.start(
            job.task,
            strategy=job.strategy,
            params=job.params,
            budget=settings.budget.to_budget(),
            seed=settings.seed,
        )
        result = await drive(run, output, screen)
    return await _tell(run, result, home=settings.home, output=output, report=report)


async def _resume(
    path: Path, settings: Settings, *, budget: Budget | None, output: Output, report: Path | None, named: bool
) -> Exit:
    """Go on with the model, documents, tools and budget the run began with, unless others are chosen."""
    with RunReader(path) as reader:
        reader.verify()  # a damaged log is said before a model is started for it
        began = reader.event(1).body if reader.head() else None
    if not isinstance(began, RunStarted):
        raise UserError(f"run {path.stem} was stopped before its first event; start it anew")
    equipped, screen = again(settings, began, named=named), Screen()
    async with Orchestrator(
        model_again(settings, began, os.environ),
        home=settings.home,
        documents=began.settings.get("documents"),
        tools=began.task.tools,
        prices=_prices(settings),
        approve=_asker(began.task.tools, equipped, output, screen),
        **equipped._asdict(),
    ) as orchestrator:
        run = await orchestrator.resume(path.stem, budget=budget)
        result = await drive(run, output, screen)
    return await _tell(run, result, home=settings.home, output=output, report=report)


def _asker(tools: tuple[str, ...], equipped: Equipment, output: Output, screen: Screen) -> Approve | None:
    """Who is asked about calls that need approval; where there is nobody, which calls that concerns is said."""
    ask = at_terminal(output, screen)
    warn(tools, equipped, output, can_ask=ask is not None)
    return ask


def _prices(settings: Settings) -> Prices | None:
    return None if settings.prices is None else Prices(**settings.prices.model_dump())


async def _tell(run: Run, result: RunResult, *, home: Path, output: Output, report: Path | None) -> Exit:
    """Print the answer from the closed log, like any later reader, and write the report; the exit code."""
    with RunReader(run_path(home, run.id)) as reader:
        print_answer(run.graph, reader.get_blob, output=output)
        text = render_report(run.graph, reader.get_blob) if report is not None else ""
    if report is not None:
        await anyio.Path(report).write_text(text, "utf-8")
        output.note(f"report written to {report}")
    tell_end(run, result, output=output)
    return exit_code(result)
