"""One run: asks the strategy what to do, keeps its threads going, and ends with a recorded result.

There are no barriers: the strategy is asked again whenever a thread has ended, and a free slot is filled at once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from researcher.engine.boundary import BUDGET
from researcher.engine.reasoner import Reasoner
from researcher.engine.shared import Shared
from researcher.errors import BudgetExceeded, ResearcherError, StoreError
from researcher.events import (
    AnswerAccepted,
    Event,
    EventBody,
    RunFinished,
    RunSteered,
    ThreadFinished,
    ThreadStarted,
)
from researcher.graph import ThoughtGraph
from researcher.protocols import StateKey, Strategy
from researcher.types import Answer, Outcome, Usage, Work
from researcher.views import BudgetLeft, Plan, View

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `limit` names the limit that ended it; `interrupted` runs can be resumed."""

    id: str
    outcome: Outcome
    answer: Answer | None
    usage: Usage
    detail: str = ""
    limit: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class RunStats:
    """A run at a glance; cheap at any size."""

    seconds: float
    threads: dict[str, int]
    usage: Usage
    tokens_per_second: float
    budget: BudgetLeft
    leading: list[tuple[str, int]]


PLAN_PAUSE, LEAST_PAUSE = 9.0, 0.001
"""Between two plans there is this many times what the last one took (in seconds, if it is worth a sleep), so that
planning a run of ten thousand threads costs a tenth of the time at the most."""


class StrategyStalled(ResearcherError):
    """The strategy asked for nothing, with nothing in flight and no answer: a defect in the strategy."""


