"""One run of a strategy on a problem, measured: `await Bench(...).run(trial)` gives its `Result`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from researcher_tools import Documents

from researcher.engine.boundary import BUDGET, Ending, boundary
from researcher.engine.orchestrator import Orchestrator
from researcher.engine.run import Run, RunResult
from researcher.evals.problem import Grader, Problem
from researcher.evals.record import Key, Result, Sample
from researcher.evals.variants import Variant
from researcher.graph import ThoughtGraph
from researcher.protocols import Model, Store, Verifier
from researcher.store import RunStore
from researcher.testing.memory_store import MemoryStore
from researcher.types import Budget, FinishReason, Outcome, Verdict, VerdictStatus
from researcher.views import ThreadInfo

BOUNDARIES = ("model", "tool", "sandbox", "store", "engine", BUDGET)
"""What can end a thread from outside."""


class Trial(NamedTuple):
    """What is to be run."""

    problem: Problem
    variant: Variant
    budget: int | None
    seed: int

    @property
    def key(self) -> Key:
        """What names this run."""
        return Key(self.problem.id, self.variant.label, self.budget, self.seed)

    @property
    def sampling_seed(self) -> int:
        """The run's seed: the same for all strategies on a problem, another for each problem, in [0, 2^31)."""
        named = f"{self.seed}/{self.problem.id}".encode()
        return int.from_bytes(hashlib.sha256(named).digest()[:4], "big") >> 1


BudgetOf = Literal["total", "completion"]


class Conditions(NamedTuple):
    """What all runs of an evaluation have in common."""

    width: int = 4
    """Threads of one run at once."""
    blind: bool = False
    """Keep the rule that judges from the runs too."""
    reserve: float = 0.1
    """Share of the budget kept for the final answer."""
    budget_of: BudgetOf = "total"
    """What a budget bounds: prompt and completion tokens together, or completion tokens alone."""
    keep: Path | None = None
    """The home under which the runs' logs are kept; None: they are dropped."""

    def budget(self, limit: int | None) -> Budget:
        """The budget of a run with this limit."""
        if self.budget_of == "completion":
            return Budget(sampled=limit, reserve=self.reserve)
        return Budget(tokens=limit, reserve=self.reserve)


