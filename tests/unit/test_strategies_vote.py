"""The vote: golden values of its stops, and what they may and may not change."""

import heapq
import random
from collections import Counter
from fractions import Fraction
from math import comb

import pytest

from researcher.errors import UserError
from researcher.strategies import load_strategy
from researcher.strategies.vote import Vote, evidence
from researcher.strategies.votes import Ballot, Ballots, Tally, beta_confidence, decided
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Claim, Evidence, Outcome, Task, Verdict, VerdictStatus, Work

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


def arrive(
    vote: Vote, answers: list[str], seconds: list[float], slots: int, weights: list[float] | None = None
) -> tuple[str | None, int]:
    """The answer of the vote whose threads take so long, in so many slots, and how many were started."""
    ballots = Ballots[str](vote.rule)
    running: list[tuple[float, int]] = []
    now = 0.0
    while (decision := vote.decide(ballots, spendable=True)) is None:
        while ballots.opened < vote.n and len(running) < slots:
            place = ballots.open()
            heapq.heappush(running, (now + seconds[place], place))
        now, place = heapq.heappop(running)
        weight = 1.0 if weights is None else weights[place]
        ballots.close(place, Ballot(answers[place], weight, answers[place]) if answers[place] else None)
    leader = decision.votes.leader
    return (leader[0] if leader else None), ballots.opened


@pytest.mark.slow
def test_the_lossless_stop_agrees_with_the_full_vote_in_10_000_cases() -> None:
    rng = random.Random(11)
    for case in range(10_000):
        n = rng.randint(1, 16)
        answers = [rng.choice("aaabbc") if rng.random() < 0.9 else "" for _ in range(n)]
        seconds = [rng.random() for _ in range(n)]
        slots = n if case % 2 else rng.randint(1, n)
        assert arrive(Vote(n=n), answers, seconds, slots)[0] == full_vote(answers)


def test_the_weighted_lossless_stop_agrees_with_the_full_weighted_vote() -> None:
    rng = random.Random(12)
    for _ in range(1000):
        n = rng.randint(1, 12)
        answers = [rng.choice("aabbc") for _ in range(n)]
        weights = [rng.choice([0.0, 0.25, 0.5, 1.0, rng.random()]) for _ in range(n)]
        sums: dict[str, Fraction] = {}
        for answer, weight in zip(answers, weights, strict=True):
            sums[answer] = sums.get(answer, Fraction(0)) + round(weight * 2**40)
        best = max(sums, key=lambda a: (sums[a], -answers.index(a)))
        vote = Vote(n=n, weights="score", scorer="judge")
        assert arrive(vote, answers, [rng.random() for _ in range(n)], n, weights)[0] == best


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({"a": 1.0}, 9.0), ({"a": 0.9, "b": 0.1}, 10.0), ({"a": 0.7, "b": 0.3}, 12.7)],
)
def test_the_lossless_stop_needs_the_expected_samples(shares: dict[str, float], expected: float) -> None:
    """One after the other; of two classes it ends with the ninth vote for one, which has a negative binomial law."""
    p = shares["a"]
    law = 16 * sum(comb(16, k) * p**k * (1 - p) ** (16 - k) for k in (8,))  # an even split needs all
    for last in range(9, 17):
        law += last * comb(last - 1, 8) * (p**9 * (1 - p) ** (last - 9) + (1 - p) ** 9 * p ** (last - 9))
    assert law == pytest.approx(expected, abs=0.06)
    rng = random.Random(5)
    used = 0
    for _ in range(600):
        answers = ["a" if rng.random() < p else "b" for _ in range(16)]
        used += arrive(Vote(n=16), answers, [1.0] * 16, slots=1)[1]
    assert used / 600 == pytest.approx(law, abs=0.25)
    assert p < 1 or used == 9 * 600


def test_the_lossless_stop_needs_14_samples_of_16_where_three_answers_compete() -> None:
    rng = random.Random(6)
    used = [
        arrive(Vote(n=16), rng.choices("abc", (0.5, 0.25, 0.25), k=16), [1.0] * 16, slots=1)[1] for _ in range(1000)
    ]
    assert sum(used) / len(used) == pytest.approx(14.1, abs=0.15)


