"""Every built-in strategy passes the conformance suite; a broken one does not."""

import random

import pytest

from researcher.protocols import Strategy
from researcher.strategies.auto import Auto
from researcher.strategies.best_of_n import BestOfN
from researcher.strategies.chain_of_thought import ChainOfThought
from researcher.strategies.research import Research
from researcher.strategies.vote import Vote
from researcher.testing.simulate import Reply
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import Claim, Evidence, Task, Work
from researcher.views import Plan, View

TASK = Task(question="Who is older, Ana or Bo?", tools=("search",))
CLAIM = Claim(text="Ana is 40.", evidence=(Evidence(sha256="00" * 32, start=0, end=10),))


def reply(work: Work) -> Reply:
    if work.role == "planner":
        return Reply("1. Age of Ana?\n2. Age of Bo?")
    seconds = 1.0 + (work.sampling.seed or 0) % 7
    return Reply("<answer>Ana</answer>", seconds=seconds, claims=(CLAIM,))


@pytest.mark.parametrize(
    "strategy",
    [
        ChainOfThought(),
        Vote(n=7),
        Vote(n=7, stop="full"),
        Vote(n=7, stop="beta"),
        Research(samples=3),
        Research(samples=1, writers=1),
    ],
    ids=lambda s: f"{s.name}-{getattr(s, 'stop', '')}",
)
def test_built_in_strategies_conform(strategy: Strategy) -> None:
    check_strategy(strategy, TASK, reply)


def disagreeing(work: Work) -> Reply:
    """Three answers that scatter over time, with scores and confidences; a solution in steps has two of them."""
    rng = random.Random(work.sampling.seed)
    final = "so\n" if work.kind == "step" and not work.parent else f"<answer>{rng.randrange(3)}</answer>"
    return Reply(final, rng.random(), score=rng.random() if work.scorer else None, confidence=(rng.random(),) * 9)


@pytest.mark.parametrize(
    "strategy",
    [
        ChainOfThought(style="r1"),
        Vote(n=7, stop="beta", confidence=0.8),
        Vote(n=7, stop="consensus", warmup=3, consensus=0.6),
        Vote(n=7, weights="score", scorer="orm"),
        Vote(n=7, weights="confidence", keep=0.5, measure="bottom", window=4),
        Vote(n=7, weights="confidence", online="low", warmup=3, window=4),
        Vote(n=3, over="vote", over_params={"n": 3}),
        BestOfN(n=7, scorer="orm"),
        BestOfN(n=7, scorer="orm", choose="naive", stop="full"),
        BestOfN(n=5, scorer="prm", aggregate="mean"),
        Auto(among=("vote", "refine")),
        Auto(scorer="orm"),
    ],
    ids=lambda s: "-".join(f"{name}={getattr(s, name)}" for name in sorted(s.model_fields_set)) or s.name,
)
def test_built_in_strategies_conform_where_threads_disagree(strategy: Strategy) -> None:
    check_strategy(strategy, Task(question="Who is older?"), disagreeing)


class Forgetful(Vote):
    """Asks for the same work again."""

    def plan(self, view: View) -> Plan:
        plan = super().plan(view)
        first = view.graph.thread("vote/0")
        return Plan(start=(*plan.start, first.work)) if first and plan.start else plan


class Greedy(Vote):
    """Does not look at the free slots."""

    def plan(self, view: View) -> Plan:
        return super().plan(View(view.task, view.graph, view.in_flight, 99, view.budget, view.seed))


class Stalls(Vote):
    """Never ends."""

    def plan(self, view: View) -> Plan:
        plan = super().plan(view)
        return Plan(start=plan.start)


@pytest.mark.parametrize("broken", [Forgetful(n=7), Greedy(n=7), Stalls(n=7)])
def test_broken_strategies_do_not(broken: Strategy) -> None:
    with pytest.raises(AssertionError):
        check_strategy(broken, TASK, reply)
