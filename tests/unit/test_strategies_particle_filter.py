"""Particle filtering: its formulas against values computed here, and draws that follow the weights and the seed."""

import math
import statistics
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest

from researcher.strategies.particle_filter import (
    ParticleFilter,
    annealing_temperature,
    effective_size,
    logit,
    softmax,
)
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Task, Work
from researcher.views import BudgetLeft

TASK = Task(question="Make 24 of 4 9 10 13.")


def test_the_logit() -> None:
    assert logit(0.5) == 0.0
    assert logit(0.9) == pytest.approx(math.log(9))
    assert logit(0.2) == pytest.approx(-math.log(4))
    assert logit(1.0) == pytest.approx(-logit(0.0)) == pytest.approx(16.118, abs=1e-3)  # clipped at 1e-7


def test_weights_are_the_odds() -> None:
    """exp(logit(p)) = p / (1 - p): .9 .8 .5 .2 are 9 : 4 : 1 : 1/4."""
    odds = [Fraction(9), Fraction(4), Fraction(1), Fraction(1, 4)]
    weights = softmax([logit(p) for p in (0.9, 0.8, 0.5, 0.2)])
    assert weights == pytest.approx([float(each / sum(odds)) for each in odds])
    flat = softmax([logit(p) for p in (0.9, 0.8)], temperature=2.0)
    assert flat == pytest.approx([3 / 5, 2 / 5])  # the square roots of 9 and 4
    assert softmax([-5_000.0, -5_000.0]) == [0.5, 0.5]


def test_the_effective_sample_size() -> None:
    assert effective_size([0.25] * 4) == pytest.approx(4)
    assert effective_size([0.5, 0.5, 0.0, 0.0]) == pytest.approx(2)
    assert effective_size([1.0, 0.0, 0.0]) == pytest.approx(1)
    assert effective_size([0.7, 0.2, 0.1]) == pytest.approx(1 / 0.54)


def test_the_temperature_of_the_entropic_variant() -> None:
    assert annealing_temperature(0.25, 0.1) == pytest.approx(3.6)
    assert annealing_temperature(0.4, 0.4) == pytest.approx(1.5)
    assert annealing_temperature(0.49, 0.49) == pytest.approx(1.0408, abs=1e-4)
    assert annealing_temperature(1.0, 0.3) == 1.0


def scored(scores: dict[str, float], after: float = 0.5) -> Callable[[Work], Reply]:
    """Steps with these scores by path; other paths end with the number of their first step as the answer."""

    def reply(work: Work) -> Reply:
        path = work.key.removeprefix("particle_filter/")
        if path in scores:
            return Reply(f"{path}\n", score=scores[path])
        return Reply(f"<answer>{path.split('.')[0]}</answer>", score=after)

    return reply


def drawn(scores: list[float], runs: int = 40, **params: object) -> list[float]:
    """How often each of the first steps is continued, as a share, over seeds."""
    paths = {str(i): score for i, score in enumerate(scores)}
    count: Counter[str] = Counter()
    for seed in range(runs):
        search = ParticleFilter.model_validate({"n": len(scores), **params})
        run = simulate(search, TASK, scored(paths), seed=seed)
        parents = [
            info.work.parent.removeprefix("particle_filter/") for info in run.graph.threads() if info.work.parent
        ]
        assert len(parents) == len(scores)
        count.update(parents)
    return [count[str(i)] / count.total() for i in range(len(scores))]


@pytest.mark.slow
def test_particles_are_drawn_by_their_odds() -> None:
    shares = drawn([0.9, 0.8, 0.5, 0.2] * 4, runs=30)
    sums = [sum(shares[i::4]) for i in range(4)]
    expected = [float(Fraction(odds) / Fraction("14.25")) for odds in ("9", "4", "1", "0.25")]
    for share, probability in zip(sums, expected, strict=True):
        assert share == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 480))


@pytest.mark.slow
def test_the_entropic_variant_spreads_the_draw() -> None:
    """One of 8 holds nearly all: ESS / n = 1/8, so at step 1 of 40 T = 8 * 39/40 = 7.8 and its weight is that of a
    particle with odds 999^(1/7.8)."""
    scores = [0.999] + [0.5] * 7
    plain, flat = drawn(scores), drawn(scores, entropic=True)
    weights = softmax([logit(score) for score in scores])
    ratio = effective_size(weights) / 8
    odds = 999 ** (1 / ((1 / ratio) * (1 - 1 / 40)))
    assert plain[0] > 0.97
    assert flat[0] == pytest.approx(odds / (odds + 7), abs=0.1)
    late = drawn(scores, entropic=True, early_phase=0.01)
    assert late == plain


