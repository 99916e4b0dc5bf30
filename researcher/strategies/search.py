"""What Monte Carlo tree search knows: states with their visits and values, as a fold of the graph.

Threads that came to the same `ThreadInfo.state` stand in one state, and so do threads that wrote the same step after
the same state. States share visits and values, so the tree is a graph (a transposition table). A simulation backs up
along the path by which it was selected, each state once; where states had merged on that path it stands in the
thread's key, so that the fold needs no history. Edges that lead no deeper are kept but never followed: no cycle.

Sums are of integers: the order in which threads end, or are read back, changes no bit of a value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterator
from typing import Literal

from researcher.strategies.base import seed_of
from researcher.strategies.revision import is_right, value
from researcher.strategies.steps import Aggregate, Node
from researcher.types import Outcome
from researcher.views import ThreadInfo, View

UNIT = 1 << 40
"""A value of 1 in the integer sums."""
STEP, ROLLOUT, VIA = "mcts/", "rollout/", "@"


def uct(value: float, parent_visits: int, visits: int, weight: float = 1.0) -> float:
    """The upper confidence bound Q + w sqrt(ln N / max(1, n)): Kocsis and Szepesvari 2006."""
    return value + weight * math.sqrt(math.log(max(1, parent_visits)) / max(1, visits))


def puct(value: float, prior: float, parent_visits: int, visits: int) -> float:
    """AlphaZero's bound with a prior P: Q + P (ln((N + 19652 + 1) / 19652) + 1.25) sqrt(N) / (n + 1)."""
    rate = math.log((parent_visits + 19652 + 1) / 19652) + 1.25
    return value + prior * rate * math.sqrt(parent_visits) / (visits + 1)


class State:
    """A state of the task; the root is the one without a step. Complete ones are answers, or ended without one."""

    __slots__ = ("children", "closed", "complete", "flight", "parents", "rep", "running", "spawned", "total", "visits")

    def __init__(self) -> None:
        self.rep: Node | None = None
        """The step to continue: of those that stand here the one with the fewest before it."""
        self.complete = False
        self.visits = 0
        self.total = 0
        self.flight = 0
        """Simulations under way through it: each counts as a visit of value 0 (a virtual loss)."""
        self.spawned = 0
        """Steps sampled from here, those under way among them; not those that a fault broke."""
        self.running = 0
        self.children: dict[State, None] = {}
        self.parents: dict[State, None] = {}
        self.closed = 0
        """How many widenings leave nothing to expand from here on down; forgotten when anything below changes."""

    @property
    def depth(self) -> int:
        """How many steps lead here, by the shortest way known."""
        return 0 if self.rep is None else self.rep.depth

    @property
    def order(self) -> int:
        """When the step to continue was submitted."""
        return -1 if self.rep is None else self.rep.info.order

    @property
    def tried(self) -> int:
        """Visits, with those under way."""
        return self.visits + self.flight

    @property
    def value(self) -> float:
        """The mean value of its simulations; before the first, its step's score (llm-reasoners' fast reward)."""
        if self.tried:
            return self.total / (UNIT * self.tried)
        return 0.0 if self.rep is None else self.rep.score


def priors(state: State, *, uniform: bool = False) -> dict[State, float]:
    """The prior of each child, which sums to 1: in proportion to their steps' scores, or uniform."""
    scores = {child: 1.0 if uniform or child.rep is None else child.rep.score for child in state.children}
    total = math.fsum(scores.values())  # exact, so that the order of the children does not matter
    return {child: score / total if total else 1 / len(scores) for child, score in scores.items()}


class Entry:
    """A thread of the search: `path` leads from the root to the state it started from; `state` is where it stands."""

    __slots__ = ("amount", "mode", "node", "path", "state")

    def __init__(self, node: Node, path: tuple[State, ...]) -> None:
        self.node = node
        self.path = path
        self.state: State | None = None
        self.amount: int | None = None
        """The value it backed up, in units; None: none."""
        self.mode: Literal["new", "running", "ended", "broken"] = "new"

    @property
    def rollout(self) -> bool:
        """Whether it is a roll-out, which is no state of its own."""
        return self.node.key.startswith(ROLLOUT)

    @property
    def number(self) -> int:
        """Which step of the search it is, or rolls out."""
        return int(self.node.key.partition("/")[2].partition(VIA)[0])

    def touched(self) -> Iterator[State]:
        """The states it backs up to, each once."""
        yield from self.path
        if self.state is not None and self.state not in self.path:
            yield self.state


