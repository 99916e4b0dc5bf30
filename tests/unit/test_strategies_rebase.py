"""REBASE: the split against values computed here, and what a step is promised before its level has ended."""

import math
from collections import Counter
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal, getcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.strategies.rebase import Rebase, promised, split
from researcher.testing.simulate import Reply, simulate
from researcher.types import Task, Work

TASK = Task(question="Make 24 of 4 9 10 13.")
getcontext().prec = 40


def golden(scores: list[float], budget: int, temperature: str = "0.2") -> list[int]:
    """The rule in decimal arithmetic: exp(r / T), from the best down, ceil(rest * w / sum of those not served)."""
    weights = [(Decimal(str(score)) / Decimal(temperature)).exp() for score in scores]
    shares: list[int] = []
    for i, weight in enumerate(weights):
        exact = budget * weight / sum(weights[i:])
        share = int(exact.quantize(Decimal(1), rounding=ROUND_CEILING)) if exact % 1 > Decimal("1e-20") else int(exact)
        shares.append(share)
        budget -= share
    return shares


def weights(scores: list[float]) -> list[float]:
    return [math.exp((score - 1) / 0.2) for score in scores]


@pytest.mark.parametrize(
    ("scores", "budget", "shares"),
    [
        ([0.9, 0.7, 0.5, 0.3], 16, [11, 4, 1, 0]),  # e^4.5 : e^3.5 : e^2.5 : e^1.5 = 64 : 24 : 9 : 3 %
        ([0.5, 0.5, 0.5, 0.5], 16, [4, 4, 4, 4]),
        ([0.5, 0.5, 0.5], 16, [6, 5, 5]),
        ([1.0, 0.0], 16, [16, 0]),  # 148 : 1
        ([0.8, 0.79], 1, [1, 0]),
        ([0.6], 7, [7]),
    ],
)
def test_the_split(scores: list[float], budget: int, shares: list[int]) -> None:
    assert golden(scores, budget) == shares
    assert split(weights(scores), budget) == shares


scores_of = st.lists(st.integers(0, 100), min_size=1, max_size=12).map(
    lambda s: sorted((x / 100 for x in s), reverse=True)
)


@pytest.mark.slow
@settings(deadline=None)
@given(scores=scores_of, budget=st.integers(1, 64))
def test_the_split_is_the_rule_and_gives_out_the_budget(scores: list[float], budget: int) -> None:
    shares = split(weights(scores), budget)
    assert shares == golden(scores, budget)
    assert sum(shares) == budget


@pytest.mark.slow
@settings(deadline=None)
@given(
    scores=scores_of,
    late=st.lists(st.one_of(st.none(), st.integers(-1, 100)), min_size=1, max_size=6),
    spare=st.integers(0, 40),
)
def test_what_is_promised_is_given(scores: list[float], late: list[int | None], spare: int) -> None:
    """However those that still run end: with a score, as a solution (-1) or not at all (None)."""
    budget = len(late) + spare
    promise = list(promised(weights(scores), budget, len(late)))
    ended = sum(score == -1 for score in late)
    come = [score / 100 for score in late if score is not None and score >= 0]
    ranked = sorted([(-score, i < len(scores), i) for i, score in enumerate([*scores, *come])])
    shares = split(weights([-loss for loss, _, _ in ranked]), budget - ended)
    given_out = {i: share for (_, known, i), share in zip(ranked, shares, strict=True) if known}
    assert all(given_out[i] >= least for i, least in enumerate(promise))


def test_something_is_promised_indeed() -> None:
    """15 of weight .223 share at least 15 of 16 with one of weight 1: .77 each, less (k + 1) / (15 - k)."""
    assert list(promised(weights([0.7] * 15), 16, 1)) == [1] * 6
    assert next(promised(weights([0.95, 0.3, 0.3]), 16, 1)) >= 5
    assert list(promised([], 16, 3)) == []


def scored(scores: dict[str, float], slow: str = "") -> Callable[[Work], Reply]:
    def reply(work: Work) -> Reply:
        path = work.key.removeprefix("rebase/")
        seconds = 100.0 if path == slow else 1.0
        if path in scores:
            return Reply(f"{path}\n", score=scores[path], seconds=seconds)
        return Reply(f"<answer>{path}</answer>", score=0.5, seconds=seconds)

    return reply


def children(scores: dict[str, float], n: int, **params: float) -> dict[str, int]:
    run = simulate(Rebase.model_validate({"n": n, "choose": "naive", **params}), TASK, scored(scores))
    assert run.answer is not None
    parents = Counter(i.work.parent.removeprefix("rebase/") for i in run.graph.threads() if i.work.parent)
    return dict(parents)


def test_a_level_is_given_out_by_the_scores_of_the_one_before() -> None:
    scores = {"0": 0.3, "1": 0.9, "2": 0.5, "3": 0.7}
    shares = golden([0.9, 0.7, 0.5, 0.3], 4)
    assert shares == [3, 1, 0, 0]
    assert children(scores, 4) == {"1": 3, "3": 1}
    assert children(scores, 4, softmax_temperature=100.0) == {"1": 2, "3": 1, "2": 1}  # nearly even


def test_each_solution_takes_its_place_off_the_width() -> None:
    """Of six first steps two are answers: four places are left, and no more are sampled."""
    scores = {"0": 0.6, "1": 0.6, "2": 0.2, "3": 0.2}
    assert children(scores, 6) == {"0": 2, "1": 2}
    run = simulate(Rebase(n=6, choose="naive"), TASK, scored(scores))
    assert run.answer is not None
    assert (run.answer.of, len(run.started)) == (6, 10)


def test_dead_ends_get_nothing() -> None:
    assert children({"0": 0.0, "1": 0.4, "2": 0.0, "3": 0.0}, 4) == {"1": 4}


def test_what_is_certain_starts_before_the_level_has_ended() -> None:
    scores = {str(i): 0.7 for i in range(16)}
    run = simulate(Rebase(choose="naive"), TASK, scored(scores, slow="15"))
    before = run.ended[: run.ended.index("rebase/15")]
    assert [key for key in before if "." in key] == [f"rebase/{i}.0" for i in range(6)]
    assert len(run.started) == 32


def test_the_depth_and_the_temperatures_are_those_of_the_paper() -> None:
    search = Rebase()
    assert (search.n, search.depth, search.softmax_temperature, search.temperature) == (16, 25, 0.2, 1.0)
    assert simulate(search, TASK, scored({str(i): 0.5 for i in range(16)})).answer is not None
