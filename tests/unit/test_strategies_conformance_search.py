"""The tree searches pass the conformance suite: MCTS, AB-MCTS and trees of thoughts, in each of their forms."""

import random

import pytest

from researcher.protocols import Strategy
from researcher.strategies.ab_mcts import ABMCTS
from researcher.strategies.mcts import MCTS
from researcher.strategies.tree import TreeOfThoughts
from researcher.testing.simulate import Reply
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import Task, Verdict, VerdictStatus, Work

TASK = Task(question="Count to three.")


class Counting:
    """A model that counts to three in steps, of which some are better than others and many come to the same state."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def __call__(self, work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        seconds, score = 1 + rng.random(), rng.random()
        match work.role:
            case "proposer":
                count = work.messages[-1].content.count("=") + 1
                lines = [f"{count}={rng.randrange(6)}" for _ in range(3)]
                return Reply("\n".join(lines if count < 4 else [f"<answer>{rng.randrange(4)}</answer>"]), seconds)
            case "valuer":
                return Reply(rng.choice(["sure", "likely", "impossible", "hm"]), seconds)
            case "voter":
                return Reply(str(rng.randrange(1, 4)), seconds)
        if work.kind == "step":
            count = self.count[work.key] = self.count.get(work.parent, 0) + 1
            if count < 3 and "\n" in work.sampling.stop:
                return Reply(f"{count} {rng.randrange(9)}\n", seconds, score=score, state=f"{count}/{rng.randrange(3)}")
        verdict = Verdict(status=VerdictStatus.WRONG, by="rule", score=score)
        return Reply(f"<answer>{rng.randrange(4)}</answer>", seconds, score=score, verdict=verdict)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        MCTS(iterations=14),
        MCTS(iterations=14, policy="puct", final="visits", expansions=3),
        MCTS(iterations=9, scorer="", values="rollouts"),
        ABMCTS(n=12),
        ABMCTS(n=12, scorer="orm", prior="beta", parallel=2),
        TreeOfThoughts(keep=2, value_samples=2),
        TreeOfThoughts(keep=2, evaluate="votes", finish="ask", votes=2, depth=3),
        TreeOfThoughts(keep=3, search="dfs", value_samples=1, expansions=9),
        TreeOfThoughts(keep=2, thoughts="sample", evaluate="scores", scorer="prm", breadth=3),
        TreeOfThoughts(keep=2, thoughts="sample", evaluate="scores", scorer="prm", breadth=2, search="dfs"),
    ],
    ids=lambda strategy: "-".join(
        [strategy.name, *(str(v) for v in strategy.model_dump(exclude_defaults=True).values())]
    ),
)
def test_they_conform(strategy: Strategy) -> None:
    check_strategy(strategy, TASK, Counting())
