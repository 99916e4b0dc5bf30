"""Every strategy by its name, through the engine, on the embedded reasoner; and it does what it is named for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from researcher import Orchestrator
from researcher.models.endpoint import Endpoint
from researcher.strategies.load import load_strategy, strategy_names
from researcher.types import Budget, Outcome, Task, VerdictStatus
from researcher.views import ThreadInfo

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]

NUMBERS, TARGET = [64, 12, 7], 59
QUESTION = "Use the numbers 64, 12, 7 once each with + - * / to make 59."
PUZZLE = Task(question=QUESTION, verifier="countdown", data={"numbers": NUMBERS, "target": TARGET})
STEPS = {"scorer": "reachable", "temperature": 1.0}

RUNS: dict[str, list[dict[str, Any]]] = {
    "chain_of_thought": [{}, {"style": "r1"}],
    "vote": [{"n": 8}, {"n": 8, "stop": "beta"}, {"n": 4, "weights": "confidence"},
             {"n": 4, "over": "budget_forcing", "over_params": {"thinking": 200}}],
    "best_of_n": [{"n": 8, "stop_when_verified": False}, {"n": 4, "scorer": "orm"},
                  {"n": 4, "scorer": "prm", "aggregate": "min"}],
    "beam": [STEPS, {"scorer": "prm"}],
    "dvts": [{**STEPS, "n": 8}],
    "rebase": [{**STEPS, "n": 8}],
    "particle_filter": [{**STEPS, "n": 8}, {**STEPS, "n": 8, "entropic": True}],
    "tree": [{}],
    "mcts": [{**STEPS, "iterations": 32}, {**STEPS, "policy": "puct", "iterations": 32}],
    "ab_mcts": [{}],
    "graph": [{}],
    "refine": [{"rounds": 2}],
    "budget_forcing": [{"thinking": 300}, {"least": 100, "waits": 2}],
    "partial": [{"n": 2, "piece": 40}],
    "rsa": [{"population": 4, "rounds": 2, "k": 2}],
    "auto": [{}, {"step_scorer": "reachable"}],
}  # fmt: skip
CASES = [(name, params) for name, each in RUNS.items() for params in each]


def kinds(threads: tuple[ThreadInfo, ...]) -> set[str]:
    return {thread.work.kind for thread in threads}


def test_every_strategy_is_run() -> None:
    """`research` has its own run: the demo."""
    assert set(RUNS) | {"research"} == set(strategy_names())


@pytest.mark.parametrize(("name", "params"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
async def test_a_strategy_answers(name: str, params: dict[str, Any], embedded: Endpoint, tmp_path: Path) -> None:
    budget = Budget(tokens=60_000, calls=400)
    async with Orchestrator(embedded, home=tmp_path, tools=[]) as orchestrator:
        run = await orchestrator.start(PUZZLE, strategy=name, params=params, budget=budget, seed=5)
        result = await run.result()
        threads = tuple(run.graph.threads())
    failed = [thread for thread in threads if thread.outcome is Outcome.FAILED]
    assert not failed, failed[0]
    # A small model may find no answer; then the strategy says so, and what it tried is there.
    assert result.outcome in (Outcome.ANSWERED, Outcome.EXHAUSTED), result
    assert result.detail
    if result.answer is not None:
        judged = [t for t in threads if t.canonical == result.answer.canonical and t.verdict is not None]
        assert judged or name == "tree"
        right = any(t.verdict is not None and t.verdict.status is VerdictStatus.CORRECT for t in judged)
        assert result.answer.supported is right
    strategy = load_strategy(name, params)
    if "steps" in strategy.needs and name not in ("vote", "tree"):
        assert kinds(threads) == {"step"}
        # Only where the exact rule finds every first step dead is there nothing to continue.
        dead = params.get("scorer") == "reachable" and not any(thread.score for thread in threads)
        assert dead or any(thread.work.parent for thread in threads), "nothing continued anything"
    if scorers := set(getattr(strategy, "scorers", ())):
        scored = [thread for thread in threads if thread.score is not None]
        assert scored or name == "auto", f"{scorers} scored nothing"


async def test_a_beam_with_the_exact_rule_keeps_no_dead_state(embedded: Endpoint, tmp_path: Path) -> None:
    async with Orchestrator(embedded, home=tmp_path, tools=[]) as orchestrator:
        run = await orchestrator.start(PUZZLE, strategy="beam", params={**STEPS, "n": 8, "m": 4}, seed=3)
        await run.result()
        threads = {thread.key: thread for thread in run.graph.threads()}
    continued = {thread.work.parent for thread in threads.values() if thread.work.parent}
    assert continued, "the beam never took a second step"
    assert all(threads[key].score for key in continued)


async def test_the_score_of_a_step_is_the_probability_of_plus(embedded: Endpoint, tmp_path: Path) -> None:
    async with Orchestrator(embedded, home=tmp_path, tools=[]) as orchestrator:
        run = await orchestrator.start(PUZZLE, strategy="beam", params={"scorer": "prm", "temperature": 1.0}, seed=3)
        await run.result()
        scores = [thread.score for thread in run.graph.threads() if thread.score is not None]
    assert len(set(scores)) > 1
    assert all(0.0 <= score <= 1.0 for score in scores)