@pytest.mark.parametrize("slots", [4, 16])
@pytest.mark.parametrize("stop", ["lossless", "beta", "consensus"])
def test_slow_right_answers_cost_no_stop_more_than_a_point(stop: str, slots: int) -> None:
    """P(right) = 0.65 against one wrong answer, N = 16, right answers three times slower (the reference lost 70)."""
    rng = random.Random(2)
    cases, right, full = 800, 0, 0
    vote = Vote.model_validate({"n": 16, "stop": stop, "warmup": 8})
    for _ in range(cases):
        answers = ["right" if rng.random() < 0.65 else "wrong" for _ in range(16)]
        seconds = [rng.uniform(0.5, 1.5) * (3 if answer == "right" else 1) for answer in answers]
        right += arrive(vote, answers, seconds, slots)[0] == "right"
        full += full_vote(answers) == "right"
    assert 0.85 < full / cases < 0.93
    assert right / cases >= full / cases - 0.01


def test_who_is_quick_changes_nothing_in_a_sequential_stop() -> None:
    rng = random.Random(3)
    for stop in ("beta", "consensus"):
        vote = Vote.model_validate({"n": 30, "stop": stop, "warmup": 5, "consensus": 0.7})
        for _ in range(100):
            answers = [rng.choice("aaab") for _ in range(30)]
            in_turn = arrive(vote, answers, [1.0] * 30, slots=1)[0]
            for slots in (3, 30):
                assert arrive(vote, answers, [rng.random() for _ in range(30)], slots)[0] == in_turn


def test_the_consensus_stop_waits_for_its_warm_up() -> None:
    vote = Vote(n=40, stop="consensus", warmup=10)
    assert arrive(vote, ["a"] * 40, [1.0] * 40, slots=1) == ("a", 10)
    assert arrive(vote, ["b", *["a"] * 39], [1.0] * 40, slots=1) == ("a", 20)  # 19 of 20 are 95 %


def test_the_lossless_stop_agrees_with_the_full_vote_of_a_run() -> None:
    rng = random.Random(1)
    for _ in range(100):
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


def test_a_tally_is_what_a_count_from_scratch_is() -> None:
    rng = random.Random(4)
    for _ in range(200):
        votes, counted = Tally[int](), Counter[str]()
        order = list(range(rng.randint(1, 30)))
        rng.shuffle(order)
        firsts: dict[str, int] = {}
        for place in order:
            answer = rng.choice("abcd")
            votes.add(answer, place, place)
            counted[answer] += 1
            firsts[answer] = min(place, firsts.get(answer, place))
            ranked = sorted(counted, key=lambda a: (-counted[a], firsts[a]))
            assert votes.leader[0] == firsts[ranked[0]]
            assert votes.top_two == (counted[ranked[0]], counted[ranked[1]] if len(ranked) > 1 else 0)
            assert votes.share == counted[ranked[0]] / counted.total()
            assert votes.votes == counted.total()


def test_a_weighted_sum_does_not_depend_on_the_order_of_its_terms() -> None:
    forth, back = Tally[int](), Tally[int]()
    weights = [0.1, 0.2, 0.3, 1e-9, 0.7]
    for i, weight in enumerate(weights):
        forth.add("a", i, i, weight)
    for i, weight in reversed(list(enumerate(weights))):
        back.add("a", i, i, weight)
    assert forth.top_two == back.top_two
    assert forth.leader == back.leader == [0, 1, 2, 3, 4]


def scored(scores: dict[str, float | None], answers: dict[str, str]):
    def reply(work: Work) -> Reply:
        return Reply(f"<answer>{answers[work.key]}</answer>", score=scores[work.key])

    return reply


def test_votes_weigh_their_scores() -> None:
    answers = keyed(["a", "a", "a", "b", "b"])
    scores = dict(zip(answers, [0.1, 0.2, 0.1, 0.3, 0.2], strict=True))
    vote = Vote(n=5, weights="score", scorer="judge", stop="full")
    run = simulate(vote, TASK, scored(scores, answers))
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("b", 2, 5)  # 0.5 against 0.4
    assert all(thread.work.scorer == "judge" for thread in run.graph.threads())
    assert vote.scorers == ("judge",)


def test_an_answer_without_a_score_does_not_vote_and_is_told() -> None:
    answers = keyed(["a", "a", "b"])
    run = simulate(
        Vote(n=3, weights="score", scorer="judge", stop="full"),
        TASK,
        scored({"vote/0": None, "vote/1": None, "vote/2": 0.1}, answers),
    )
    assert run.answer is not None
    assert run.answer.text == "b"
    assert "2 answers did not vote, without a score from judge" in run.answer.reason


def test_no_score_at_all_is_a_failure() -> None:
    answers = keyed(["a"] * 3)
    run = simulate(Vote(n=3, weights="score", scorer="judge"), TASK, scored(dict.fromkeys(answers), answers))
    assert run.answer is None
    assert "none of the 3 answers could vote, without a score from judge" in (run.failure or "")


