"""`researcher eval`: strategies compared on a suite of problems with known answers, at equal budgets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import anyio
import typer

from researcher.cli.eval_drive import Job, drive
from researcher.cli.options import Config, Home, Json, assignments, given
from researcher.cli.output import Output
from researcher.config import load_settings, nearest
from researcher.errors import UserError
from researcher.evals.folder import Shard
from researcher.evals.harness import Evaluation
from researcher.evals.problem import Suite
from researcher.evals.suites import open_suite, problems_of
from researcher.evals.trial import BudgetOf, Conditions
from researcher.evals.variants import variants_of

COUNT = 100
"""Problems, where a suite has as many and nobody says."""


def evaluate_strategies(
    suite: Annotated[
        str,
        typer.Option(help="countdown[:3|:4], game24[:FIRST-LAST], documents, foreign, reasoning-gym:NAME, jsonl:PATH"),
    ],
    strategy: Annotated[list[str], typer.Option(help="Names with commas; label=NAME is a variant of one.")],
    budget: Annotated[str, typer.Option(help="Tokens of a run; several budgets with commas; or none.")],
    seeds: Annotated[int, typer.Option(help="How often everything is run, each time with another seed.")] = 3,
    count: Annotated[int | None, typer.Option(help="How many problems; 100, or all there are.")] = None,
    model: Annotated[
        str | None, typer.Option(help="embedded, gguf:PATH, vllm:NAME, http://...#name, openai:name")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="A parameter, strategy.key=value; again for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the results; one that is there goes on.")] = None,
    curve: Annotated[str | None, typer.Option(help="Strategies whose samples give curves over n, with commas.")] = None,
    at_once: Annotated[int, typer.Option(help="Runs side by side.")] = 16,
    width: Annotated[int, typer.Option(help="Threads of one run at once.")] = 4,
    budget_of: Annotated[
        str, typer.Option(help="What a budget bounds: total (prompts counted in) or completion tokens.")
    ] = "total",
    blind: Annotated[bool, typer.Option("--blind", help="Keep the verifying rule from the runs too.")] = False,
    shard: Annotated[str, typer.Option(help="2/8: the second of eight processes that share the problems.")] = "1/1",
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep every run's log, to show and replay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; call nothing.")] = False,
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
    variants = variants_of(_parts(strategy), assignments(param or (), option="--param"))
    curved = _parts([curve or ""])
    if unknown := [name for name in curved if name not in {variant.label for variant in variants}]:
        known = [variant.label for variant in variants]
        raise UserError(f"--curve {unknown[0]}: no strategy of this evaluation{nearest(unknown[0], known)}.")
    evaluation = Evaluation(
        problems=problems_of(opened, _count(count, opened)),
        variants=variants,
        budgets=_budgets(budget),
        seeds=seeds,
        conditions=Conditions(width=width, blind=blind, budget_of=_budget_of(budget_of)),
        shard=_shard(shard),
    )
    job = Job(opened, evaluation, settings.model, settings.home, out, at_once, curved, keep_runs)
    output = Output(json=json)
    if dry_run:
        for line in bound(evaluation):
            output.note(line)
        return
    raise typer.Exit(anyio.run(partial(drive, job, output)))


def bound(evaluation: Evaluation) -> list[str]:
    """What an evaluation comes to at most."""
    labels = ", ".join(variant.label for variant in evaluation.variants)
    runs = sum(1 for _ in evaluation.trials())
    lines = [f"{len(evaluation.problems):,} problems x {evaluation.seeds} seeds x {labels}: {runs:,} runs"]
    if None in evaluation.budgets:
        return [*lines, "no bound on their tokens: one of the budgets is none"]
    each = sum(budget or 0 for budget in evaluation.budgets)
    total = runs // len(evaluation.budgets) * each
    what = "prompts counted in" if evaluation.conditions.budget_of == "total" else "prompts on top"
    return [*lines, f"at most {total:,} tokens, {what}"]


def _count(count: int | None, suite: Suite) -> int:
    return count if count is not None else min(COUNT, suite.size or COUNT)


def _parts(options: list[str]) -> list[str]:
    """What stands between commas."""
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


def _budget_of(text: str) -> BudgetOf:
    for known in get_args(BudgetOf):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UserError(f"--budget-of {text}: write total or completion.")


def _shard(text: str) -> Shard:
    number, slash, of = text.partition("/")
    if slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UserError(f"--shard {text}: write NUMBER/OF, like 2/8 for the second of eight.")
