"""Planning time of strategies: `python benchmarks/plan.py [threads]`, or `-m benchmarks.plan`.

Each strategy plans a run of that many threads, all in flight at once or 100 at a time, that end in random order. What
is timed is the processor time in `plan`; `read` is how many records of the graph the average plan looked at, which
should not grow with the run. A new strategy is one line of CASES: its name, and the strategy and replies for so many
threads.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

from researcher.protocols import Strategy
from researcher.strategies.load import load_strategy
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import Reply
from researcher.types import Task, Work

TASK = Task(question="What is it?")
Respond = Callable[[Work], Reply]


def answers(classes: int) -> Respond:
    """Replies of so many different answers, in random order of completion, with scores and confidences."""

    def reply(work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        if work.role == "planner":
            return Reply("\n".join(f"{i}. What is its part {i}?" for i in range(1, 11)))
        answer = rng.randrange(classes)
        return Reply(
            f"<answer>{answer}</answer>", 1 + 9 * rng.random(), score=rng.random(), confidence=(rng.random(),) * 20
        )

    return reply


def thinking(depth: int, states: int = 0) -> Respond:
    """A model that writes steps, `depth` of them before it answers, proposes five at once, and values them; with
    `states`, each step leads to one of so many of its depth."""
    depths: dict[str, int] = {}

    def reply(work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        seconds, score = 1 + 9 * rng.random(), rng.random()
        if work.role == "proposer":
            return Reply("\n".join(f"step {rng.random()}" for _ in range(5)), seconds)
        if work.role == "valuer":
            return Reply(rng.choice(("sure", "likely", "impossible")), seconds)
        at = depths[work.key] = depths.get(work.parent, 0) + 1
        if at >= depth or "\n" not in work.sampling.stop:
            return Reply(f"<answer>{rng.randrange(9)}</answer>", seconds, score=score)
        state = f"{at}/{rng.randrange(states)}" if states else None
        return Reply(f"step {rng.random()}\n", seconds, score=score, state=state)

    return reply


def of(name: str, **params: Any) -> Strategy:
    """A strategy by name."""
    return load_strategy(name, params)


CASES: dict[str, Callable[[int], tuple[Strategy, Respond]]] = {
    "vote full": lambda n: (of("vote", n=n, stop="full"), answers(7)),
    "vote lossless, no two answers alike": lambda n: (of("vote", n=n), answers(10**9)),
    "vote beta, a close race": lambda n: (of("vote", n=n, stop="beta", confidence=0.999999), answers(2)),
    "vote by confidence": lambda n: (of("vote", n=n, weights="confidence"), answers(7)),
    "vote over votes of 10": lambda n: (of("vote", n=n // 10, over="vote", over_params={"n": 10}), answers(7)),
    "best_of_n": lambda n: (of("best_of_n", n=n, scorer="judge", stop="full"), answers(7)),
    "beam, levels of 100": lambda n: (of("beam", n=100, depth=max(1, n // 100)), thinking(10**9)),
    "beam, four levels": lambda n: (of("beam", n=n // 4, depth=4), thinking(10**9)),
    "dvts, 25 subtrees": lambda n: (of("dvts", n=100, depth=max(1, n // 100)), thinking(10**9)),
    "rebase, levels of 100": lambda n: (of("rebase", n=100, depth=max(1, n // 100)), thinking(10**9)),
    "rebase, four levels": lambda n: (of("rebase", n=n // 4, depth=4), thinking(10**9)),
    "particle_filter, 100": lambda n: (of("particle_filter", n=100, depth=max(1, n // 100)), thinking(10**9)),
    "mcts": lambda n: (of("mcts", iterations=n), thinking(12)),
    "mcts, states merge": lambda n: (of("mcts", iterations=n), thinking(12, n // 20)),
    "mcts, puct": lambda n: (of("mcts", iterations=n, policy="puct"), thinking(12)),
    "mcts, roll-outs": lambda n: (of("mcts", iterations=n // 2, values="rollouts"), thinking(12)),
    "mcts, 256 at once": lambda n: (of("mcts", iterations=n, parallel=256), thinking(12)),
    "ab_mcts": lambda n: (of("ab_mcts", n=n, scorer="orm"), answers(7)),
    "ab_mcts, beta": lambda n: (of("ab_mcts", n=n, scorer="orm", prior="beta"), answers(7)),
    "tree": lambda n: (of("tree", keep=100, depth=1 + n // 1600), thinking(99)),
    "tree, depth first": lambda n: (of("tree", search="dfs", keep=100, expansions=n // 16, depth=9), thinking(99)),
    "research": lambda n: (of("research", samples=n // 10, max_questions=10), answers(7)),
}


def main() -> None:
    """Print one line of JSON for each case."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for name, case in CASES.items():
        for slots in (100, threads):
            strategy, reply = case(threads)
            cost = plan_cost(strategy, TASK, reply, slots=slots)
            figures = {
                "strategy": name,
                "slots": slots,
                "threads": len(cost.run.started) if cost.run else 0,
                "plans": cost.plans,
                "plan_ms": round(cost.milliseconds, 4),
                "longest_ms": round(1e3 * cost.longest, 2),
                "read": round(cost.reads_per_plan, 2),
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
