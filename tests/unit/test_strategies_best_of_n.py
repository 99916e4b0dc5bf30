"""Best of N: whose scores count, which answer they choose, when it may stop, and that it fails loudly without them."""

import math
import random
from collections.abc import Callable
from fractions import Fraction

import pytest

from researcher.errors import UserError
from researcher.strategies import load_strategy
from researcher.strategies.best_of_n import BestOfN
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Task, Verdict, VerdictStatus, Work

TASK = Task(question="What is it?")
CHECKED = Task(question="What is it?", verifier="countdown")


def scored(answers: str, scores: list[float | None], seconds: list[float] | None = None) -> Callable[[Work], Reply]:
    def reply(work: Work) -> Reply:
        i = int(work.key.split("/")[1])
        return Reply(f"<answer>{answers[i]}</answer>", (seconds or [1.0] * 99)[i], score=scores[i])

    return reply


def chosen(answers: str, scores: list[float], how: str) -> str:
    """The choice, counted independently: the largest exact sum or the best score; ties go to the first submitted."""
    if how == "naive":
        return answers[max(range(len(answers)), key=lambda i: (scores[i], -i))]
    return max(answers, key=lambda a: (_sum(answers, scores, a), -answers.index(a)))


def _sum(answers: str, scores: list[float], answer: str) -> Fraction:
    return sum((Fraction(s) for a, s in zip(answers, scores, strict=True) if a == answer), Fraction(0))


def test_weighted_and_naive_differ_as_they_should() -> None:
    answers, scores = "aabc", [0.5, 0.5, 0.9, 0.3]
    for how, text, votes in (("weighted", "a", 2), ("naive", "b", 1)):
        run = simulate(
            load_strategy("best_of_n", {"n": 4, "scorer": "orm", "choose": how}), TASK, scored(answers, scores)
        )
        assert run.answer is not None
        assert (run.answer.text, run.answer.votes) == (text, votes)


@pytest.mark.parametrize("how", ["weighted", "naive"])
def test_the_choice_and_its_lossless_stop_agree_with_a_count_of_all(how: str) -> None:
    rng = random.Random(how)
    for _ in range(60):
        n = rng.randint(1, 10)
        answers = "".join(rng.choice("aabc") for _ in range(n))
        scores = [rng.choice([0.0, 0.25, 0.5, 1.0]) for _ in range(n)]
        strategy = load_strategy("best_of_n", {"n": n, "scorer": "orm", "choose": how})
        run = simulate(
            strategy, TASK, scored(answers, scores, [rng.random() for _ in range(n)]), slots=rng.randint(1, n)
        )
        assert run.answer is not None
        assert run.answer.text == chosen(answers, scores, how)


def test_the_naive_choice_stops_at_a_perfect_score_that_nothing_earlier_can_reach() -> None:
    strategy = BestOfN(n=16, scorer="orm", choose="naive")
    run = simulate(strategy, TASK, scored("abc" + "d" * 13, [0.2, 1.0, *[0.0] * 14]), slots=1)
    assert run.started == ["vote/0", "vote/1"]
    slow = simulate(strategy, TASK, scored("abc" + "d" * 13, [1.0, 1.0, *[0.0] * 14], [9.0, *[1.0] * 15]), slots=2)
    assert slow.answer is not None
    assert slow.answer.text == "a"  # the earlier one was waited for


def test_the_best_scored_of_the_winning_class_is_shown() -> None:
    reply = {
        "vote/0": Reply("weak <answer>a</answer>", score=0.1),
        "vote/1": Reply("strong <answer>a</answer>", score=0.9),
    }
    run = simulate(BestOfN(n=2, scorer="orm", stop="full"), TASK, lambda work: reply[work.key])
    assert run.answer is not None
    assert run.answer.body == "strong <answer>a</answer>"


def test_without_any_score_it_fails_and_says_whose() -> None:
    def reply(work: Work) -> Reply:
        return Reply("<answer>a</answer>", detail="orm could not score it: no log probabilities")

    run = simulate(BestOfN(n=3, scorer="orm"), TASK, reply)
    assert run.answer is None
    assert run.failure == (
        "no score came from orm for any of the 3 answers; orm could not score it: no log probabilities"
    )


def test_answers_without_a_score_are_passed_over_and_counted() -> None:
    run = simulate(BestOfN(n=3, scorer="orm", stop="full"), TASK, scored("aab", [None, None, 0.1]))
    assert run.answer is not None
    assert run.answer.text == "b"
    assert "2 answers without a score were passed over" in run.answer.reason


def verdict(status: VerdictStatus, score: float | None = None) -> Verdict:
    return Verdict(status=status, by="countdown", score=score)


def test_it_stops_at_the_first_answer_that_the_rule_accepts() -> None:
    def reply(work: Work) -> Reply:
        right = work.key == "vote/2"
        return Reply(
            f"<answer>{work.key}</answer>", verdict=verdict(VerdictStatus.CORRECT if right else VerdictStatus.WRONG)
        )

    run = simulate(BestOfN(n=16), CHECKED, reply, slots=1)
    assert run.started == ["vote/0", "vote/1", "vote/2"]
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported) == ("vote/2", True)
    assert len(simulate(BestOfN(n=16, stop_when_verified=False, stop="full"), CHECKED, reply, slots=1).started) == 16


