"""What a job can cost at most, where its strategy's parameters or its budget say so before the run."""

from __future__ import annotations

from typing import NamedTuple

from researcher.cli.job import Job
from researcher.strategies.base import Parameters
from researcher.strategies.best_of_n import BestOfN
from researcher.strategies.chain_of_thought import ChainOfThought
from researcher.strategies.load import load_strategy
from researcher.strategies.research import Research
from researcher.strategies.vote import Vote


class Bound(NamedTuple):
    """Most threads, model calls and sampled tokens; prompts come on top, and None is unknown."""

    threads: int | None
    calls: int | None
    sampled_tokens: int | None

    def __str__(self) -> str:
        if self.calls is None:
            return "no bound on calls is known for this strategy; --budget-calls sets one"
        threads = "" if self.threads is None else f"{self.threads:,} threads, "
        tokens = (
            "" if self.sampled_tokens is None else f", {self.sampled_tokens:,} sampled tokens (prompts come on top)"
        )
        return f"at most {threads}{self.calls:,} model calls{tokens}; retries of failed calls come on top"


def estimate(job: Job) -> Bound:
    """The bounds of a job; the budget's where it is the tighter."""
    strategy = load_strategy(job.strategy, job.params)
    threads = _threads(strategy)
    calls = tokens = None
    if threads is not None and isinstance(strategy, Parameters):
        calls = threads * strategy.turns
        tokens = calls * strategy.max_tokens
    budget = job.settings.budget
    return Bound(threads, _least(calls, budget.calls), _least(tokens, budget.tokens))


def _threads(strategy: object) -> int | None:
    match strategy:
        case ChainOfThought():
            return 1
        case Vote(n=n, over="chain_of_thought") | BestOfN(n=n, aggregate=None):
            return n
        case Research(max_questions=questions, samples=samples, writers=writers):
            return 1 + questions * samples + writers
        case _:
            return None


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)
