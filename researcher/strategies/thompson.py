"""Thompson sampling over a tree of answers: what each arm has seen, and the walk down by draws from posteriors.

Inoue et al. 2025, "Wider or Deeper?", with node aggregation as in treequest: the arm "new" has seen the scores of the
node's own children, the arm "down" those of everything deeper, a child's arm its own score and all below it. Answers
under way count as scores of 0 until they end, so that those planned together spread.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable
from itertools import chain
from random import Random
from typing import Literal

from researcher.strategies.revision import is_right, value
from researcher.strategies.search import UNIT
from researcher.types import Outcome
from researcher.views import ThreadInfo, View

Prior = Literal["gaussian", "beta"]


class Arm:
    """The scores an arm has seen, as sums of integers: no order of them changes a bit."""

    __slots__ = ("_beta", "_student", "n", "square", "total")

    def __init__(self) -> None:
        self.n = self.total = self.square = 0
        # The posteriors in the form that draws take, until another score comes.
        self._student: tuple[float, float] | None = None
        self._beta: tuple[float, float, float] | None = None

    def see(self, amount: int, sign: int = 1) -> None:
        """Count in a score (in units of 1/UNIT), or out again."""
        self.n += sign
        self.total += sign * amount
        self.square += sign * amount * amount
        self._student = self._beta = None

    def draw(self, prior: Prior, rng: Random) -> float:
        """A mean score drawn from the posterior."""
        if prior == "beta":
            return self._draw_beta(rng)
        m, scale = self.student()
        nu = self.n + 1  # Student's t: Bailey 1994, the polar method
        radius = math.sqrt(nu * (math.pow(1.0 - rng.random(), -2.0 / nu) - 1.0))
        return m + scale * radius * math.cos(math.tau * rng.random())

    def student(self) -> tuple[float, float]:
        """Mean and scale of the mean score's posterior, a Student's t with n + 1 degrees of freedom."""
        if self._student is None:
            m, kappa, _, tau2 = self.gaussian()
            self._student = m, math.sqrt(tau2 / kappa)
        return self._student

    def _draw_beta(self, rng: Random) -> float:
        if self._beta is None:
            a, b = self.beta()
            self._beta = 1.0 / a, 1.0 / b, a + b
        x, y, size = self._beta
        if size > 3.0:
            return rng.betavariate(1.0 / x, 1.0 / y)
        while True:  # Joehnk 1964; quick for an arm that has seen little, and most have
            left, right = math.pow(rng.random(), x), math.pow(rng.random(), y)
            if 0.0 < left + right <= 1.0:
                return left / (left + right)

    def beta(self, a: float = 0.5, b: float = 0.5) -> tuple[float, float]:
        """The posterior Beta(a, b): a score r adds r to a and 1 - r to b."""
        return a + self.total / UNIT, b + (self.n * UNIT - self.total) / UNIT

    def gaussian(
        self, m: float = 0.0, kappa: float = 1.0, nu: float = 1.0, tau2: float = 0.1
    ) -> tuple[float, float, float, float]:
        """The posterior of a normal-inverse-chi-squared prior: Murphy 2023, section 3.4.3.3."""
        if not self.n:
            return m, kappa, nu, tau2
        n, mean = self.n, self.total / (UNIT * self.n)
        squares = (n * self.square - self.total**2) / (n * UNIT**2)  # around the mean
        scale = nu * tau2 + squares + n * kappa / (kappa + n) * (m - mean) ** 2
        return (kappa * m + n * mean) / (kappa + n), kappa + n, nu + n, scale / (nu + n)


class Branch:
    """An answer; the root is the question. `children` are those with a score, by how much each has seen, in order."""

    __slots__ = ("amount", "arm", "children", "down", "info", "listed", "new", "parent")

    def __init__(self, parent: Branch | None, info: ThreadInfo | None = None) -> None:
        self.parent = parent
        self.info = info
        self.new, self.down, self.arm = Arm(), Arm(), Arm()
        self.children: dict[int, list[Branch]] = {}
        self.listed = False
        self.amount: int | None = None
        """What its arms were told of it: its score, 0 while it runs, None where it has none."""

    @property
    def order(self) -> int:
        """When it was submitted."""
        return -1 if self.info is None else self.info.order

    def tell(self, amount: int | None) -> None:
        """Let all arms above know what this answer scored, instead of what they knew."""
        for seen, sign in ((self.amount, -1), (amount, 1)):
            node: Branch = self
            while seen is not None and node.parent is not None:
                node._see(seen, sign)
                (node.parent.new if node is self else node.parent.down).see(seen, sign)
                node = node.parent
        self.amount = amount

    def enlist(self) -> None:
        """Become a child that its parent can go down to."""
        self.listed = True
        self._see(0, 0)

    def _see(self, amount: int, sign: int) -> None:
        """Tell its own arm, and stand among the siblings that have seen as much."""
        before = self.arm.n
        self.arm.see(amount, sign)
        if not self.listed or self.parent is None:
            return
        groups = self.parent.children
        if sign:
            groups[before].remove(self)
            if not groups[before]:
                del groups[before]
        insort(groups.setdefault(self.arm.n, []), self, key=lambda child: child.order)

    def descend(self, prior: Prior, rng: Random) -> Branch:
        """The node to make a new answer from."""
        node = self
        while node.children and node.down.draw(prior, rng) > node.new.draw(prior, rng):
            groups = [node.children[n] for n in sorted(node.children)]
            node = leader(groups, rng) if prior == "gaussian" else _leader_of_all(groups, prior, rng)
        return node


def _leader_of_all(groups: Iterable[list[Branch]], prior: Prior, rng: Random) -> Branch:
    return max(chain.from_iterable(groups), key=lambda child: child.arm.draw(prior, rng))


def leader(groups: Iterable[list[Branch]], rng: Random) -> Branch:
    """The child with the greatest draw, without drawing for all of them; of each group all have seen as much.

    A draw is m + s R cos(angle) with R = sqrt(nu (u^(-2/nu) - 1)). The uniforms u of a group are drawn in ascending
    order, each for a random one of its arms: none to come can exceed what the greatest m and s would make of the last.
    """
    best, chosen = -math.inf, None
    for group in groups:
        n, log_rest = group[0].arm.n, 0.0
        top, spread = n / (n + 1), math.sqrt(0.1 + (n + 1) / 4) / (n + 1)  # of scores in [0, 1]
        moved: dict[int, int] = {}
        for drawn in range(len(group)):
            log_rest += math.log(1.0 - rng.random()) / (len(group) - drawn)
            radius = math.sqrt((n + 1) * (math.pow(max(-math.expm1(log_rest), 1e-300), -2.0 / (n + 1)) - 1.0))
            if best >= top + spread * radius:
                break
            pick = rng.randrange(drawn, len(group))  # the next of a shuffle that keeps only what moved
            child = group[moved.get(pick, pick)]
            moved[pick] = moved.get(drawn, drawn)
            m, scale = child.arm.student()
            draw = m + scale * radius * math.cos(math.tau * rng.random())
            if draw > best:
                best, chosen = draw, child
    assert chosen is not None
    return chosen


class Forest:
    """All answers of one search, as a fold of the graph. `seq`: the event up to which it is right."""

    def __init__(self, scorer: str) -> None:
        self.scorer = scorer
        self.seq = 0
        self.root = Branch(None)
        self.branches: dict[str, Branch] = {}
        self.verified: dict[str, ThreadInfo] = {}
        self.scored = self.blind = 0

    @classmethod
    def of(cls, view: View, name: str, scorer: str) -> Forest:
        """The answers in the view's graph, kept in its memo under `name`."""
        forest = view.memo.get(name)
        if not isinstance(forest, cls):
            forest = view.memo[name] = cls(scorer)
        forest.update(info for info in view.graph.changes(forest.seq) if info.key.startswith(f"{name}/"))
        forest.seq = view.graph.seq
        return forest

    def update(self, changes: Iterable[ThreadInfo]) -> None:
        """Take in threads as they are now."""
        for info in changes:
            branch = self.branches.get(info.key)
            if branch is None:
                parent = self.branches[info.work.uses[0]] if info.work.uses else self.root
                branch = self.branches[info.key] = Branch(parent)
            branch.info = info
            if info.outcome is None:
                branch.tell(0)
            elif info.outcome in (Outcome.FAILED, Outcome.CANCELLED):
                branch.tell(None)
            else:
                self._end(branch, info)

    def _end(self, branch: Branch, info: ThreadInfo) -> None:
        score = 0.0 if info.answer is None else value(info, self.scorer)
        branch.tell(None if score is None else round(score * UNIT))
        if score is None:
            self.blind += 1
        elif info.answer is not None:
            self.scored += 1
            branch.enlist()
            if is_right(info):
                self.verified[info.key] = info