def test_without_a_scorer_the_verifier_scores_and_unverified_is_no_zero() -> None:
    verdicts = [
        verdict(VerdictStatus.WRONG, 0.4), verdict(VerdictStatus.WRONG, 0.4), verdict(VerdictStatus.WRONG, 0.7),
        verdict(VerdictStatus.UNVERIFIED), verdict(VerdictStatus.WRONG),
    ]  # fmt: skip

    def reply(work: Work) -> Reply:
        i = int(work.key.split("/")[1])
        return Reply(f"<answer>{'aabcd'[i]}</answer>", verdict=verdicts[i])

    run = simulate(BestOfN(n=5, stop="full"), CHECKED, reply)
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported, run.answer.of) == ("a", False, 4)
    assert BestOfN().needs_verdicts
    assert not BestOfN(scorer="orm").needs_verdicts


STEPS = {  # three solutions of two steps with their scores
    "chain/0": [("x\n", 0.9), ("<answer>a</answer>", 0.2)],
    "chain/1": [("y\n", 0.3), ("<answer>b</answer>", 0.6)],
    "chain/2": [("z\n", 0.5), ("<answer>c</answer>", 0.5)],
}


@pytest.mark.parametrize(
    ("how", "text", "score"),
    [("last", "b", 0.6), ("min", "c", 0.5), ("prod", "c", 0.25), ("mean", "a", math.fsum([0.9, 0.2]) / 2)],
)
def test_the_aggregate_of_the_steps_is_the_one_that_was_asked_for(how: str, text: str, score: float) -> None:
    def reply(work: Work) -> Reply:
        chain, _, depth = work.key.rpartition("/")
        final, value = STEPS[chain][int(depth)]
        return Reply(final, score=value)

    strategy = load_strategy("best_of_n", {"n": 3, "scorer": "prm", "aggregate": how, "choose": "naive"})
    run = simulate(strategy, TASK, reply, slots=2)
    assert run.answer is not None
    assert run.answer.text == text
    body = "".join(final for final, _ in STEPS[f"chain/{'abc'.index(text)}"])
    assert run.answer.body == body
    values = [value for _, value in STEPS[f"chain/{'abc'.index(text)}"]]
    mine = {"last": values[-1], "min": min(values), "prod": values[0] * values[1], "mean": sum(values) / 2}[how]
    assert mine == pytest.approx(score)
    assert strategy.needs == {"steps"}


def test_a_solution_with_a_step_that_could_not_be_scored_is_passed_over() -> None:
    def reply(work: Work) -> Reply:
        chain, _, depth = work.key.rpartition("/")
        final, value = STEPS[chain][int(depth)]
        return Reply(final, score=None if (chain, depth) == ("chain/2", "0") else value)

    run = simulate(BestOfN(n=3, scorer="prm", aggregate="min", choose="naive"), TASK, reply)
    assert run.answer is not None
    assert run.answer.text == "b"
    last = simulate(BestOfN(n=3, scorer="prm", aggregate="last", choose="naive"), TASK, reply)
    assert last.answer is not None
    assert "passed over" not in last.answer.reason  # of `last` only the last step's score is needed


def test_a_solution_that_never_ends_is_cut_at_its_depth() -> None:
    run = simulate(BestOfN(n=1, scorer="prm", aggregate="last", depth=3), TASK, lambda _: Reply("on\n", score=0.5))
    assert run.answer is None
    assert run.started == ["chain/0/0", "chain/0/1", "chain/0/2"]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"aggregate": "min"}, "name a scorer"),
        ({"aggregate": "min", "scorer": "prm", "style": "r1"}, "prompt of their own"),
        ({"choose": "best"}, "parameter 'choose'"),
    ],
)
def test_what_does_not_go_together_is_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_strategy("best_of_n", params)


def test_a_spent_budget_ends_with_what_is_scored_and_says_so() -> None:
    def budget(run: Simulation):
        return UNLIMITED._replace(spendable=len(run.ended) < 3)

    run = simulate(BestOfN(n=16, scorer="orm", stop="full"), TASK, scored("ab" * 8, [0.5] * 16), slots=1, budget=budget)
    assert run.answer is not None
    assert (run.answer.text, run.answer.of, len(run.started)) == ("a", 3, 3)


@pytest.mark.parametrize("aggregate", [None, "min"])
def test_a_plan_reads_what_is_new_and_nothing_else(aggregate: str | None) -> None:
    def reply(work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        step = work.kind == "step" and not work.parent
        return Reply("on\n" if step else f"<answer>{rng.randrange(9)}</answer>", rng.random(), score=rng.random())

    strategy = BestOfN.model_validate({"n": 200, "scorer": "prm", "aggregate": aggregate, "stop": "full"})
    cost = plan_cost(strategy, TASK, reply, slots=20)
    assert cost.run is not None
    assert len(cost.run.started) == (200 if aggregate is None else 400)
    assert cost.reads <= 2 * len(cost.run.started) + 100
