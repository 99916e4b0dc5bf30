"""MCTS: golden values of its bounds, what its table adds up, and what 16 simulations at once may not do."""

import math
import random
from collections import Counter
from collections.abc import Callable
from decimal import Decimal, getcontext
from fractions import Fraction
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest

from researcher import Orchestrator
from researcher.errors import UserError
from researcher.graph import ThoughtGraph
from researcher.strategies import load_strategy
from researcher.strategies.mcts import MCTS
from researcher.strategies.search import UNIT, State, Table, priors, puct, uct
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import (
    Capabilities,
    Completion,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Task,
    Usage,
    Verdict,
    VerdictStatus,
    Work,
)
from researcher.views import Plan, View

TASK = Task(question="Make 24 from 4 6 8 2.", verifier="game24", data={"numbers": [4, 6, 8, 2]})
DEEP = Task(question="Go on.")


class Numbers:
    """A model that joins two of the numbers at random; a step is scored by whether 24 can still be made."""

    def __init__(self, numbers: tuple[int, ...] = (4, 6, 8, 2), *, score: float | None = 1.0) -> None:
        self.start = tuple(sorted(map(Fraction, numbers)))
        self.left: dict[str, tuple[Fraction, ...]] = {}
        self.score = score

    def __call__(self, work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        left = self.left[work.parent] if work.parent else self.start
        lines = []
        while len(left) > 1:
            line, left = rng.choice(moves(left))
            lines.append(line)
            if work.sampling.stop:
                break
        else:
            right = left == (24,)
            lines.append(f"<answer>{left[0] if not right else '24'}</answer>")
            status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
            verdict = Verdict(status=status, by="game24")
            return Reply("\n".join(lines), 1.0 + rng.random(), verdict=verdict, score=self.score and float(right))
        self.left[work.key] = left
        live = self.score and self.score * reachable(left)
        return Reply(lines[-1] + "\n", 1.0 + rng.random(), score=live, state=" ".join(map(str, left)))


@cache
def moves(left: tuple[Fraction, ...]) -> list[tuple[str, tuple[Fraction, ...]]]:
    found = []
    for i, j in permutations(range(len(left)), 2):
        rest = [x for k, x in enumerate(left) if k not in (i, j)]
        a, b = left[i], left[j]
        for op, made in (("+", a + b), ("-", a - b), ("*", a * b), ("/", a / b if b else None)):
            if made is not None:
                then = tuple(sorted([*rest, made]))
                found.append((f"{a}{op}{b}={made} left {' '.join(map(str, then))}", then))
    return found


@cache
def reachable(left: tuple[Fraction, ...]) -> bool:
    return left == (24,) if len(left) == 1 else any(reachable(then) for _, then in moves(left))


class Corridor:
    """Steps that never merge and never end before `depth`; the score of each is its own."""

    def __init__(self, depth: int = 8, *, states: Callable[[int], str] | None = None) -> None:
        self.depth, self.states = depth, states
        self.at: dict[str, int] = {}

    def __call__(self, work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        at = self.at[work.key] = self.at.get(work.parent, 0) + 1
        seconds, score = 1.0 + rng.random(), rng.random()
        if at >= self.depth or not work.sampling.stop:
            return Reply(f"<answer>{rng.randrange(5)}</answer>", seconds, score=score)
        state = None if self.states is None else self.states(rng.randrange(10**6))
        return Reply(f"step {rng.random()}\n", seconds, score=score, state=state)


class Watched:
    """A strategy with its plans; `look` sees each with the view it was made for."""

    def __init__(self, strategy: MCTS, look: Callable[[View, Plan], None]) -> None:
        self.strategy, self.look = strategy, look
        self.needs = strategy.needs

    def plan(self, view: View) -> Plan:
        plan = self.strategy.plan(view)
        self.look(view, plan)
        return plan


def table_of(run: Simulation, *, rollouts: bool = False) -> Table:
    return Table.of(View(DEEP, run.graph, {}, 1, UNLIMITED), "fresh", rollouts=rollouts)


def states_of(table: Table) -> list[State]:
    found, stack = {table.root: None}, [table.root]
    while stack:
        for child in stack.pop().children:
            if child not in found:
                found[child] = None
                stack.append(child)
    return list(found)


def test_uct_is_the_published_formula() -> None:
    getcontext().prec = 40
    for q, parent, child, weight in [("0.5", 10, 3, "1"), ("0", 1, 0, "1"), ("0.25", 1000, 1, "1.4"), ("1", 7, 7, "0")]:
        bound = Decimal(q) + Decimal(weight) * (Decimal(parent).ln() / max(1, child)).sqrt()
        assert uct(float(q), parent, child, float(weight)) == pytest.approx(float(bound), abs=1e-12)
    assert uct(0.5, 10, 3) == pytest.approx(1.3760874, abs=1e-6)


def test_puct_is_the_published_formula() -> None:
    getcontext().prec = 40
    for q, prior, parent, child in [("0.5", "0.25", 16, 3), ("0", "1", 0, 0), ("0.9", "0.01", 100_000, 40)]:
        rate = ((Decimal(parent) + 19652 + 1) / 19652).ln() + Decimal("1.25")
        bound = Decimal(q) + Decimal(prior) * rate * Decimal(parent).sqrt() / (child + 1)
        assert puct(float(q), float(prior), parent, child) == pytest.approx(float(bound), abs=1e-12)
    assert puct(0.5, 0.25, 16, 3) == pytest.approx(0.5 + 0.25 * (math.log(19669 / 19652) + 1.25) * 4 / 4)


@pytest.mark.parametrize("policy", ["uct", "puct"])
def test_sixteen_in_flight_have_eight_parents_and_none_is_invalid(policy: str) -> None:
    full = []

    def look(view: View, plan: Plan) -> None:
        flying = [*view.in_flight.values(), *plan.start]
        assert len(flying) <= 16
        for work in plan.start:
            parent = view.graph.thread(work.parent) if work.parent else None
            assert not work.parent or (parent and parent.outcome is Outcome.ANSWERED and parent.answer is None)
        if len(flying) == 16:
            full.append(len({work.parent for work in flying}))

    run = simulate(Watched(MCTS(iterations=120, policy=policy), look), DEEP, Corridor(depth=4))
    assert run.answer is not None
    assert len(full) > 80
    assert min(full) >= 8
    assert len(run.ended) == len(run.started) == 120
    assert table_of(run).root.visits == 120, "every simulation counts, once"


def test_it_goes_deep() -> None:
    run = simulate(MCTS(iterations=100), DEEP, Corridor(depth=12))
    assert table_of(run).deepest >= 4


def test_a_search_that_never_expanded_fails() -> None:
    run = simulate(MCTS(), DEEP, lambda work: Reply("<answer>7</answer>", score=0.9))
    assert run.answer is None
    assert "never expanded" in (run.failure or "")


def test_a_verified_first_step_is_an_answer_all_the_same() -> None:
    verdict = Verdict(status=VerdictStatus.CORRECT, by="exact")
    run = simulate(MCTS(), TASK, lambda work: Reply("<answer>7</answer>", score=0.9, verdict=verdict))
    assert run.answer is not None
    assert run.answer.supported is True


def test_no_score_at_all_is_said_and_soon() -> None:
    blind = Numbers(score=None)
    run = simulate(MCTS(iterations=500, stop_when_verified=False), TASK, blind, slots=1)
    assert run.answer is None
    assert "prm gave no score" in (run.failure or "")
    assert len(run.started) < 20


@pytest.mark.parametrize("policy", ["uct", "puct"])
def test_the_values_lead(policy: str) -> None:
    """What follows one first step in three scores 0.9, everything else 0.1: most simulations go there."""
    good: dict[str, bool] = {}

    def reply(work: Work) -> Reply:
        seed = work.sampling.seed or 0
        good[work.key] = good[work.parent] if work.parent else seed % 3 == 0
        return Reply(f"step {seed}\n", 1 + seed % 7, score=0.9 if good[work.key] else 0.1)

    run = simulate(MCTS(iterations=100, policy=policy, noise=0.0, depth=30), DEEP, reply)
    first = [state for state in table_of(run).root.children if state.rep is not None]
    right = sum(state.visits for state in first if state.rep is not None and good[state.rep.key])
    assert {good[state.rep.key] for state in first if state.rep is not None} == {True, False}
    assert right > 0.6 * sum(state.visits for state in first)


def test_equal_states_share_visits_and_values() -> None:
    run = simulate(MCTS(iterations=120, expansions=4, stop_when_verified=False), TASK, Numbers())
    table = table_of(run)
    states = [state for state in states_of(table) if not state.complete]
    assert any(len(state.parents) > 1 for state in states), "nothing merged"
    keys = Counter(state.rep.info.state for state in states if state.rep is not None)
    assert max(keys.values()) == 1, "one state of the task is one node"
    for state in states:  # independently: every simulation through a state counts once in it
        entries = [e for e in table.entries.values() if state is e.state or state in e.path]
        assert state.visits == len(entries)
        assert state.total == sum(e.amount or 0 for e in entries)
        assert state.flight == state.running == 0


def test_the_path_of_a_selection_is_in_its_key_where_states_merged() -> None:
    run = simulate(MCTS(iterations=120, expansions=4, stop_when_verified=False), TASK, Numbers())
    table = table_of(run)
    via = [entry for entry in table.entries.values() if "@" in entry.node.key]
    assert via
    for entry in via:
        chain = [table.entries[node.key].state for node in entry.node.path()[:-1]]
        assert list(entry.path[1:]) != chain
        assert entry.path[-1] is chain[-1]
        for above, below in zip(entry.path, entry.path[1:], strict=False):
            assert below in above.children


def test_states_in_a_circle_end() -> None:
    """Ten states that lead to each other in every way: no path visits one twice, and the search ends."""
    run = simulate(MCTS(iterations=100, depth=5), DEEP, Corridor(depth=9, states=lambda n: str(n % 5)))
    assert len([key for key in run.started if key.startswith("mcts/")]) == 100
    for entry in table_of(run).entries.values():
        assert len(set(entry.path)) == len(entry.path)


def test_the_table_is_the_same_however_it_was_folded() -> None:
    run = simulate(MCTS(iterations=60, stop_when_verified=False), TASK, Numbers(), seed=3)
    stepwise, memo = ThoughtGraph(), {}
    for event in run.events:
        stepwise.apply(event)
        table = Table.of(View(TASK, stepwise, {}, 1, UNLIMITED, memo=memo), "t", rollouts=False)
    fresh = table_of(run)

    def figures(table: Table) -> dict[str, tuple[int, ...]]:
        named = {state: state.rep.key if state.rep else "" for state in states_of(table)}
        return {name: (s.visits, s.total, s.spawned, s.flight, len(s.children)) for s, name in named.items()}

    assert figures(table) == figures(fresh)
    assert (table.valued, table.blind, table.deepest) == (fresh.valued, fresh.blind, fresh.deepest)


def test_a_thread_that_is_opened_again_is_taken_back() -> None:
    run = simulate(MCTS(iterations=5, widening=0.0), DEEP, Corridor())
    table = table_of(run)
    entry = next(e for e in table.entries.values() if e.node.alive)
    before = table.root.visits, table.root.total
    table._put(entry.node.info._replace(outcome=None))
    assert (table.root.visits, table.root.flight) == (before[0] - 1, 1)
    table._put(entry.node.info._replace(outcome=Outcome.ANSWERED))
    assert (table.root.visits, table.root.total, table.root.flight) == (*before, 0)


def test_rollouts_give_the_values() -> None:
    strategy = MCTS(iterations=30, scorer="", values="rollouts", stop_when_verified=False)
    run = simulate(strategy, TASK, Numbers(score=None), seed=1)
    assert run.answer is not None
    rolled = [key for key in run.started if key.startswith("rollout/")]
    assert len(rolled) == len(set(rolled)) > 15
    table = table_of(run, rollouts=True)
    steps = [entry for entry in table.entries.values() if not entry.rollout]
    assert len(rolled) == sum(entry.node.alive for entry in steps), "each step that goes on is rolled out, once"
    assert table.root.visits == table.valued == len(run.started) - len(rolled)
    assert {entry.amount for entry in table.entries.values()} <= {0, UNIT, None}


def test_steps_that_did_not_suffice_are_rolled_out_once_from_the_best() -> None:
    run = simulate(MCTS(iterations=10), DEEP, Corridor(depth=20))
    assert [key for key in run.started if key.startswith("rollout/")] == run.started[-1:]
    assert run.answer is not None
    table = table_of(run)
    best = max((e for e in table.steps.values()), key=lambda e: e.amount or 0)
    assert run.started[-1] == f"rollout/{best.number}"


def test_values_without_a_scorer_are_refused() -> None:
    with pytest.raises(UserError, match="values=scores needs a scorer"):
        load_strategy("mcts", {"scorer": ""})
    assert MCTS(scorer="", values="rollouts").needs_verdicts
    assert not MCTS().needs_verdicts


def test_the_prior_sums_to_one_and_follows_the_scores() -> None:
    run = simulate(MCTS(iterations=40), DEEP, Corridor())
    table = table_of(run)
    share = priors(table.root)
    assert math.fsum(share.values()) == pytest.approx(1.0)
    scores = {child: child.rep.score for child in share if child.rep is not None}
    assert share == pytest.approx({c: s / sum(scores.values()) for c, s in scores.items()})
    assert set(priors(table.root, uniform=True).values()) == {1 / len(share)}


def test_the_noise_is_dirichlet_and_belongs_to_the_seed() -> None:
    table = table_of(simulate(MCTS(iterations=40), DEEP, Corridor()))
    share = priors(table.root, uniform=True)
    noisy = [Table.noisy(table_of_noise(), share, 0.25, 0.3, seed) for seed in (1, 1, 2)]
    assert noisy[0] == noisy[1] != noisy[2]
    for each in noisy:
        assert math.fsum(each.values()) == pytest.approx(1.0)
        assert min(each.values()) >= 0.75 / len(share) - 1e-9
    shares = []
    for seed in range(200):  # the mean of a Dirichlet is uniform; its variance, (k-1) / (k^2 (k alpha + 1))
        shares += Table.noisy(table_of_noise(), share, 1.0, 0.3, seed).values()
    k = len(share)
    spread = sum((p - 1 / k) ** 2 for p in shares) / len(shares)
    assert spread == pytest.approx((k - 1) / (k * k * (0.3 * k + 1)), rel=0.25)


def table_of_noise() -> Table:
    return Table(rollouts=False)


def test_the_most_visited_path_decides_where_asked_to() -> None:
    by_value, by_visits = (simulate(MCTS(iterations=60, final=f), DEEP, Corridor(depth=3)) for f in ("value", "visits"))
    assert by_value.answer is not None
    assert by_visits.answer is not None
    answers = table_of(by_value).answers.values()
    assert by_value.answer.text == max(answers, key=lambda e: e.amount or 0).node.info.answer
    table = table_of(by_visits)
    leading = {state for entry in table.answers.values() for state in entry.touched()}
    state, path = table.root, [table.root.visits]
    while not state.complete:
        state = max((child for child in state.children if child in leading), key=lambda child: child.visits)
        path.append(state.visits)
    chosen = [e for e in table.answers.values() if e.node.text == by_visits.answer.body]
    assert path in [[state.visits for state in entry.touched()] for entry in chosen]


def test_only_a_verified_answer_where_asked_to() -> None:
    run = simulate(MCTS(iterations=30, final="verified"), DEEP, Corridor(depth=3))
    assert run.answer is None
    assert "no verified answer" in (run.failure or "")


def test_it_never_looks_at_the_whole_graph() -> None:
    class Narrow:
        def __init__(self, graph: ThoughtGraph) -> None:
            self._graph = graph
            self.seq, self.changes, self.thread, self.state = graph.seq, graph.changes, graph.thread, graph.state

    class Blinkered(MCTS):
        def plan(self, view: View) -> Plan:
            return super().plan(
                View(view.task, Narrow(view.graph), view.in_flight, view.free, view.budget, memo=view.memo)
            )

    assert simulate(Blinkered(iterations=30), DEEP, Corridor(depth=3)).answer is not None


def test_a_step_that_hit_its_limit_counts_as_lost_and_a_fault_does_not() -> None:
    corridor = Corridor(depth=4)

    def reply(work: Work) -> Reply:
        number = int(work.key.split("/")[1].split("@")[0])
        if number % 5 == 1:
            return Reply("", outcome=Outcome.FAILED, detail="connection lost")
        if number % 5 == 2:
            return Reply("too long", outcome=Outcome.EXHAUSTED, finish=FinishReason.LENGTH)
        return corridor(work)

    run = simulate(MCTS(iterations=50), DEEP, reply)
    assert run.answer is not None
    table = table_of(run)
    assert table.root.visits == table.valued == 40


def test_a_spent_budget_gives_the_best_so_far_and_says_so() -> None:
    limited = []
    strategy = Watched(MCTS(iterations=100), lambda view, plan: limited.append(plan.limited))
    run = simulate(
        strategy, DEEP, Corridor(depth=3), budget=lambda run: UNLIMITED._replace(spendable=len(run.ended) < 40)
    )
    assert run.answer is not None
    assert limited[-1]
    assert not any(limited[:-1])


def test_the_scores_of_a_path_make_its_value_as_asked() -> None:
    run = simulate(MCTS(iterations=20, aggregate="min"), DEEP, Corridor(depth=9))
    view = View(DEEP, run.graph, {}, 1, UNLIMITED)
    for entry in Table.of(view, "fresh", rollouts=False, aggregate="min").steps.values():
        assert entry.amount == round(min(node.score for node in entry.node.path()) * UNIT)


@pytest.mark.anyio
@pytest.mark.parametrize("values", ["scores", "rollouts"])
async def test_through_the_engine_states_merge_and_answers_are_judged(values: str, tmp_path: Path) -> None:
    """The model multiplies what it is asked to multiply, in any order: 2 * 3 * 4, in steps."""

    def speak(request: ModelRequest) -> Completion:
        rng, left, text = random.Random(request.sampling.seed), [2, 3, 4], ""
        lines = [line for line in request.prefix.splitlines() if line]
        while True:
            if lines:
                line = lines.pop(0)
                left = [int(number) for number in line.partition("left ")[2].split()]
                continue
            if len(left) == 1:
                text += "<answer>2*3*4</answer>"
                break
            a, b = rng.sample(left, 2)
            left.remove(a)
            left.remove(b)
            left = sorted([*left, a * b])
            text += f"{a}*{b}={a * b} left {' '.join(map(str, left))}\n"
            if request.sampling.stop:
                break
        usage = Usage(prompt_tokens=9, completion_tokens=9, calls=1)
        message = Message(role="assistant", content=text)
        return Completion(message=message, finish=FinishReason.STOP, model="m", usage=usage)

    task = Task(question="2*3*4?", verifier="countdown", data={"numbers": [2, 3, 4], "target": 24})
    model = ScriptedModel(speak, capabilities=Capabilities(prefill=True))
    scorer = "reachable" if values == "scores" else ""
    params = {"iterations": 24, "values": values, "scorer": scorer, "stop_when_verified": False}
    async with Orchestrator(model, home=tmp_path, tools=[]) as orchestrator:
        run = await orchestrator.start(task, strategy="mcts", params=params, seed=2)
        result = await run.result()
    assert result.outcome is Outcome.ANSWERED, result
    assert result.answer is not None
    assert result.answer.supported is True
    assert result.answer.body.endswith("<answer>2*3*4</answer>")
    table = Table.of(View(task, run.graph, {}, 1, UNLIMITED), "fresh", rollouts=values == "rollouts")
    alive = {state for state in states_of(table) if state.rep is not None and not state.complete}
    assert {state.rep.info.state for state in alive if state.rep} <= {"4 6", "3 8", "2 12", "24"}
    assert table.root.visits == table.valued
    assert all(entry.amount == UNIT for entry in table.entries.values() if entry.amount is not None)