def quoting(answer: str, stands: int, invented: int) -> Reply:
    """A reply whose quotes stand in a source, or do not."""
    quotes = [f"It stands there, {answer}, {i}." for i in range(stands)]
    claims = tuple(Claim(text=text, evidence=(Evidence(sha256="0" * 64, start=0, end=9),)) for text in quotes)
    quotes += [f"It stands nowhere, {answer}, {i}." for i in range(invented)]
    lines = [f'[{i}] "{text}"' for i, text in enumerate(quotes)]
    claims += tuple(Claim(text=text, evidence=()) for text in quotes[stands:])
    return Reply("\n".join([*lines, f"<answer>{answer}</answer>"]), claims=claims)


def test_votes_weigh_what_stands_in_a_source() -> None:
    replies = {
        "vote/0": quoting("invented", 1, 1), "vote/1": quoting("invented", 1, 1), "vote/2": quoting("invented", 0, 2),
        "vote/3": quoting("read", 2, 0), "vote/4": quoting("read", 1, 1),
        "vote/5": Reply("<answer>silent</answer>"),
    }  # fmt: skip
    weights = [evidence(thread) for thread in simulated(replies, "none").graph.threads()]
    assert weights == [0.5, 0.5, 0.0, 1.0, 0.5, None]
    assert simulated(replies, "none").answer.text == "invented"  # type: ignore[union-attr]
    found = simulated(replies, "evidence").answer
    assert found is not None
    assert (found.text, found.votes, found.of) == ("read", 2, 5)  # 1.5 against 1
    assert "1 answers did not vote, without a quote" in found.reason
    assert Vote(weights="evidence").stopping == "lossless"
    nobody = simulated(dict.fromkeys(replies, Reply("<answer>silent</answer>")), "evidence")
    assert "could vote, without a quote" in (nobody.failure or "")
    unread = simulated(replies, "evidence", tools=())
    assert "this task has no tools to read with" in (unread.failure or "")
    assert not unread.started


def simulated(replies: dict[str, Reply], weights: str, tools: tuple[str, ...] = ("search",)) -> Simulation:
    vote = load_strategy("vote", {"n": len(replies), "weights": weights, "stop": "full"})
    return simulate(vote, Task(question="What is it?", tools=tools), lambda work: replies[work.key])


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"weights": "confidence", "stop": "lossless"}, "stop=lossless cannot keep what it promises"),
        ({"weights": "score", "scorer": "orm", "stop": "beta"}, "stop=beta cannot keep what it promises"),
        ({"weights": "score"}, "go together"),
        ({"scorer": "orm"}, "go together"),
        ({"keep": 0.5}, "belong to weights=confidence"),
        ({"online": "low"}, "belong to weights=confidence"),
        ({"weights": "confidence", "online": "low"}, "a larger n or a smaller warmup"),
        ({"weights": "confidence", "online": "low", "n": 40, "measure": "tail"}, "belong to online=off"),
        ({"weights": "confidence", "stop": "consensus"}, "known when all have ended"),
        ({"over": "refine", "weights": "evidence"}, "no score, confidence or quotes"),
        ({"over": "refin"}, "did you mean refine"),
        ({"over": "refine", "over_params": {"round": 2}}, "did you mean rounds"),
        ({"over_params": {"style": "few_shot"}}, "needs examples"),
    ],
)
def test_what_cannot_be_kept_is_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_strategy("vote", params)


def test_without_a_choice_the_stop_is_the_strictest_that_saves() -> None:
    assert Vote().stopping == "lossless"
    assert Vote(weights="score", scorer="orm").stopping == "lossless"
    assert Vote(weights="confidence").stopping == "full"


@pytest.mark.parametrize(
    "params",
    [{}, {"stop": "full"}, {"stop": "beta"}, {"stop": "consensus"}, {"weights": "score", "scorer": "judge"}],
)
def test_a_plan_reads_what_is_new_and_nothing_else(params: dict[str, object]) -> None:
    """Each thread is read when it starts and when it ends; those in flight once more, when they are cancelled."""
    cost = plan_cost(Vote.model_validate({"n": 300, **params}), TASK, unlike, slots=20)
    assert cost.run is not None
    assert cost.reads <= 2 * len(cost.run.started) + 20


@pytest.mark.slow
def test_ten_thousand_threads_are_planned_by_what_is_new() -> None:
    cost = plan_cost(Vote(n=10_000), TASK, unlike, slots=10_000)
    assert cost.plans > 9000
    assert cost.reads_per_plan < 3
    assert cost.milliseconds < 1


def unlike(work: Work) -> Reply:
    """An answer that nobody else gives, after any time."""
    rng = random.Random(work.sampling.seed)
    return Reply(f"<answer>{rng.randrange(10**9)}</answer>", rng.random(), score=rng.random())