@dataclass(slots=True)
class Run:
    """A run in progress. Made by `Orchestrator.start` and `Orchestrator.resume`."""

    id: str
    strategy: Strategy
    shared: Shared
    concurrency: int
    grace: float = 4.0
    seed: int = 0
    _scopes: dict[str, anyio.CancelScope] = field(default_factory=dict)
    _works: dict[str, Work] = field(default_factory=dict)
    _cancelled: dict[str, str] = field(default_factory=dict)
    _states: Counter[str] = field(default_factory=Counter)
    _memo: dict[str, Any] = field(default_factory=dict)
    _done: anyio.Event = field(default_factory=anyio.Event)
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _draining: bool = False
    _abort: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _result: RunResult | None = None
    _error: BaseException | None = None
    _tokens_before: int = 0
    _seconds_before: float = 0.0

    @property
    def graph(self) -> ThoughtGraph:
        """The thought graph, live; read it, do not change it."""
        return self.shared.journal.graph

    @property
    def ended(self) -> bool:
        """Whether the result is there."""
        return self._done.is_set()

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Every event with `seq > after` once it is durable, live, until the run ends."""
        return self.shared.journal.follow(after)

    async def result(self) -> RunResult:
        """The result, when the run has ended. Raises the StoreError or the defect that broke it."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def drain(self) -> None:
        """Make no further call; let those in flight end, save, and stop. The run can be resumed."""
        if not self._draining and self.graph.outcome is None:
            self._draining = True
            self.shared.stopping.set()
            self._record(RunSteered(action="drain"))
            self._wake()

    def abort(self) -> None:
        """Stop at once: cancel calls in flight (their tokens are charged), save, and stop. The run can be resumed."""
        if self.graph.outcome is None:
            self._draining = True
            self._abort.cancel()

    def stats(self) -> RunStats:
        """Threads by state, tokens, speed, budget and the leading answers."""
        ledger = self.shared.ledger
        threads = {"running": len(self._works), **{str(k): v for k, v in self._states.items()}}
        fresh = ledger.used.completion_tokens - self._tokens_before
        fresh += sum(progress.completion_tokens for progress in self.shared.calling.values())
        seconds = ledger.seconds - self._seconds_before
        votes = self.graph.votes()[:3]
        return RunStats(
            seconds=ledger.seconds,
            threads=threads,
            usage=ledger.used,
            tokens_per_second=fresh / seconds if seconds > 0 else 0.0,
            budget=ledger.left(),
            leading=[(vote.text, vote.count) for vote in votes],
        )

    async def execute(self) -> None:
        """Run to the end; every error is kept for `result`, so one run never breaks another."""
        self.shared.draining = lambda: self._draining
        self._tokens_before = self.shared.ledger.used.completion_tokens
        self._seconds_before = self.shared.ledger.seconds
        self._states.update(str(thread.outcome) for thread in self.graph.threads() if thread.outcome is not None)
        try:
            with self._abort:
                self._result = self._recorded() or await self._finish(await self._last_plan())
            if self._result is None:
                with anyio.move_on_after(self.grace, shield=True):
                    await self._flush()
                self._result = self._interrupted("aborted")
        except* (ResearcherError, OSError) as group:
            self._error = _first(group)
        except* Exception as group:
            logger.error("run %s broke", self.id, exc_info=group)
            self._error = _first(group)
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await self.shared.journal.store.aclose()
            except StoreError as error:
                self._error = self._error or error
            self._done.set()  # only now: whoever has the result may open the run again
            self.shared.journal.close()

    async def _last_plan(self) -> Plan:
        """The plan that ends the run; the accepted answer, where only the end of the run was not recorded."""
        known = self.graph.answer
        return Plan(answer=known) if known is not None else await self._loop()

    async def _loop(self) -> Plan:
        """Plan and start until there is an answer, a limit, or nothing more to do; the last plan."""
        plan = Plan()
        async with anyio.create_task_group() as group:
            for key, work in self.graph.open_work():
                self._launch(group, key, work)
            if self.shared.ledger.budget.seconds is not None:
                group.start_soon(self._watch_clock)
            while True:
                self._changed = anyio.Event()
                if self._draining:
                    await self._settle_down()
                    break
                began = time.perf_counter()
                plan = self.strategy.plan(self._view())
                pause = PLAN_PAUSE * (time.perf_counter() - began)
                if plan.answer is not None or plan.failure is not None:
                    break
                self._apply(group, plan)
                if not self._works:
                    if not self.shared.ledger.left().spendable or self.shared.ledger.refused:
                        plan = Plan(limited=True)
                        break
                    raise StrategyStalled(
                        f"strategy {type(self.strategy).__name__} planned nothing new with nothing in flight"
                    )
                await self._changed.wait()
                if pause > LEAST_PAUSE:  # what ends meanwhile is planned for together
                    await anyio.sleep(pause)
            if not self._draining:  # what a drain leaves open, a resume takes up again
                self._cancel_all("the run has its answer" if plan.answer else "the run ended")
            group.cancel_scope.cancel()
        return plan

    def _view(self) -> View:
        return View(
            task=self.shared.task,
            graph=self.graph,
            in_flight=self._works,
            free=max(0, self.concurrency - len(self._works)),
            budget=self.shared.ledger.left(),
            seed=self.seed,
            draining=self._draining,
            memo=self._memo,
            state=self.shared.bench.state if isinstance(self.shared.bench.verifier, StateKey) else None,
            capabilities=self.shared.capabilities,
        )

    def _apply(self, group: TaskGroup, plan: Plan) -> None:
        for key in plan.cancel:
            self._cancel(key, "no longer needed")
        for work in plan.start[: max(0, self.concurrency - len(self._works))]:
            if self.graph.thread(work.key) is None:
                self._record(ThreadStarted(work=work), work.key)
                self._launch(group, work.key, work)

    def _launch(self, group: TaskGroup, key: str, work: Work) -> None:
        self._works[key] = work
        self._scopes[key] = anyio.CancelScope()
        group.start_soon(self._run_thread, key, work)

    async def _run_thread(self, key: str, work: Work) -> None:
        outcome: str | None = None
        try:
            with self._scopes[key]:
                ending = await Reasoner(self.shared, key, work).run()
                outcome = str(ending.outcome) if ending is not None else None
        finally:
            if (reason := self._cancelled.get(key)) is not None and outcome is None:
                limited = reason.startswith("limit")
                kind = Outcome.EXHAUSTED if limited else Outcome.CANCELLED
                self._record(ThreadFinished(outcome=kind, detail=reason, boundary=BUDGET if limited else None), key)
                outcome = str(kind)
            if outcome is not None:
                self._states[outcome] += 1
            del self._works[key], self._scopes[key]
            self._wake()

    def _cancel(self, key: str, reason: str) -> None:
        if (scope := self._scopes.get(key)) is not None and key not in self._cancelled:
            self._cancelled[key] = reason
            scope.cancel()

    def _cancel_all(self, reason: str) -> None:
        for key in list(self._scopes):
            self._cancel(key, reason)

    async def _watch_clock(self) -> None:
        """Stop ordinary threads when only the reserve of the time is left, and all of them when none is."""
        budget, ledger = self.shared.ledger.budget, self.shared.ledger
        seconds = budget.seconds or 0.0
        await anyio.sleep(max(0.0, seconds * (1 - budget.reserve) - ledger.seconds))
        ledger.refused = ledger.refused or BudgetExceeded("seconds", ledger.seconds, seconds)
        for key, work in list(self._works.items()):
            if not work.reserved:
                self._cancel(key, "limit: the time for research is over")
        self._wake()
        await anyio.sleep(max(0.0, seconds - ledger.seconds))
        self._cancel_all("limit: the time of the run is over")
        self._wake()

    async def _settle_down(self) -> None:
        """Wait for the calls in flight, but not for longer than the grace."""
        with anyio.move_on_after(self.grace):
            while self._works:
                await self._changed.wait()
                self._changed = anyio.Event()

    async def _finish(self, plan: Plan) -> RunResult:
        journal, ledger = self.shared.journal, self.shared.ledger
        if self._draining and plan.answer is None:
            await self._flush()
            return self._interrupted("drained")
        blocked = ledger.refused or (ledger.blocked(False) if plan.limited else None)
        limit = blocked.kind if blocked is not None else None
        if plan.answer is not None:
            if self.graph.answer is None:
                journal.add(None, AnswerAccepted(answer=plan.answer))
            outcome, detail = Outcome.ANSWERED, plan.answer.reason
        elif blocked is not None:
            outcome, detail = Outcome.EXHAUSTED, f"{blocked}; {plan.failure}" if plan.failure else str(blocked)
        else:
            outcome = self._unanswered()
            detail = plan.failure or "the run ended without an answer"
        journal.add(None, RunFinished(outcome=outcome, detail=detail, answer=plan.answer, limit=limit))
        await self._flush()
        return RunResult(self.id, outcome, plan.answer, ledger.used, detail, limit)

    def _recorded(self) -> RunResult | None:
        """The result of a run that had ended before this process took it up."""
        graph = self.graph
        if graph.outcome is None:
            return None
        return RunResult(self.id, graph.outcome, graph.answer, self.shared.ledger.used, graph.detail, graph.limit)

    def _unanswered(self) -> Outcome:
        """What a run without an answer comes to: failed if a boundary broke, refused if nobody would answer."""
        if self._states[Outcome.FAILED]:
            return Outcome.FAILED
        only_refused = self._states[Outcome.REFUSED] and not self._states[Outcome.EXHAUSTED]
        return Outcome.REFUSED if only_refused else Outcome.EXHAUSTED

    def _interrupted(self, how: str) -> RunResult:
        return RunResult(self.id, Outcome.CANCELLED, None, self.shared.ledger.used, how, interrupted=True)

    async def _flush(self) -> None:
        await self.shared.journal.store.durable(self.graph.seq)

    def _record(self, body: EventBody, thread: str | None = None) -> None:
        self.shared.journal.add(thread, body)

    def _wake(self) -> None:
        self._changed.set()


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first plain exception of a group; a StoreError before any other, for it names the cause."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        item = stack.pop()
        if isinstance(item, BaseExceptionGroup):
            stack.extend(item.exceptions)
        else:
            leaves.append(item)
    return next((leaf for leaf in leaves if isinstance(leaf, StoreError)), leaves[-1])
