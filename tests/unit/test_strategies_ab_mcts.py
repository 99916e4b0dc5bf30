"""AB-MCTS-A: golden values of its posteriors, what each arm has seen, and what work in flight does to them."""

import math
import random
import statistics
from fractions import Fraction

import pytest

from researcher.graph import ThoughtGraph
from researcher.strategies.ab_mcts import ABMCTS
from researcher.strategies.search import UNIT
from researcher.strategies.thompson import Arm, Branch, Forest, leader
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import View

TASK = Task(question="What is it?")
QUARTERS = [0.25, 1.0, 0.5, 0.0, 0.75, 0.75]
"""Scores that the integer sums hold exactly."""


def seen(scores: list[float]) -> Arm:
    arm = Arm()
    for score in scores:
        arm.see(round(score * UNIT))
    return arm


def scored(work: Work) -> Reply:
    rng = random.Random(work.sampling.seed)
    return Reply(f"<answer>{rng.randrange(9)}</answer>", 1 + rng.random(), score=rng.random())


def forest_of(run: Simulation, scorer: str = "orm") -> Forest:
    return Forest.of(View(TASK, run.graph, {}, 1, UNLIMITED), "ab_mcts", scorer)


def test_the_beta_posterior_adds_each_score_and_its_rest() -> None:
    a = b = Fraction(1, 2)
    for score in QUARTERS:
        a, b = a + Fraction(score), b + 1 - Fraction(score)
    assert seen(QUARTERS).beta() == (float(a), float(b)) == (3.75, 3.25)
    assert Arm().beta() == (0.5, 0.5)


def test_the_gaussian_posterior_is_murphys() -> None:
    m, kappa, nu, tau2 = 0.0, 1.0, 1.0, 0.1
    for score in QUARTERS:  # independently: one observation after the other, by the conjugate update for n = 1
        tau2 = (nu * tau2 + kappa / (kappa + 1) * (score - m) ** 2) / (nu + 1)
        m = (kappa * m + score) / (kappa + 1)
        kappa, nu = kappa + 1, nu + 1
    assert seen(QUARTERS).gaussian() == pytest.approx((m, kappa, nu, tau2), abs=1e-12)
    assert seen(QUARTERS).gaussian()[:3] == pytest.approx((3.25 / 7, 7, 7))
    assert Arm().gaussian() == (0.0, 1.0, 1.0, 0.1)


def test_what_was_seen_can_be_taken_back() -> None:
    arm = seen(QUARTERS)
    arm.see(round(0.3 * UNIT))
    arm.see(round(0.3 * UNIT), -1)
    assert arm.gaussian() == seen(sorted(QUARTERS)).gaussian()


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    rng, arm = random.Random(3), seen(QUARTERS)
    beta = [arm.draw("beta", rng) for _ in range(3000)]
    a, b = arm.beta()
    assert statistics.fmean(beta) == pytest.approx(a / (a + b), abs=0.02)
    assert statistics.pvariance(beta) == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=0.15)
    gaussian = [arm.draw("gaussian", rng) for _ in range(3000)]
    m, kappa, nu, tau2 = arm.gaussian()  # the mean is Student's t with nu degrees of freedom, scale sqrt(tau2 / kappa)
    assert statistics.fmean(gaussian) == pytest.approx(m, abs=0.02)
    assert statistics.pvariance(gaussian) == pytest.approx(tau2 / kappa * nu / (nu - 2), rel=0.2)


def test_draws_of_an_arm_that_has_seen_one_score_too() -> None:
    rng, arm = random.Random(5), seen([0.75])
    m, kappa, nu, tau2 = arm.gaussian()
    assert nu == 2  # of Student's t with two degrees of freedom the distribution is known: 1/2 + x / (2 sqrt(2 + x^2))
    drawn = [(arm.draw("gaussian", rng) - m) / math.sqrt(tau2 / kappa) for _ in range(4000)]
    for x in (-3.0, -1.0, 0.0, 0.5, 2.0):
        below = sum(each <= x for each in drawn) / len(drawn)
        assert below == pytest.approx(0.5 + x / (2 * math.sqrt(2 + x * x)), abs=0.03)
    a, b = arm.beta()
    beta = [arm.draw("beta", rng) for _ in range(4000)]
    assert statistics.fmean(beta) == pytest.approx(a / (a + b), abs=0.02)
    assert statistics.pvariance(beta) == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=0.1)


def test_the_leader_is_drawn_as_if_every_arm_were() -> None:
    root, rng = Branch(None), random.Random(11)
    for scores in ([0.9], [0.2], [0.5], [0.8, 0.7], [0.1, 0.9, 0.5], [0.6] * 12, [0.3] * 30):
        child = Branch(root)
        child.enlist()
        for score in scores:
            child._see(round(score * UNIT), 1)
    groups = [root.children[n] for n in sorted(root.children)]
    assert [len(group) for group in groups] == [3, 1, 1, 1, 1]
    every = [child for group in groups for child in group]
    lazy = [every.index(leader(groups, rng)) for _ in range(4000)]
    plain = [max(range(7), key=lambda i: every[i].arm.draw("gaussian", rng)) for _ in range(4000)]
    for i in range(7):
        assert lazy.count(i) / 4000 == pytest.approx(plain.count(i) / 4000, abs=0.03)
    assert lazy.count(0) > lazy.count(1) > 0