def test_the_draw_follows_the_seed_alone() -> None:
    paths = {str(i): 0.3 + i / 20 for i in range(8)}
    search = ParticleFilter(n=8)
    runs = [simulate(search, TASK, scored(paths), seed=seed, slots=slots).started for seed, slots in [(1, 8), (1, 8)]]
    assert runs[0] == runs[1]
    others = {tuple(sorted(simulate(search, TASK, scored(paths), seed=seed).started)) for seed in range(6)}
    assert len(others) > 1
    slow = simulate(search, TASK, scored(paths), seed=1, slots=1)
    assert sorted(slow.started) == sorted(runs[0])


def test_each_level_has_a_draw_of_its_own() -> None:
    run = simulate(ParticleFilter(n=16, depth=3), TASK, lambda _: Reply("on\n", score=0.5))
    levels = [[info for info in run.graph.threads() if info.key.count(".") == depth] for depth in range(3)]
    draws = []
    for above, level in pairwise(levels):
        places = {info.key: place for place, info in enumerate(above)}
        draws.append([places[info.work.parent] for info in level])
    assert [len(draw) for draw in draws] == [16, 16]
    assert draws[0] != draws[1]


def test_dead_particles_are_never_drawn() -> None:
    shares = drawn([0.0, 0.6, 0.0, 0.6], runs=10)
    assert shares[0] == shares[2] == 0.0
    assert shares[1] + shares[3] == 1.0


def test_a_particle_with_its_answer_waits_and_can_be_replaced() -> None:
    """One answer at once with odds 1 : 9 against each of the others: it is mostly lost before the end."""

    def reply(work: Work) -> Reply:
        first = work.key.removeprefix("particle_filter/").split(".")[0]
        if first == "0":
            return Reply("<answer>early</answer>", score=0.1)
        return Reply("<answer>late</answer>" if work.key.count(".") == 3 else "on\n", score=0.5)

    search = ParticleFilter(n=4, choose="majority")
    runs = [simulate(search, TASK, reply, seed=seed) for seed in range(12)]
    assert all(run.answer is not None and run.answer.of == 4 for run in runs)
    assert statistics.mode(run.answer.text for run in runs if run.answer) == "late"
    assert {len(run.started) for run in runs} != {4 + 3 * 4}  # in some it stays a while, and costs nothing


@pytest.mark.slow
def test_the_best_particle_wins_or_the_vote() -> None:
    def reply(work: Work) -> Reply:
        number = int(work.key.removeprefix("particle_filter/"))
        return Reply(f"<answer>{'rare' if number == 0 else 'common'}</answer>", score=0.7 if number == 0 else 0.6)

    answers: dict[str, set[str]] = {}
    for choose in ("naive", "majority"):
        search = ParticleFilter.model_validate({"n": 8, "choose": choose})
        runs = [simulate(search, TASK, reply, seed=seed) for seed in range(12)]
        answers[choose] = {run.answer.text for run in runs if run.answer}
    assert "rare" in answers["naive"]
    assert answers["majority"] == {"common"}


def spent_after(steps: int) -> Callable[[Simulation], BudgetLeft]:
    """A budget that pays for so many steps."""
    return lambda run: UNLIMITED._replace(spendable=len(run.started) < steps)


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_particles_with_their_answers_are_not_lost_when_the_budget_ends(steps: int) -> None:
    """The first has its answer at once, with odds that no draw passes over; the others never come to one."""

    def reply(work: Work) -> Reply:
        first = work.key.removeprefix("particle_filter/").split(".")[0]
        return Reply("<answer>7</answer>", score=0.999) if first == "0" else Reply("on\n", score=0.9)

    run = simulate(ParticleFilter(n=4), TASK, reply, slots=1, budget=spent_after(steps))
    assert run.answer is not None
    assert run.answer.text == "7"


def test_all_particles_dead_is_a_failure_with_counts() -> None:
    run = simulate(ParticleFilter(n=6), TASK, scored({str(i): 0.0 for i in range(6)}))
    assert run.failure == "no solution among 6 steps; of 6 ends 6 scored no more than 0"
