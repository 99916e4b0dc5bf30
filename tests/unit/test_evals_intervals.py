"""Intervals and pass@k against values computed in another way."""

import math
from fractions import Fraction
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.intervals import T, _t, over_problems, over_seeds, paired, pass_at_k, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_against_published_values(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_bounds_solve_its_equation() -> None:
    n, right, z = 300, 270, 1.959964
    for bound in wilson(right, n):
        assert abs(right / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-5)


def test_runs_of_one_problem_that_always_agree_count_once() -> None:
    once = [[1]] * 60 + [[0]] * 40
    assert over_problems(once) == pytest.approx(wilson(60, 100))
    assert over_problems([each * 3 for each in once]) == pytest.approx(wilson(60, 100), rel=0.02)
    assert over_problems([[1, 1, 1]] * 10) == pytest.approx(wilson(10, 10))  # and where nothing varies, not thrice
    assert over_problems([]) == (0.0, 1.0)


def test_runs_of_one_problem_that_are_independent_all_count() -> None:
    rng = Random(1)
    runs = [[int(rng.random() < 0.6) for _ in range(3)] for _ in range(2_000)]
    right = sum(map(sum, runs))
    low, high = over_problems(runs)
    assert high - low == pytest.approx(wilson(right, 6_000).high - wilson(right, 6_000).low, rel=0.05)


@pytest.mark.slow
def test_the_interval_over_problems_holds_the_share_in_95_of_100_samples() -> None:
    """Problems are solved with chances drawn from Beta(0.3, 0.3): pooled as if independent, 80 of 100 hold it."""
    rng, held, pooled = Random(2), 0, 0
    for _ in range(1_500):
        chances = [rng.betavariate(0.3, 0.3) for _ in range(100)]
        runs = [[int(rng.random() < chance) for _ in range(3)] for chance in chances]
        low, high = over_problems(runs)
        held += low <= 0.5 <= high
        low, high = wilson(sum(map(sum, runs)), 300)
        pooled += low <= 0.5 <= high
    assert held / 1_500 == pytest.approx(0.95, abs=0.02)
    assert pooled / 1_500 < 0.85


def test_three_seeds_use_students_t() -> None:
    low, high = over_seeds([0.5, 0.6, 0.7]) or (0, 0)
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert over_seeds([0.5]) is None
    assert paired([1.0]) is None


def test_an_interval_over_seeds_stays_a_share() -> None:
    assert over_seeds([0.0, 1.0]) == (0.0, 1.0)


def test_a_paired_interval_may_be_negative() -> None:
    low, high = paired([-1.0, 1.0, -1.0, 1.0]) or (0, 0)
    assert low < 0 < high
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.7062), (2, 4.3027), (10, 2.2281)])
def test_the_table_of_student(freedom: int, value: float) -> None:
    assert T[freedom - 1] == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("freedom", "value"), [(11, 2.20099), (15, 2.13145), (30, 2.04227), (120, 1.97993)])
def test_the_expansion_of_student(freedom: int, value: float) -> None:
    assert _t(freedom) == pytest.approx(value, abs=3e-3)


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(combinations(range(n), k))
    share = Fraction(sum(any(i < correct for i in subset) for subset in subsets), len(subsets))
    assert pass_at_k(n, correct, k) == pytest.approx(float(share))


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 5, 1), (4, 1, 5), (4, 1, 0), (0, 0, 1), (4, -1, 1)])
def test_pass_at_k_of_nonsense_is_refused(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(n, correct, k)
