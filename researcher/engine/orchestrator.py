"""The door of the engine: `async with Orchestrator(documents="docs") as o: print((await o.answer("...")).answer)`."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup
from researcher_tools import Documents, tool_names
from researcher_tools.secrets import ScrubbedLog

from researcher.engine.approval import Approvals
from researcher.engine.boundary import BUDGET
from researcher.engine.budget import Ledger, Prices
from researcher.engine.claims import SourceTexts
from researcher.engine.journal import Journal
from researcher.engine.judging import Bench
from researcher.engine.opening import Options, check_pins, open_all, scrubbed, scrubber
from researcher.engine.preflight import (
    check_budget,
    check_calls,
    check_capabilities,
    check_question,
    check_seed,
    check_tools,
    check_verifier,
)
from researcher.engine.run import Run, RunResult
from researcher.engine.shared import Shared
from researcher.engine.toolbox import Toolbox
from researcher.errors import UserError
from researcher.events import BudgetCharged, RunResumed, RunStarted, RunSteered
from researcher.graph import ThoughtGraph
from researcher.models.uri import choose_model, open_model
from researcher.protocols import Approve, Model, Sandbox, Store, Strategy, Tool, Verifier
from researcher.store import RunStore, new_run_id, run_path
from researcher.strategies.load import load_strategy
from researcher.types import Budget, Capabilities, Task, Usage

DEFAULT_HOME = Path("~/.researcher")
LOGGERS = (
    "researcher.engine.toolbox",
    "researcher.engine.approval",
    "researcher.engine.boundary",
    "researcher.engine.run",
)
"""Those that write down what tools, callbacks and servers raised."""


class Orchestrator:
    """Starts and resumes runs on one model; several runs at once, inside any running asyncio event loop.

    `model`: a URI or a Model; None takes a configured or reachable server, else the embedded model (`notices` say
    which). `documents`: a folder, or opened Documents, for the tools `search` and `read`. `tools`: names of built-in
    tools and tools of your own; None takes every built-in tool that can work here. `scorers`: verifiers of your own by
    the name that a strategy's `scorer` or a task's `verifier` gives. `concurrency` bounds the threads
    of one run; how many calls the server gets at once adapts by itself. `stream`: None streams where a call may be
    cut short. `sandbox`: monty, docker, gvisor, or one of your own. `options` are the tables docker, search, fetch and
    mcp of the settings. `approval` says of a tool always, ask or never (MCP tools: ask, else always); `approve` is
    asked for each call of a tool whose approval is `ask`, and without it such a call is refused. `store` makes the log
    of a new run, instead of a file; one that is not on disk cannot be resumed.
    """

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        home: Path | str | None = None,
        documents: Path | str | Documents | None = None,
        tools: Iterable[str | Tool] | None = None,
        sandbox: Sandbox | str | None = None,
        options: Options | None = None,
        approve: Approve | None = None,
        approval: Mapping[str, str] | None = None,
        scorers: Mapping[str, Verifier] | None = None,
        prices: Prices | None = None,
        concurrency: int = 10_000,
        stream: bool | None = None,
        record_tokens: bool = True,
        store: Callable[[Path], Store] | None = None,
    ) -> None:
        if concurrency < 1:
            raise UserError(f"A run needs room for one thread at least; concurrency is {concurrency}.")
        self.home = Path(home if home is not None else DEFAULT_HOME).expanduser()
        self._model_or_uri = model
        self._documents = Path(documents) if isinstance(documents, str) else documents
        self._wanted = None if tools is None else list(tools)
        self._sandbox = sandbox
        self._options: Options = {name: dict(table) for name, table in (options or {}).items()}
        self._approvals = Approvals(approval, approve)
        self._scrub = scrubber(self._options)
        self._scorers = dict(scorers or {})
        self._prices = prices
        self._concurrency = concurrency
        self._stream = stream
        self._record_tokens = record_tokens
        self._store = store or RunStore.create
        self._stack = AsyncExitStack()
        self._runs: dict[str, Run] = {}
        self._group: TaskGroup
        self._toolbox: Toolbox
        self._record: dict[str, Any] = {}
        self.model: Model
        self.capabilities: Capabilities
        self._opened_sandbox: Sandbox | None = None
        self.uri = ""
        self.notices: list[str] = []
        """What a person should know: which model was chosen and why, which documents could not be read."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._quiet(stack)
            opened = await open_all(
                stack,
                self._wanted,
                documents=self._documents,
                sandbox=self._sandbox,
                options=self._options,
                home=self.home,
            )
            self._approvals.check({*opened.tools, *tool_names(), *self._options.get("mcp", {})})
            self._toolbox = Toolbox(opened.tools, approvals=self._approvals, scrub=self._scrub)
            self._opened_sandbox = opened.sandbox
            self._record = opened.record
            self.notices += opened.notices
            if self._model_or_uri is None or isinstance(self._model_or_uri, str):
                choice = await choose_model(self._model_or_uri)
                self.uri = choice.uri
                self.notices.append(choice.reason)
                self.model = await stack.enter_async_context(open_model(choice.uri))
            else:
                self.model = self._model_or_uri
                self.uri = self.model.uri
            self.capabilities = await self.model.capabilities()
            if self.capabilities.context is not None:  # one result must leave room for the conversation
                self._toolbox.characters = min(self._toolbox.characters, max(2_000, self.capabilities.context))
            self._group = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # Runs keep their errors to themselves, so the body's own error goes on as it is, not in a group.
        self._abort_all()
        await self._stack.aclose()
        return None

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that tasks may use."""
        return tuple(self._toolbox.tools)

    def tool(self, name: str) -> Tool | None:
        """A tool by its name, for a call that belongs to no run."""
        return self._toolbox.tools.get(name)

    async def start(
        self,
        task: Task | str,
        *,
        strategy: str = "research",
        params: Mapping[str, Any] | None = None,
        budget: Budget = Budget(),
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Run:
        """A new run, under way and durable. Raises UserError for input that cannot run."""
        if isinstance(task, str):
            task = Task(question=task, tools=self._usual_tools())
        task = msgspec.structs.replace(task, tools=self._granted(task.tools))
        check_seed(seed)
        planner = load_strategy(strategy, params)
        self._check(task, strategy, planner, budget)
        run_id = new_run_id()
        documents = str(self._documents.resolve()) if isinstance(self._documents, Path) else None
        began = RunStarted(
            task=task,
            strategy=strategy,
            params=dict(params or {}),
            model=self.uri,  # not the address of a server of ours, which is another one after a resume
            seed=seed,
            budget=budget,
            settings={"documents": documents, **self._recorded(), **(settings or {})},
        )
        try:
            msgspec.msgpack.encode(began)
        except (TypeError, OverflowError, ValueError) as error:
            raise UserError(f"The task, parameters or settings cannot be recorded: {error}.") from None
        ledger = Ledger(budget, now=time.monotonic, prices=self._prices)
        path = run_path(self.home, run_id)
        async with _until_launched(await anyio.to_thread.run_sync(self._store, path)) as store:
            journal = Journal(store, ThoughtGraph())
            await journal.durable(journal.add(None, began))
            return self._launch(run_id, planner, journal, ledger, began)

    async def resume(self, run_id: str, *, budget: Budget | None = None) -> Run:
        """The run, going on where its log ends; one that has its answer just gives it.

        `budget` replaces the old one, and a run that a limit had ended goes on even if it has a partial answer.
        Threads that the limit or a fault of the model server had ended are opened again.
        Raises StoreLocked where another process has it open, UserError where there is no such run.
        """
        if (live := self._runs.get(run_id)) is not None and not live.ended:
            return live
        path = run_path(self.home, run_id)
        async with _until_launched(await anyio.to_thread.run_sync(RunStore.open, path)) as store:
            graph, seconds = _replay(store)
            began = graph.started
            if began is None:
                raise UserError(f"Run {run_id} was killed before its first event; start it anew.")
            planner = load_strategy(began.strategy, began.params)
            self._check(began.task, began.strategy, planner, budget or began.budget)
            check_pins(began.settings, self._toolbox.tools, began.task.tools)
            journal = Journal(store, graph)
            if graph.answer is None or (budget is not None and graph.limit is not None):
                await self._reopen(journal, budget)
            ledger = Ledger(
                budget or began.budget,
                now=time.monotonic,
                used=graph.usage,
                spent_seconds=seconds,
                prices=self._prices,
            )
            return self._launch(run_id, planner, journal, ledger, began)

    @staticmethod
    async def _reopen(journal: Journal, budget: Budget | None) -> None:
        """Record that the run goes on: what was lost in flight is charged, what had to stop is opened again."""
        graph, lost = journal.graph, journal.graph.calling
        stopped = {BUDGET} if budget is not None else set()
        if graph.outcome is not None:
            stopped.add("model")
        journal.add(None, RunResumed(repeated=len(lost), reopened=graph.stopped_at(stopped)))
        for thread in lost:
            journal.add(thread, BudgetCharged(usage=Usage(calls=1), reason="lost call", estimated=True))
        if budget is not None:
            journal.add(None, RunSteered(action="budget", detail=msgspec.to_builtins(budget)))
        await journal.store.durable(graph.seq)

    async def answer(self, task: Task | str, **options: Any) -> RunResult:
        """The result of a new run; takes the options of `start`."""
        run = await self.start(task, **options)
        try:
            return await run.result()
        finally:
            run.abort()  # nobody waits for it any more; nothing, once it has ended

    def _launch(self, run_id: str, planner: Strategy, journal: Journal, ledger: Ledger, began: RunStarted) -> Run:
        cancels = bool(getattr(planner, "cancels", True)) or ledger.budget.seconds is not None
        shared = Shared(
            journal=journal,
            model=self.model,
            capabilities=self.capabilities,
            ledger=ledger,
            toolbox=self._toolbox,
            task=began.task,
            texts=SourceTexts(journal.store.get_blob),
            bench=Bench(began.task, self.model, self._scorers, self._opened_sandbox),
            record_tokens=self._record_tokens,
            streaming=cancels if self._stream is None else self._stream,
            run=run_id,
        )
        run = Run(id=run_id, strategy=planner, shared=shared, concurrency=self._concurrency, seed=began.seed)
        self._runs[run_id] = run
        self._group.start_soon(self._execute, run)
        return run

    async def _execute(self, run: Run) -> None:
        try:
            await run.execute()
        finally:
            self._runs.pop(run.id, None)
            with anyio.CancelScope(shield=True):
                await run.shared.bench.aclose()

    def _check(self, task: Task, name: str, strategy: Strategy, budget: Budget) -> None:
        check_question(task)
        check_budget(budget, priced=self._prices is not None)
        check_tools(task, self.tools)
        needs = strategy.needs | ({"tools"} if task.tools else set())
        check_capabilities(name, needs, self.uri, self.capabilities)
        check_calls(name, strategy, task)
        check_verifier(name, strategy, task)
        bench = Bench(task, self.model, self._scorers, self._opened_sandbox)
        for scorer in getattr(strategy, "scorers", ()):
            needs = getattr(bench.scorer(scorer), "needs", frozenset())
            check_capabilities(scorer, needs, self.uri, self.capabilities, what="Scorer")

    def _recorded(self) -> dict[str, Any]:
        """What the first event says of tools and approvals, without any key."""
        policy = {"approval": dict(self._approvals.policy)} if self._approvals.policy else {}
        recorded: dict[str, Any] = scrubbed({**self._record, **policy}, self._scrub)
        return recorded

    def _quiet(self, stack: AsyncExitStack) -> None:
        """Keep keys out of what this package logs until the orchestrator is closed."""
        if self._scrub:
            quiet = ScrubbedLog(self._scrub)
            for name in LOGGERS:
                logging.getLogger(name).addFilter(quiet)
                stack.callback(logging.getLogger(name).removeFilter, quiet)

    def _granted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The tools of a task, with all of a server's tools in the place of `SERVER__*`."""
        granted: dict[str, None] = {}
        for name in names:
            start = name.removesuffix("*")
            wild = name.endswith("__*")
            granted.update(dict.fromkeys([each for each in self.tools if each.startswith(start)] if wild else [name]))
        return tuple(granted)

    def _usual_tools(self) -> tuple[str, ...]:
        """What a bare question may use: the documents, and the tools that were brought along."""
        own = [tool.spec.name for tool in self._wanted or () if not isinstance(tool, str)]
        return tuple(name for name in dict.fromkeys(("search", "read", *own)) if name in self.tools)

    def _abort_all(self) -> None:
        for run in self._runs.values():
            run.abort()


@asynccontextmanager
async def _until_launched(store: Store) -> AsyncIterator[Store]:
    """Closes the store if the run is not launched after all; a run that is closes it itself."""
    try:
        yield store
    except BaseException:
        with anyio.CancelScope(shield=True):
            await store.aclose()
        raise


def _replay(store: Store) -> tuple[ThoughtGraph, float]:
    """The graph of the log, and the seconds that processes spent on the run so far."""
    graph, seconds, began, last = ThoughtGraph(), 0.0, 0.0, 0.0
    for event in store.read():
        if isinstance(event.body, RunStarted | RunResumed):
            seconds += max(0.0, last - began)
            began = event.at
        last = event.at
        graph.apply(event)
    return graph, seconds + max(0.0, last - began)
