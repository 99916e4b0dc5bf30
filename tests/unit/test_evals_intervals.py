"""Intervals and pass@k against values computed in another way."""

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.evals.intervals import T, _t, over_seeds, paired, pass_at_k, wilson


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
