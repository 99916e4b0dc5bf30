from __future__ import annotations

import random

import pytest

from researcher.train.diagnosis import Diagnosis, DiagnosisConfig, trend


def curve(rise: float, *, seed: int, n: int = 50, noise: float = 0.03, start: float = 0.2) -> list[float]:
    rng = random.Random(seed)
    return [start + rise * i / (n - 1) + rng.gauss(0.0, noise) for i in range(n)]


def said(rewards: list[float], *, informative: float = 0.6, config: DiagnosisConfig = DiagnosisConfig()) -> list[str]:
    diagnosis = Diagnosis(config)
    return [
        finding
        for reward in rewards
        for finding in diagnosis.see({"reward": reward, "reward/accuracy": reward, "informative": informative})
    ]


def test_a_trend_is_that_of_least_squares() -> None:
    rise, error = trend([0.0, 1.0, 1.0, 2.0])
    assert rise == pytest.approx(1.8)  # slope .6 over three steps
    # residuals .1, .3, -.3 and -.1 about .1 + .6 i: .2 over two degrees of freedom, and 5 about the mean of i
    assert error == pytest.approx((0.2 / 2 / 5) ** 0.5 * 3)
    assert trend([0.5, 0.5, 0.5]) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_a_reward_that_climbs_is_not_called_stuck(seed: int) -> None:
    assert not said(curve(0.3, seed=seed))


def test_a_reward_that_says_nothing_is_named_within_fifty_iterations() -> None:
    named = [said(curve(0.0, seed=seed)) for seed in range(40)]
    assert sum(any("no progress" in each for each in findings) for findings in named) >= 38


def test_a_reward_at_its_top_need_not_rise() -> None:
    assert not said(curve(0.0, seed=0, start=0.97, noise=0.005))


def test_few_right_samples_are_a_weak_signal_and_none_at_all_is_no_signal() -> None:
    (weak,) = said([0.012] * 12, informative=0.15)
    assert weak.startswith("weak signal: 1.2% of the samples")
    diagnosis = Diagnosis()
    for _ in range(10):
        found = diagnosis.see({"reward": 0.0, "reward/accuracy": 0.0, "informative": 0.0})
    assert [each.partition(":")[0] for each in found] == ["no signal"]
    assert diagnosis.hopeless


def test_a_climb_that_flattens_out_was_progress() -> None:
    assert not said(curve(0.4, seed=1) + curve(0.0, seed=2, start=0.6))


def test_a_sentence_is_said_once_until_it_has_gone_away() -> None:
    diagnosis = Diagnosis(DiagnosisConfig(window=5))
    entropies = [0.5] * 5 + [0.01] * 10 + [0.5] * 5 + [0.01] * 10
    findings = [each for entropy in entropies for each in diagnosis.see({"informative": 0.5, "entropy": entropy})]
    assert [each.partition(":")[0] for each in findings] == ["entropy collapse", "entropy collapse"]


def test_entropy_that_was_low_from_the_beginning_has_not_collapsed() -> None:
    for entropies, found in (([0.012] * 30, []), ([0.018] * 10 + [0.004] * 20, ["entropy collapse"])):
        diagnosis = Diagnosis(DiagnosisConfig())
        findings = [each for entropy in entropies for each in diagnosis.see({"informative": 0.5, "entropy": entropy})]
        assert [each.partition(":")[0] for each in findings] == found
