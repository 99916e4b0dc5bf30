"""Rewards: each by hand from its formula, what is silent, and rewards that raise or give no number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from researcher.errors import UserError
from researcher.train.rewards import RewardConfig, base, load_reward, reward_names, weigh
from researcher.train.rewards.groups import Consensus, Majority, majority
from researcher.train.rewards.lengths import repeated
from researcher.train.sample import Credit, Sample, Term
from researcher.types import FinishReason, Outcome, VerdictStatus

RIGHT, WRONG, UNVERIFIED = VerdictStatus.CORRECT, VerdictStatus.WRONG, VerdictStatus.UNVERIFIED
_numbers = iter(range(10**6))


def sample(length: int = 4, **given: Any) -> Sample:
    """A sample that sampled so many tokens, after two that were given; they differ from each other."""
    given = {"thread": f"t{next(_numbers)}", "answer": "4", "canonical": given.get("answer", "4")} | given
    ids = given.pop("ids", tuple(range(length)))
    return Sample(run="r", task="t", ids=(900, 901, *ids), mask=(False, False, *(True for _ in ids)), **given)


def gave(name: str, group: Sequence[Sample], **params: Any) -> list[float | None]:
    return list(load_reward(name, params)(group))


def test_every_reward_can_be_loaded_by_its_name() -> None:
    expected = "accuracy coin consensus cosine credit format kimi_length language overlong process repetition score"
    assert reward_names() == expected.split()


def test_a_coin_says_nothing_of_what_is_right_and_the_same_of_the_same_text() -> None:
    group = [sample(ids=(i, i + 1), verdict=RIGHT if i % 2 else WRONG) for i in range(400)]
    thrown = gave("coin", group, p=0.3)
    assert set(thrown) == {0.0, 1.0}
    for part in (thrown[::2], thrown[1::2]):
        assert sum(value or 0.0 for value in part) / 200 == pytest.approx(0.3, abs=0.1)
    assert gave("coin", group, p=0.3) == thrown
    assert gave("coin", group, p=0.3, seed=1) != thrown


UNJUDGED: list[dict[str, Any]] = [
    {"verdict": UNVERIFIED},
    {"verdict": None},
    {"verdict": None, "answer": None, "outcome": Outcome.CANCELLED},
    {"verdict": None, "answer": None, "outcome": Outcome.FAILED, "boundary": "model"},
    {"verdict": None, "answer": None, "outcome": Outcome.EXHAUSTED, "boundary": "budget"},
]


@pytest.mark.parametrize("name", ["accuracy", "cosine", "kimi_length"])
@pytest.mark.parametrize("given", UNJUDGED)
def test_what_nobody_can_judge_is_never_wrong(name: str, given: dict[str, Any]) -> None:
    params = {"limit": 100} if name == "cosine" else {}
    assert gave(name, [sample(**given), sample(verdict=RIGHT)], **params)[0] is None


@pytest.mark.parametrize("outcome", [Outcome.EXHAUSTED, Outcome.REFUSED])
def test_no_answer_of_its_own_accord_is_wrong(outcome: Outcome) -> None:
    assert gave("accuracy", [sample(answer=None, outcome=outcome), sample(verdict=WRONG)]) == [0.0, 0.0]
    assert gave("accuracy", [sample(verdict=RIGHT), sample(verdict=WRONG)], right=2, wrong=-1) == [2.0, -1.0]


def test_a_reply_that_ran_into_its_limit_is_wrong_or_filtered() -> None:
    cut: dict[str, Any] = {"finish": FinishReason.LENGTH, "outcome": Outcome.EXHAUSTED, "answer": None}
    group = [sample(**cut), sample(verdict=RIGHT, finish=FinishReason.LENGTH), sample(verdict=WRONG)]
    assert gave("accuracy", group) == [0.0, 1.0, 0.0]
    assert gave("accuracy", group, truncated="silent") == [None, 1.0, 0.0]
    refused = sample(answer=None, outcome=Outcome.REFUSED)
    assert gave("accuracy", [refused], truncated="silent") == [0.0]


THINKING = "<think>so</think>\n<answer>4</answer>"


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"text": THINKING}, True),
        ({"text": "<answer>4</answer>", "thought": "so"}, True),
        ({"text": f"\n{THINKING}\n"}, True),
        ({"text": "<answer>4</answer>"}, False),
        ({"text": f"{THINKING} and more"}, False),
        ({"text": f"before {THINKING}"}, False),
        ({"text": "<think>so</think><answer>4</answer><answer>5</answer>"}, False),
        ({"text": "<think>a<think>b</think></think><answer>4</answer>"}, False),
        ({"text": "<think> </think><answer>4</answer>"}, False),
        ({"text": "<think>so</think><answer></answer>"}, False),
        ({"text": "<answer>4</answer><think>so</think>"}, False),
        ({"text": THINKING, "finish": FinishReason.LENGTH}, False),
    ],
)
def test_format(given: dict[str, Any], holds: bool) -> None:
    assert gave("format", [sample(**given)]) == [float(holds)]


def test_format_without_a_thought_where_that_is_allowed() -> None:
    group = [sample(text="<answer>4</answer>"), sample(text="4"), sample(text="<think></think><answer>4</answer>")]
    assert gave("format", group, thought="optional") == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("thought", "target", "share"),
    [
        ("two and two", "en", 1.0),
        ("two und 二 sind", "en", 3 / 4),
        ("x = 2, y² > 0", "en", 1.0),
        ("", "en", 1.0),
        ("二加二 equals 四", "zh", 2 / 3),
        ("это two", "ru", 1 / 2),
        ("mixedслово", "en", 0.0),
        ("नमस्ते दुनिया hello", "hi", 2 / 3),
    ],
)
def test_language_is_the_share_of_words(thought: str, target: str, share: float) -> None:
    assert gave("language", [sample(thought=thought)], target=target) == [pytest.approx(share)]


def test_score_of_a_judge_as_scorer_or_as_verifier() -> None:
    both = sample(score=0.25, verdict=RIGHT, judged=0.75)
    group = [
        both,
        sample(verdict=WRONG, judged=0.25),
        sample(score=0.5),
        sample(verdict=UNVERIFIED, judged=0.0),
        sample(),
    ]
    assert gave("score", group) == [0.25, 0.25, 0.5, None, None]
    assert gave("score", group, of="scorer") == [0.25, None, 0.5, None, None]
    assert gave("score", group, of="verifier") == [0.75, 0.25, None, None, None]


@pytest.mark.parametrize(("aggregate", "value"), [("min", 0.25), ("prod", 0.09375), ("mean", 0.5), ("last", 0.5)])
def test_process_rewards_from_the_scores_of_steps(aggregate: str, value: float) -> None:
    assert gave("process", [sample(steps=(0.25, 0.75, 0.5)), sample()], aggregate=aggregate) == [value, None]


@pytest.mark.parametrize(
    ("length", "verdict", "reward"),
    [
        (0, RIGHT, 2.0),  # lo + (hi - lo) / 2 (1 + cos 0) = 1 + 1
        (50, RIGHT, 1.5),
        (25, RIGHT, 1.0 + 0.5 * (1.0 + math.cos(math.pi / 4))),
        (0, WRONG, -10.0),
        (50, WRONG, -5.0),
        (75, WRONG, -5.0 * (1.0 + math.cos(0.75 * math.pi))),
        (100, RIGHT, -10.0),
        (120, WRONG, -10.0),
    ],
)
def test_cosine(length: int, verdict: VerdictStatus, reward: float) -> None:
    assert gave("cosine", [sample(length, verdict=verdict)], limit=100) == [pytest.approx(reward)]


def test_cosine_counts_the_unfinished_as_wrong_and_too_long() -> None:
    assert gave("cosine", [sample(100, answer=None, outcome=Outcome.EXHAUSTED)], limit=100) == [-10.0]


@pytest.mark.parametrize(
    ("ids", "n", "count"),
    [
        ((1, 2, 3, 4), 2, 0),
        ((1, 2, 1, 2), 2, 2),
        ((1, 1, 1, 1), 2, 3),  # the grams at 1 and 2 equal the one at 0; they cover tokens 1, 2, 3
        ((1, 2, 3, 1, 2, 3, 1, 2, 3), 3, 6),
        ((1, 2, 9, 1, 2, 8, 1, 2), 2, 4),
        ((1,), 2, 0),
    ],
)
def test_repetition_counts_each_token_of_a_repeated_gram_once(ids: tuple[int, ...], n: int, count: int) -> None:
    assert repeated(ids, n) == count
    assert gave("repetition", [sample(ids=ids)], n=n) == [pytest.approx(-0.05 * count)]


def test_kimis_length_reward() -> None:
    group = [sample(10, verdict=RIGHT), sample(20, verdict=RIGHT), sample(30, verdict=RIGHT), sample(15, verdict=WRONG),
             sample(25, verdict=WRONG), sample(99, verdict=UNVERIFIED)]  # fmt: skip
    assert gave("kimi_length", group) == pytest.approx([0.5, 0.0, -0.5, 0.0, -0.25, None])
    assert gave("kimi_length", [sample(7, verdict=RIGHT), sample(7, verdict=WRONG)]) == [0.0, 0.0]


def test_kimis_length_is_that_of_all_contexts_of_a_thread() -> None:
    parts = [sample(5, thread="a", part=part, parts=2, verdict=RIGHT) for part in (0, 1)]
    group = [*parts, sample(20, verdict=RIGHT), sample(15, verdict=RIGHT)]
    assert gave("kimi_length", group) == pytest.approx([0.5, 0.5, -0.5, 0.0])


@pytest.mark.parametrize(("length", "reward"), [(60, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (500, -1.0)])
def test_soft_overlong(length: int, reward: float) -> None:
    assert gave("overlong", [sample(length)], limit=100, cache=20) == [pytest.approx(reward)]


def test_overlong_by_default_is_daposs() -> None:
    assert gave("overlong", [sample(16_384), sample(18_432), sample(20_480)]) == pytest.approx([0.0, -0.5, -1.0])
    with pytest.raises(UserError, match="cache must not exceed limit"):
        load_reward("overlong", {"limit": 10, "cache": 20})


def voted(*answers: str | None) -> list[Sample]:
    return [sample(answer=answer) for answer in answers]


def test_consensus_is_the_mode_and_the_first_of_equals() -> None:
    assert gave("consensus", voted("4", "5", "4", None)) == [1.0, 0.0, 1.0, 0.0]
    assert gave("consensus", voted("5", "4", "4", "5")) == [1.0, 0.0, 0.0, 1.0]
    assert gave("consensus", voted("4", None)) == [None, None]
    assert gave("consensus", voted("4", "4", "5"), share=0.7) == [None] * 3
    assert gave("consensus", [*voted("4"), *(sample(thread="a", answer="5", part=i, parts=2) for i in (0, 1))]) == [
        1,
        0,
        0,
    ]


def test_majority_says_how_often_and_whether_it_was_right() -> None:
    group = [
        sample(answer="4", verdict=WRONG),
        sample(answer="4"),
        sample(answer="5", verdict=RIGHT),
        sample(answer=None),
    ]
    assert majority(group) == Majority("4", pytest.approx(2 / 3), 3, False)
    assert majority(voted("4", "5")) == Majority("4", 0.5, 2, None)
    assert majority(voted(None)) is None


@pytest.mark.parametrize(
    ("credit", "reward"),
    [
        (None, None),
        (Credit(), 0.0),
        (Credit(voted=True, used=True), 0.5),
        (Credit(used=True), 0.25),
        (Credit(voted=True, used=True, claims=4, cited=3, upheld=3), 0.5 + 0.375),
        (Credit(voted=True, used=True, claims=2, cited=2, upheld=1, contradicted=1), 0.5),
        (Credit(claims=1, cited=1, contradicted=1), -0.5),
        (Credit(voted=True, used=True, refuted=True, claims=1, cited=1, upheld=1), 0.0),
    ],
)
def test_credit_of_use_and_support(credit: Credit | None, reward: float | None) -> None:
    assert gave("credit", [sample(credit=credit)], used=0.25) == [reward]


def test_weighing_sums_with_weights_and_names_each_term() -> None:
    terms = [RewardConfig(name="accuracy"), RewardConfig(name="overlong", weight=0.5, params={"limit": 8, "cache": 4})]
    right, silent = weigh([sample(6, verdict=RIGHT), sample(verdict=UNVERIFIED)], terms)
    assert silent is None
    assert right is not None
    assert right.terms == (Term("accuracy", 1.0, 1.0), Term("overlong", -0.5, 0.5))
    assert right.reward == 0.75
    again = weigh([right], terms)
    assert again[0] == right, "terms are not counted twice"
    assert weigh([], terms) == []


def bad(value: object) -> Any:
    return lambda: lambda group: [value] * len(group)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1.0", {}])
def test_a_reward_that_is_no_finite_number_is_refused(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_loaded", lambda name: bad(value))
    with pytest.raises(UserError, match=r"The reward odd gave .* for thread tea of run r\."):
        weigh([sample(thread="tea")], [RewardConfig(name="odd")])


def test_a_reward_that_raises_or_miscounts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(group: Sequence[Sample]) -> list[float]:
        raise ZeroDivisionError("no steps")

    monkeypatch.setattr(base, "_loaded", lambda name: lambda: broken)
    with pytest.raises(UserError, match="The reward odd raised ZeroDivisionError: no steps"):
        weigh([sample()], [RewardConfig(name="odd")])
    monkeypatch.setattr(base, "_loaded", lambda name: lambda: lambda group: [1.0])
    with pytest.raises(UserError, match="The reward odd gave 1 values for 2 samples"):
        weigh([sample(), sample()], [RewardConfig(name="odd")])


def test_unknown_names_parameters_and_weights_are_told() -> None:
    with pytest.raises(UserError, match="no reward 'acuracy'; did you mean accuracy"):
        load_reward("acuracy")
    with pytest.raises(UserError, match="Reward cosine, parameter 'limit'"):
        load_reward("cosine", {"limit": 0})
    with pytest.raises(UserError, match="Reward language, parameter 'target'"):
        load_reward("language", {"target": "klingon"})
    with pytest.raises(ValidationError):
        RewardConfig(name="accuracy", weight=math.nan)
    with pytest.raises(ValidationError):
        Consensus(least=0)