def test_each_arm_has_seen_what_it_is_for() -> None:
    run = simulate(ABMCTS(n=80, scorer="orm"), TASK, scored, slots=2)
    forest = forest_of(run)
    threads = {info.key: info for info in run.graph.threads()}

    def ancestors(key: str) -> list[str]:
        uses = threads[key].work.uses
        return [*uses, *ancestors(uses[0])] if uses else []

    assert max(len(ancestors(key)) for key in threads) >= 2, "it never went down"
    for key, branch in [("", forest.root), *forest.branches.items()]:
        below = [other for other in threads if other != key and (not key or key in ancestors(other))]
        own = [other for other in below if (threads[other].work.uses or ("",))[0] == key]
        deeper = [other for other in below if other not in own]
        for arm, keys in ((branch.new, own), (branch.down, deeper), (branch.arm, [key, *below] if key else [])):
            amounts = [round((threads[other].score or 0) * UNIT) for other in keys]
            assert (arm.n, arm.total, arm.square) == (len(amounts), sum(amounts), sum(a * a for a in amounts))


def test_work_in_flight_counts_as_lost_until_it_ends() -> None:
    parent = Branch(None)
    child = Branch(parent)
    child.tell(0)
    assert (parent.new.n, parent.new.total) == (1, 0)
    child.tell(UNIT)
    assert (parent.new.n, parent.new.total) == (1, UNIT)
    child.tell(None)
    assert (parent.new.n, parent.new.total, parent.new.square) == (0, 0, 0)


@pytest.mark.parametrize("prior", ["gaussian", "beta"])
def test_it_goes_deeper_where_revising_helps_and_wider_where_it_does_not(prior: str) -> None:
    depth: dict[str, int] = {}

    def world(gain: float):
        def reply(work: Work) -> Reply:
            depth[work.key] = depth[work.uses[0]] + 1 if work.uses else 0
            score = min(1.0, max(0.0, 0.4 + gain * depth[work.key]))
            return Reply(f"<answer>{work.key}</answer>", 1 + (work.sampling.seed or 0) % 7, score=score)

        return reply

    def mean_depth(gain: float) -> float:
        run = simulate(ABMCTS(n=60, scorer="orm", prior=prior), TASK, world(gain), slots=4)
        return statistics.fmean(depth[key] for key in run.started)

    assert mean_depth(0.15) > 1.5 * mean_depth(-0.2)


def test_the_best_score_wins_and_the_first_of_equals() -> None:
    run = simulate(ABMCTS(n=20, scorer="orm"), TASK, scored)
    assert run.answer is not None
    assert run.answer.text == max(run.graph.threads(), key=lambda info: info.score or 0).answer
    run = simulate(ABMCTS(n=9, scorer="orm"), TASK, lambda work: Reply(f"<answer>{work.key}</answer>", score=0.5))
    assert run.answer is not None
    assert run.answer.text == "ab_mcts/0"


def test_a_revision_reads_its_parent() -> None:
    run = simulate(ABMCTS(n=30, scorer="orm"), TASK, scored, slots=3)
    revised = [info.work for info in run.graph.threads() if info.work.uses]
    assert revised
    for work in revised:
        parent = run.graph.thread(work.uses[0])
        assert parent is not None
        assert parent.outcome is Outcome.ANSWERED
        assert parent.final in work.messages[-1].content
        assert work.scorer == "orm"


def test_a_verified_answer_ends_it() -> None:
    def reply(work: Work) -> Reply:
        right = work.key.endswith("/5")
        status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
        return Reply(f"<answer>{work.key}</answer>", verdict=Verdict(status=status, by="exact"))

    run = simulate(ABMCTS(n=50), Task(question="q", verifier="exact"), reply, slots=2)
    assert run.answer is not None
    assert run.answer.text == "ab_mcts/5"
    assert run.answer.supported is True
    assert len(run.started) < 9
    assert ABMCTS().needs_verdicts
    assert not ABMCTS(scorer="judge").needs_verdicts


def test_no_score_at_all_is_said_and_soon() -> None:
    run = simulate(ABMCTS(n=500, scorer="judge"), TASK, lambda work: Reply("<answer>7</answer>"), slots=2)
    assert run.answer is None
    assert "judge gave no score" in (run.failure or "")
    assert len(run.started) < 15


def test_answers_that_never_came_are_no_nodes_but_count() -> None:
    def reply(work: Work) -> Reply:
        number = int(work.key.partition("/")[2])
        if number % 3 == 1:
            return Reply("no idea", outcome=Outcome.EXHAUSTED)
        return Reply("", outcome=Outcome.FAILED, detail="gone") if number % 3 == 2 else scored(work)

    forest = forest_of(run := simulate(ABMCTS(n=30, scorer="orm"), TASK, reply))
    assert run.answer is not None
    assert all(child.info and child.info.answer for group in forest.root.children.values() for child in group)
    assert forest.root.new.n + forest.root.down.n == 20


def test_the_same_arms_however_they_were_folded() -> None:
    run = simulate(ABMCTS(n=40, scorer="orm"), TASK, scored, seed=2)
    stepwise, memo = ThoughtGraph(), {}
    for event in run.events:
        stepwise.apply(event)
        forest = Forest.of(View(TASK, stepwise, {}, 1, UNLIMITED, memo=memo), "ab_mcts", "orm")
    fresh = forest_of(run)
    for key, branch in fresh.branches.items():
        other = forest.branches[key]
        assert branch.arm.gaussian() == other.arm.gaussian()
        assert {n: [child.order for child in group] for n, group in branch.children.items()} == {
            n: [child.order for child in group] for n, group in other.children.items()
        }
    assert math.isfinite(forest.root.new.gaussian()[3])
