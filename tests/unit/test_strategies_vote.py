"""The vote: golden values of its stops, and what they may and may not change."""

import random
from collections import Counter
from math import comb

import pytest

from researcher.strategies import load_strategy
from researcher.strategies.vote import Vote
from researcher.strategies.votes import beta_confidence, decided
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, Verdict, VerdictStatus, Work

TASK = Task(question="What is it?")


def answering(answers: dict[str, str], seconds: dict[str, float] | None = None):
    def reply(work: Work) -> Reply:
        answer = answers[work.key]
        final = f"<answer>{answer}</answer>" if answer else "no idea"
        outcome = Outcome.ANSWERED if answer else Outcome.EXHAUSTED
        return Reply(final, seconds=(seconds or {}).get(work.key, 1.0), outcome=outcome)

    return reply


def keyed(answers: list[str]) -> dict[str, str]:
    return {f"vote/{i}": answer for i, answer in enumerate(answers)}


def full_vote(answers: list[str]) -> str | None:
    counts = Counter(answer for answer in answers if answer)
    return max(counts, key=lambda a: (counts[a], -answers.index(a))) if counts else None


def test_the_beta_table() -> None:
    smallest = [next(v1 for v1 in range(v2, 99) if beta_confidence(v1, v2) >= 0.95) for v2 in range(9)]
    assert smallest == [4, 6, 8, 9, 11, 12, 14, 15, 17]


def test_beta_confidence_is_the_regularised_incomplete_beta() -> None:
    for v1, v2 in [(1, 0), (5, 3), (9, 9), (20, 11)]:  # P(p > 1/2) for p ~ Beta(v1+1, v2+1), by its binomial tail
        n = v1 + v2 + 1
        assert beta_confidence(v1, v2) == pytest.approx(sum(comb(n, k) for k in range(v2 + 1, n + 1)) / 2**n)


def test_beta_confidence_holds_at_any_size() -> None:
    assert beta_confidence(520, 510) == pytest.approx(0.6218, abs=1e-3)
    assert beta_confidence(60_000, 40_000) == pytest.approx(1.0)


def test_the_lossless_stop_agrees_with_the_full_vote_always() -> None:
    rng = random.Random(1)
    for _ in range(500):
        n = rng.randint(1, 12)
        answers = [rng.choice(["a", "a", "b", "c", ""]) for _ in range(n)]
        seconds = {f"vote/{i}": rng.random() for i in range(n)}
        run = simulate(Vote(n=n), TASK, answering(keyed(answers), seconds), slots=rng.randint(1, n))
        assert (run.answer.canonical if run.answer else None) == full_vote(answers)


def test_the_lossless_stop_needs_nine_samples_of_sixteen_when_all_agree() -> None:
    run = simulate(Vote(n=16), TASK, answering(keyed(["a"] * 16)), slots=1)
    assert len(run.started) == 9
    assert run.answer is not None
    assert (run.answer.votes, run.answer.of) == (9, 9)


def test_decided_is_exact() -> None:
    for first in range(1, 8):
        for second in range(first + 1):
            for pending in range(8):
                can_turn = second + pending >= first
                assert decided(first, second, pending) is not can_turn


def test_the_beta_stop_goes_by_submission_not_by_speed() -> None:
    """Quick wrong answers finish first; the stop must wait for the slow right ones submitted before them."""
    answers = ["right"] * 6 + ["wrong"] * 5 + ["right"] * 5
    seconds = {f"vote/{i}": 3.0 if a == "right" else 1.0 for i, a in enumerate(answers)}
    run = simulate(Vote(n=16, stop="beta"), TASK, answering(keyed(answers), seconds))
    assert run.answer is not None
    assert run.answer.text == "right"
    assert len(run.cancelled) == 0 or set(run.cancelled) <= {f"vote/{i}" for i in range(4, 16)}


def test_the_full_vote_waits_for_all() -> None:
    run = simulate(Vote(n=5, stop="full"), TASK, answering(keyed(["a"] * 5)))
    assert len(run.ended) == 5
    assert run.cancelled == []


def test_a_tie_goes_to_the_answer_submitted_first() -> None:
    seconds = {"vote/0": 9.0}
    run = simulate(Vote(n=4, stop="full"), TASK, answering(keyed(["late", "b", "b", "late"]), seconds))
    assert run.answer is not None
    assert run.answer.text == "late"


def test_equal_answers_vote_together() -> None:
    run = simulate(Vote(n=3, stop="full"), TASK, answering(keyed(["1,000", "1000.0", "7"])))
    assert run.answer is not None
    assert run.answer.votes == 2


def test_no_answer_at_all_is_a_failure_that_says_why() -> None:
    run = simulate(Vote(n=3), TASK, answering(keyed(["", "", ""])))
    assert run.answer is None
    assert "no thread gave an answer" in (run.failure or "")


def test_a_spent_budget_ends_with_the_votes_there_are() -> None:
    def budget(run: Simulation):
        return UNLIMITED._replace(spendable=len(run.ended) < 3)

    run = simulate(Vote(n=16, stop="full"), TASK, answering(keyed(["a"] * 16)), slots=1, budget=budget)
    assert run.answer is not None
    assert run.answer.votes == 3


def test_slots_are_filled_at_once_and_never_overfilled() -> None:
    run = simulate(Vote(n=20, stop="full"), TASK, answering(keyed(["a"] * 20)), slots=7)
    assert run.most_at_once == 7


def test_a_verified_answer_is_supported_and_a_refuted_one_is_not() -> None:
    for status, supported in [(VerdictStatus.CORRECT, True), (VerdictStatus.WRONG, False)]:
        verdict = Verdict(status=status, by="exact")
        task = Task(question="q", verifier="exact")
        run = simulate(Vote(n=1), task, lambda _, v=verdict: Reply("<answer>a</answer>", verdict=v))
        assert run.answer is not None
        assert run.answer.supported is supported


def test_seeds_differ_by_thread_and_repeat_by_run() -> None:
    def seeds(seed: int) -> list[int | None]:
        run = simulate(Vote(n=4, stop="full"), TASK, answering(keyed(["a"] * 4)), seed=seed)
        return [t.work.sampling.seed for t in run.graph.threads("vote")]

    assert seeds(1) == seeds(1)
    assert seeds(1) != seeds(2)
    assert len(set(seeds(1))) == 4


def test_loaded_by_name() -> None:
    assert load_strategy("vote", {"n": 3}) == Vote(n=3)