class Bench:
    """Runs trials on one model, any number at once."""

    def __init__(self, model: Model, grader: Grader, conditions: Conditions) -> None:
        self._model = model
        self._grader = grader
        self._conditions = conditions

    def orchestrator(self, problem: Problem) -> Orchestrator:
        """An orchestrator whose runs can read what the problem brings along."""
        keep = self._conditions.keep
        store: Callable[[Path], Store] = _in_memory if keep is None else partial(RunStore.create, synchronous="normal")
        return Orchestrator(
            self._model,
            home=keep or ".",
            documents=Documents.from_texts(problem.texts) if problem.texts else None,
            tools=problem.task().tools,
            scorers=self._scorers(problem),
            concurrency=self._conditions.width,
            record_tokens=keep is not None,
            store=store,
        )

    def _scorers(self, problem: Problem) -> Mapping[str, Verifier]:
        """The rule, made once for all runs."""
        return {problem.grader: self._grader.verifier(problem.grader)} if problem.rule else {}

    async def run(self, trial: Trial) -> Result:
        """The result of a new run; a fault of whatever kind is a result too."""
        ending, runs, ended = Ending(), list[Run](), list[RunResult]()
        with boundary(ending):
            async with self.orchestrator(trial.problem) as orchestrator:
                run = await orchestrator.start(
                    trial.problem.task(blind=self._conditions.blind),
                    strategy=trial.variant.strategy,
                    params=trial.variant.params,
                    budget=self._conditions.budget(trial.budget),
                    seed=trial.sampling_seed,
                    settings={"problem": trial.problem.id},
                )
                runs.append(run)
                ended.append(await run.result())
        if not ended:
            return _broken(trial, ending, runs[0] if runs else None)
        return await self._measured(trial, runs[0], ended[0])

    async def _measured(self, trial: Trial, run: Run, ended: RunResult) -> Result:
        graph, threads = run.graph, run.graph.threads()
        verdict = await self._verdict(trial.problem, ended, threads)
        cancelled = [graph.usage_of(thread.key) for thread in threads if thread.outcome is Outcome.CANCELLED]
        states = [thread.state for thread in threads if thread.state is not None]
        return Result(
            **trial.key._asdict(),
            status=verdict.status,
            answer=None if ended.answer is None else ended.answer.text,
            reason=verdict.reason,
            outcome=ended.outcome,
            detail="" if ended.outcome is Outcome.ANSWERED else ended.detail,
            limit=ended.limit,
            prompt=ended.usage.prompt_tokens,
            completion=ended.usage.completion_tokens,
            cached=ended.usage.cached_tokens,
            calls=ended.usage.calls,
            seconds=round(run.stats().seconds, 3),
            threads=dict(Counter(str(thread.outcome) for thread in threads)),
            unparsable=sum(_unreadable(thread, FinishReason.STOP) for thread in threads),
            truncated=sum(_unreadable(thread, FinishReason.LENGTH) for thread in threads),
            failures={name: n for name in BOUNDARIES if (n := len(graph.stopped_at((name,))))},
            cancelled_tokens=sum(usage.tokens for usage in cancelled),
            states=len(set(states)),
            merged=len(states) - len(set(states)),
            samples=tuple([await self._sample(trial.problem, graph, each) for each in threads if _whole(each)]),
        )

    async def _verdict(self, problem: Problem, ended: RunResult, threads: Sequence[ThreadInfo]) -> Verdict:
        if ended.answer is not None:
            return await self._grader.grade(problem, ended.answer.text)
        status, reason = VerdictStatus.WRONG, "no answer"
        if ended.outcome is Outcome.FAILED:
            status = VerdictStatus.UNVERIFIED
        elif scorer := _mute(threads):
            status, reason = VerdictStatus.UNVERIFIED, f"no answer, and {scorer} could score nothing"
        return Verdict(status=status, by="evaluation", reason=reason)

    async def _sample(self, problem: Problem, graph: ThoughtGraph, thread: ThreadInfo) -> Sample:
        usage = graph.usage_of(thread.key)
        status = VerdictStatus.WRONG
        if thread.answer is not None:
            status = (await self._grader.grade(problem, thread.answer)).status
        return Sample(
            answer=thread.answer,
            canonical=thread.canonical or "",
            status=status,
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            score=thread.score,
        )


def _in_memory(path: Path) -> MemoryStore:
    return MemoryStore()


def _mute(threads: Sequence[ThreadInfo]) -> str | None:
    """The scorer that was to judge what these threads came to, where it could judge none of it: that is its outage."""
    judged = [thread for thread in threads if thread.work.scorer and thread.outcome is Outcome.ANSWERED]
    return judged[0].work.scorer if judged and all(thread.score is None for thread in judged) else None


def _whole(thread: ThreadInfo) -> bool:
    """Whether the thread proposed an answer to the task, or was to propose one and ended without."""
    if not thread.work.verify or thread.outcome in (None, Outcome.CANCELLED, Outcome.FAILED):
        return False
    ended = FinishReason.STOP, FinishReason.LENGTH
    return thread.answer is not None or any(_unreadable(thread, finish) for finish in ended)


def _unreadable(thread: ThreadInfo, finish: FinishReason) -> bool:
    """Whether a reply that was to hold an answer ended so, and holds none that can be read."""
    wanted = thread.work.verify and thread.work.kind == "answer"
    return wanted and thread.outcome is Outcome.EXHAUSTED and thread.finish is finish and thread.answer is None


def _broken(trial: Trial, ending: Ending, run: Run | None) -> Result:
    """The result of a run that could not be started, or that a fault of ours or of the strategy's ended."""
    used = None if run is None else run.graph.usage
    return Result(
        **trial.key._asdict(),
        status=VerdictStatus.UNVERIFIED,
        outcome=Outcome.FAILED,
        detail=ending.detail,
        failures={ending.boundary or "engine": 1},
        prompt=0 if used is None else used.prompt_tokens,
        completion=0 if used is None else used.completion_tokens,
        calls=0 if used is None else used.calls,
    )
