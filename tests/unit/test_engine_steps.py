"""Steps, scorers, states and confidence in the engine: a scripted model, a real store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from researcher import Orchestrator
from researcher.engine.confidence import Watch, token_confidence
from researcher.errors import ConnectFault, UserError
from researcher.events import BudgetCharged, CallStarted, Event, Scored
from researcher.protocols import Ask
from researcher.store import RunReader, run_path
from researcher.strategies.steps import StepParameters, StepTree
from researcher.testing.scripted_model import ScriptedModel
from researcher.types import (
    Alternative,
    Budget,
    Capabilities,
    Completion,
    Confidence,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Sampling,
    Task,
    Usage,
    Verdict,
    VerdictStatus,
)
from researcher.views import Plan, View

pytestmark = pytest.mark.anyio
TASK = Task(question="Make 24.", tools=())
CAN = Capabilities(prefill=True)


class Chain(StepParameters):
    """Three children of one step, then the best of them is continued to its answer."""

    scorer: str = "taste"

    def plan(self, view: View) -> Plan:
        tree = StepTree.of(view, "chain")
        if not tree.roots:
            return Plan(start=(self.step(view, "0", None),))
        node = tree.roots[0]
        while node.children:
            node = max(node.children, key=lambda child: child.score)
        if tree.running:
            return Plan()
        if node.complete:
            return Plan(failure=node.text)
        if not node.alive:
            return Plan(failure=f"{node.key}: {node.info.outcome}, {node.info.detail}")
        count = 3 if node.depth == 1 else 1
        return Plan(start=tuple(self.step(view, f"{node.key}/{i}", node) for i in range(count)))


class Taste:
    """Asks the model how good the last step is, and notes what it was shown."""

    name = "taste"

    def __init__(self, ask: Ask | None = None, seen: list[tuple[str, ...]] | None = None) -> None:
        self._ask, self.seen = ask, [] if seen is None else seen

    def bound(self, ask: Ask) -> "Taste":
        return type(self)(ask, self.seen)

    async def verify(self, task: Task, answer: str) -> Verdict:
        return Verdict(status=VerdictStatus.CORRECT, by=self.name, score=0.9)

    async def verify_step(self, task: Task, steps: Sequence[str]) -> Verdict:
        self.seen.append(tuple(steps))
        assert self._ask is not None
        message = Message(role="user", content="judge " + steps[-1])
        said = await self._ask(ModelRequest(messages=(message,), sampling=Sampling(max_tokens=1)))
        return Verdict(status=VerdictStatus.CORRECT, by=self.name, score=float(said.message.content))


class Puzzle(Taste):
    """A rule that knows states: the letters so far, in any order."""

    name = "puzzle"

    def state_key(self, task: Task, steps: Sequence[str]) -> str | None:
        return "".join(sorted("".join(steps).replace("\n", "")))


def writer(request: ModelRequest) -> str:
    """Steps `a`, then `b` or `c` by the seed, then the answer; judgements by the letter, of the answer 0.9."""
    if request.messages[-1].content.startswith("judge"):
        return {"a": "0.5", "b": "0.2", "c": "0.8"}.get(request.messages[-1].content.split()[1], "0.9")
    assert request.raw
    assert request.sampling.keep_stop
    if not request.prefix:
        return "a\n"
    if request.prefix == "a\n":
        return "b\n" if (request.sampling.seed or 0) % 2 else "c\n"
    return "<answer>24</answer>"


@pytest.fixture
def orchestrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Orchestrator]:
    monkeypatch.setattr("researcher.engine.orchestrator.load_strategy", lambda name, params: Chain(**(params or {})))

    def make(replies: Any = writer, can: Capabilities = CAN, **scorers: Any) -> Orchestrator:
        own = scorers or {"taste": Taste()}
        return Orchestrator(ScriptedModel(replies, capabilities=can), home=tmp_path, tools=[], scorers=own)

    return make


def log(home: Path, run_id: str) -> list[Event]:
    return list(RunReader(run_path(home, run_id)).read())


async def test_a_step_continues_its_parent_and_the_path_joins_to_the_answer(
    orchestrator: Callable[..., Orchestrator], tmp_path: Path
) -> None:
    async with orchestrator() as engine:
        run = await engine.start(TASK, strategy="chain")
        result = await run.result()
        graph = run.graph
    assert result.detail == "a\nc\n<answer>24</answer>"
    last = next(info for info in graph.threads() if info.answer == "24")
    assert [m.content for m in graph.messages(last.key)[2:]] == ["a\n", "c\n", "<answer>24</answer>"]
    assert last.work.parent.startswith("0/")
    requests = [r for r in engine.model.requests if r.raw]  # type: ignore[attr-defined]
    assert [r.prefix for r in requests] == ["", "a\n", "a\n", "a\n", "a\nc\n"]
    assert all(r.messages[-1].role == "user" for r in requests)


async def test_each_new_step_is_scored_once_and_the_scorer_is_charged(
    orchestrator: Callable[..., Orchestrator], tmp_path: Path
) -> None:
    taste = Taste()
    async with orchestrator(taste=taste) as engine:
        run = await engine.start(TASK, strategy="chain")
        result = await run.result()
    assert sorted(set(taste.seen)) == sorted(taste.seen)  # equal siblings share a verdict
    events = log(tmp_path, run.id)
    guides = [e for e in events if isinstance(e.body, Scored)]
    assert len(guides) == 5
    assert all(isinstance(e.body, Scored) and e.body.guide for e in guides)
    charged = [e for e in events if isinstance(e.body, BudgetCharged) and e.body.reason == "verifier"]
    assert len(charged) == len(taste.seen)
    model = engine.model
    assert result.usage.calls == model.calls == sum(isinstance(e.body, CallStarted) for e in events)  # type: ignore[attr-defined]


async def test_threads_in_one_state_merge(orchestrator: Callable[..., Orchestrator]) -> None:
    puzzle = Puzzle()
    async with orchestrator(taste=puzzle, puzzle=puzzle) as engine:
        run = await engine.start(Task(question="Make 24.", verifier="puzzle"), strategy="chain")
        await run.result()
        graph = run.graph
    children = [info for info in graph.threads() if info.work.parent == "0"]
    for state in {info.state for info in children}:
        assert state is not None
        assert list(graph.state(state)) == [info.key for info in children if info.state == state]
    assert sum(len(graph.state(state)) for state in ("ab", "ac")) == 3


async def test_a_verdict_of_the_task_is_apart_from_the_score(orchestrator: Callable[..., Orchestrator]) -> None:
    puzzle = Puzzle()
    async with orchestrator(taste=Taste(), puzzle=puzzle) as engine:
        run = await engine.start(Task(question="Make 24.", verifier="puzzle"), strategy="chain")
        await run.result()
        (last,) = [info for info in run.graph.threads() if info.answer]
    assert last.verdict is not None
    assert (last.verdict.by, last.verdict.status) == ("puzzle", VerdictStatus.CORRECT)
    assert last.score == 0.9


async def test_a_step_that_is_too_long_is_exhausted(orchestrator: Callable[..., Orchestrator]) -> None:
    def long(request: ModelRequest) -> Completion:
        message = Message(role="assistant", content="on and on")
        return Completion(message=message, finish=FinishReason.LENGTH, model="m", usage=Usage(completion_tokens=3))

    async with orchestrator(long) as engine:
        run = await engine.start(TASK, strategy="chain")
        result = await run.result()
    assert "token limit" in result.detail
    assert run.graph.threads()[0].outcome is Outcome.EXHAUSTED


async def test_a_scorer_whose_model_breaks_fails_its_thread_alone(orchestrator: Callable[..., Orchestrator]) -> None:
    def broken(request: ModelRequest) -> str:
        if request.messages[-1].content.startswith("judge"):
            raise ConnectFault("the judge is away")
        return writer(request)

    async with orchestrator(broken) as engine:
        run = await engine.start(TASK, strategy="chain")
        result = await run.result()
    assert "the judge is away" in result.detail


async def test_a_spent_budget_stops_the_scorer_too(orchestrator: Callable[..., Orchestrator]) -> None:
    async with orchestrator() as engine:
        run = await engine.start(TASK, strategy="chain", budget=Budget(calls=3, reserve=0.0))
        result = await run.result()
    assert result.usage.calls == 3
    assert result.limit == "calls"


async def test_what_the_server_lacks_is_said_before_anything_is_spent(
    orchestrator: Callable[..., Orchestrator],
) -> None:
    async with orchestrator(can=Capabilities()) as engine:
        with pytest.raises(UserError, match=r"continue a begun reply.*vLLM"):
            await engine.start(TASK, strategy="chain")
        assert engine.model.calls == 0  # type: ignore[attr-defined]


async def test_an_unknown_scorer_is_refused(orchestrator: Callable[..., Orchestrator]) -> None:
    async with orchestrator() as engine:
        with pytest.raises(UserError, match=r"prmm.*did you mean"):
            await engine.start(TASK, strategy="chain", params={"scorer": "prmm"})


def test_token_confidence_is_minus_the_mean_logprob() -> None:
    alternatives = [Alternative(token="a", logprob=-0.5), Alternative(token="b", logprob=-2.5)]
    assert token_confidence(alternatives) == 1.5
    assert token_confidence([]) == 0.0


async def test_a_watch_looks_at_full_windows_only() -> None:
    scope = anyio.CancelScope()
    watch = Watch(Confidence(floor=1.0, window=3), scope)
    watch.see([0.0, 0.0])
    assert not watch.fell
    watch.see([3.1])  # mean 1.03
    assert not watch.fell
    watch.see([0.0])  # 0, 3.1, 0: mean 1.03
    assert not watch.fell
    watch.see([-0.2])  # 3.1, 0, -0.2: below 1
    assert watch.fell
    assert scope.cancel_called