class Table:
    """The states of one search. `seq`: the event up to which it is right; `rollouts`: values come from these."""

    def __init__(self, *, rollouts: bool, aggregate: Aggregate = "last") -> None:
        self.rollouts = rollouts
        self.aggregate: Aggregate = aggregate
        self.seq = 0
        self.root = State()
        self.entries: dict[str, Entry] = {}
        self.steps: dict[int, Entry] = {}
        self.waiting: dict[int, Entry] = {}
        """Steps that wait for their roll-out."""
        self.answers: dict[str, Entry] = {}
        self.verified: dict[str, Entry] = {}
        """Those of the answers that the task's verifier confirms."""
        self.valued = self.blind = self.scored = 0
        """Simulations that ended with a value, and without one; steps that have a score."""
        self.deepest = self.rolled = 0
        """The most steps on a path, and how many were rolled out."""
        self._gammas: dict[str, float] = {}
        self._states: dict[Hashable, State] = {}

    @classmethod
    def of(cls, view: View, name: str, *, rollouts: bool, aggregate: Aggregate = "last") -> Table:
        """The table of the view's graph, kept in its memo under `name`."""
        table = view.memo.get(name)
        if not isinstance(table, cls):
            table = view.memo[name] = cls(rollouts=rollouts, aggregate=aggregate)
        for info in view.graph.changes(table.seq):
            if info.key.startswith((STEP, ROLLOUT)):
                table._put(info)
        table.seq = view.graph.seq
        return table

    def key(self, number: int, path: tuple[State, ...]) -> str:
        """The key of the step with this number that is selected along `path`."""
        rep = path[-1].rep
        if rep is None or path == self._after(self.entries[rep.key]):
            return f"{STEP}{number}"
        via = [self.entries[state.rep.key].number for state in path if state.rep is not None]
        return f"{STEP}{number}{VIA}{'.'.join(map(str, via))}"

    def hold(self, path: tuple[State, ...], sign: int = 1, *, step: bool = True) -> None:
        """Count a simulation along this path as under way; `sign` -1 takes it back."""
        for state in path:
            state.flight += sign
        if step:
            path[-1].running += sign
            path[-1].spawned += sign

    def select(
        self,
        full: Callable[[State, int], bool],
        bound: Callable[[State], Callable[[State], float]],
        *,
        cap: int,
        blocked: set[State],
        wider: int = 0,
    ) -> tuple[State, ...] | None:
        """The path to the state to expand next: down the greatest bounds, and back where nothing can be expanded.

        `full`: whether a state has its children, when widened so often; `cap`: how many of them may be under way;
        `blocked`: where nothing can be expanded now, kept for the next selection of the same plan.
        """
        path = [self.root]
        while path:
            state = path[-1]
            spent = full(state, wider)
            if not spent and state.running < cap:
                return tuple(path)
            below = [child for child in state.children if child.depth > state.depth and not child.complete]
            ways = [child for child in below if child.closed <= wider and child not in blocked]
            if ways:
                of = bound(state)
                path.append(max(ways, key=lambda child: (of(child), -child.order)))
                continue
            blocked.add(state)
            if spent and not state.running and all(child.closed > wider for child in below):
                state.closed = wider + 1
            path.pop()
        return None

    def noisy(self, share: dict[State, float], weight: float, alpha: float, seed: int) -> dict[State, float]:
        """A prior with this weight of Dirichlet noise: normalised gammas, each a state's own."""
        gammas = {state: self._gamma(state, alpha, seed) for state in share}
        whole = math.fsum(gammas.values())
        return {s: (1 - weight) * p + weight * gammas[s] / whole for s, p in share.items()}

    def _gamma(self, state: State, alpha: float, seed: int) -> float:
        name = "" if state.rep is None else state.rep.key
        if name not in self._gammas:
            self._gammas[name] = random.Random(seed_of(seed, f"noise/{name}")).gammavariate(alpha, 1.0) + 1e-12
        return self._gammas[name]

    def _put(self, info: ThreadInfo) -> None:
        entry = self.entries.get(info.key)
        if entry is None:
            entry = self._open(info)
        else:
            self._withdraw(entry)
        entry.node.info = info
        if info.outcome is None:
            entry.mode = "running"
            self.hold(entry.path, step=not entry.rollout)
        elif info.outcome in (Outcome.FAILED, Outcome.CANCELLED):
            entry.mode = "broken"
        else:
            entry.mode = "ended"
            self._end(entry, info)
        for state in entry.touched():
            self._reopen(state)

    def _open(self, info: ThreadInfo) -> Entry:
        parent = self.entries.get(info.work.parent)
        names = info.key.partition(VIA)[2]
        if names:
            passed = [self.steps[int(number)].state for number in names.split(".")]
            path = (self.root, *[state for state in passed if state is not None])
        else:
            path = (self.root,) if parent is None else self._after(parent)
        entry = self.entries[info.key] = Entry(Node(info, None if parent is None else parent.node), path)
        if entry.rollout:
            self.rolled += 1
            self.waiting.pop(entry.number, None)
        else:
            self.steps[entry.number] = entry
            self.deepest = max(self.deepest, entry.node.depth)
        return entry

    def _after(self, entry: Entry) -> tuple[State, ...]:
        """The path that goes on from where the entry's thread stands."""
        return tuple(entry.touched())

    def _withdraw(self, entry: Entry) -> None:
        """Take back what the thread counted for: it is under way no more, or again."""
        if entry.mode == "running":
            self.hold(entry.path, -1, step=not entry.rollout)
        elif entry.mode == "ended":
            if not entry.rollout:
                entry.path[-1].spawned -= 1
            self._back_up(entry, -1)
            self.answers.pop(entry.node.key, None)
            self.verified.pop(entry.node.key, None)

    def _end(self, entry: Entry, info: ThreadInfo) -> None:
        if not entry.rollout:
            entry.path[-1].spawned += 1
            if info.outcome is Outcome.ANSWERED:
                self._stand(entry)
        if info.answer is not None:
            self.answers[info.key] = entry
            if is_right(info):
                self.verified[info.key] = entry
        worth = self._value(entry, info)
        entry.amount = None if worth is None else round(worth * UNIT)
        self._back_up(entry, 1)
        if entry.node.alive and info.score is not None:
            self.scored += 1
        if worth is None and not (self.rollouts and entry.node.alive):
            self.blind += 1

    def _value(self, entry: Entry, info: ThreadInfo) -> float | None:
        """The value of a simulation: of an answer by its verdict, else its score; 0 for one that came to nothing."""
        scored = None if info.score is None else entry.node.value(self.aggregate)
        if entry.node.alive:
            return None if self.rollouts else scored
        if info.answer is None:
            return 0.0
        verdict = value(info, "")
        return scored if verdict is None else verdict

    def _back_up(self, entry: Entry, sign: int) -> None:
        if entry.amount is None:
            return
        for state in entry.touched():
            state.visits += sign
            state.total += sign * entry.amount
        self.valued += sign

    def _stand(self, entry: Entry) -> None:
        """Put the thread into its state, a new one if it is the first there."""
        info, parent = entry.node.info, entry.path[-1]
        key: Hashable
        if entry.node.complete:
            key = ("end", info.canonical or entry.node.key)
        else:
            key = info.state if info.state is not None else (parent, info.final.strip())
        state = entry.state = self._states.setdefault(key, State())
        state.complete = entry.node.complete
        if state.rep is None or (entry.node.depth, info.order) < (state.depth, state.order):
            state.rep = entry.node
        parent.children[state] = None
        state.parents[parent] = None
        if self.rollouts and entry.node.alive:
            self.waiting[entry.number] = entry

    def _reopen(self, state: State) -> None:
        stack = [state]
        while stack:
            state = stack.pop()
            if state.closed:
                state.closed = 0
                stack.extend(state.parents)
