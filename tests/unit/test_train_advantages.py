"""Advantages: each definition by hand, degenerate groups, trees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from researcher.train.advantages import AdvantageConfig, group_advantages, token_advantages, tree_of
from researcher.train.sample import NodeSpan, Sample


def test_the_std_of_a_group_is_what_it_is_said_to_be() -> None:
    rewards, groups = [1.0, 0.0, 0.0, 1.0, 5.0, 7.0], ["a", "a", "a", "a", "b", "b"]
    sample = group_advantages(rewards, groups, AdvantageConfig(ddof=1, epsilon=1e-4))
    assert sample[:4] == pytest.approx(np.array([1, -1, -1, 1]) * 0.5 / (math.sqrt(1 / 3) + 1e-4))
    assert sample[4:] == pytest.approx(np.array([-1, 1]) / (math.sqrt(2) + 1e-4))
    population = group_advantages(rewards, groups, AdvantageConfig(ddof=0, epsilon=0.0))
    assert population == pytest.approx([1, -1, -1, 1, -1, 1])


def test_the_other_scales_and_baselines() -> None:
    rewards, groups = [1.0, 0.0, 0.0, 0.0], ["a"] * 4
    assert group_advantages(rewards, groups, AdvantageConfig(scale="none")) == pytest.approx([0.75, *[-0.25] * 3])
    assert group_advantages(rewards, groups, AdvantageConfig(scale="mean", epsilon=0.0)) == pytest.approx(
        [3, -1, -1, -1]
    )
    rloo = group_advantages(rewards, groups, AdvantageConfig(baseline="leave_one_out", scale="none"))
    assert rloo == pytest.approx([1.0, *[-1 / 3] * 3])
    mirror = group_advantages(rewards, groups, AdvantageConfig(baseline="mirror", tau=0.5))
    assert mirror == pytest.approx(np.array(rewards) - 0.5 * math.log((math.exp(2) + 3) / 4))


def test_batch_std_divides_all_groups_by_one_number() -> None:
    rewards, groups = [1.0, 0.0, 0.0, 4.0], ["a", "a", "b", "b"]
    found = group_advantages(rewards, groups, AdvantageConfig(scale="batch_std", epsilon=0.0))
    assert found == pytest.approx(np.array([0.5, -0.5, -2.0, 2.0]) / np.std(rewards, ddof=1))


@pytest.mark.parametrize(
    "config",
    [AdvantageConfig(), AdvantageConfig(baseline="leave_one_out"), AdvantageConfig(scale="mean", epsilon=1e-6)],
)
def test_a_group_without_variance_teaches_nothing(config: AdvantageConfig) -> None:
    assert group_advantages([1.0] * 4, ["a"] * 4, config) == pytest.approx([0.0] * 4)
    assert group_advantages([1.0], ["a"], config) == pytest.approx([0.0])


def test_a_reward_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="reward 2 of 3 is nan"):
        group_advantages([1.0, float("nan"), 0.0], ["a"] * 3, AdvantageConfig())


def sample(name: str, *nodes: str) -> Sample:
    """A prompt of two tokens, then two sampled ones for each node."""
    spans = [NodeSpan("prompt", 0, 2), *(NodeSpan(node, 2 + 2 * i, 4 + 2 * i) for i, node in enumerate(nodes))]
    length = 2 + 2 * len(nodes)
    return Sample(
        run="r", thread=name, task="t", ids=tuple(range(length)), mask=(False, False, *[True] * (length - 2)),
        nodes=tuple(spans),
    )  # fmt: skip


TREE = [sample("1", "x", "xa"), sample("2", "x", "xb"), sample("3", "y", "ya"), sample("4", "y", "yb")]
REWARDS = [1.0, 0.0, 0.0, 0.0]


def test_without_a_tree_every_token_has_its_samples_advantage() -> None:
    found = token_advantages(TREE, REWARDS, AdvantageConfig(scale="none"))
    assert [list(a) for a in found] == [[0.75] * 6, [-0.25] * 6, [-0.25] * 6, [-0.25] * 6]


def test_inter_and_intra_tree_advantages_add_up() -> None:
    assert [tree_of(each) for each in TREE] == [("r", "x")] * 2 + [("r", "y")] * 2
    found = token_advantages(TREE, REWARDS, AdvantageConfig(scale="none", tree="inter_intra"))
    assert [a[3] for a in found] == pytest.approx([0.75 + 0.5, -0.25 - 0.5, -0.25, -0.25])


def test_node_values_credit_the_step_that_changed_the_odds() -> None:
    found = token_advantages(TREE, REWARDS, AdvantageConfig(tree="nodes"))
    assert list(found[0]) == pytest.approx([0, 0, 0.25, 0.25, 0.5, 0.5])  # root .25, x .5, xa 1
    assert list(found[1]) == pytest.approx([0, 0, 0.25, 0.25, -0.5, -0.5])
    assert list(found[2]) == pytest.approx([0, 0, -0.25, -0.25, 0.0, 0.0])


def test_treerl_by_hand() -> None:
    found = token_advantages(TREE, REWARDS, AdvantageConfig(tree="treerl"))
    leaf = np.array([1.0, -1 / 3, -1 / 3, -1 / 3])
    x, y = leaf[:2].sum() / math.sqrt(2), leaf[2:].sum() / math.sqrt(2)
    mean = (2 * x + 2 * y + 2 * leaf.sum()) / 12
    assert list(found[0][2:]) == pytest.approx([x - mean] * 2 + [leaf[0] - mean] * 2)
    assert list(found[3][2:]) == pytest.approx([y - mean] * 2 + [leaf[3] - mean] * 2)
    shared = {"x": found[0][2] * 2, "y": found[2][2] * 2}
    assert sum(shared.values()) + 2 * sum(a[4] for a in found) == pytest.approx(0.0)


def test_a_thread_of_two_contexts_counts_once_in_its_group() -> None:
    def part(thread: str, number: int, parts: int) -> Sample:
        return Sample(run="r", thread=thread, task="t", ids=(1, 2), mask=(False, True), part=number, parts=parts)

    samples = [part("a", 0, 2), part("a", 1, 2), part("b", 0, 1), part("c", 0, 1)]
    config = AdvantageConfig(scale="none")
    found = [float(each[0]) for each in token_advantages(samples, [1.0, 1.0, 0.0, 0.0], config)]
    assert found == pytest.approx([2 / 3, 2 / 3, -1 / 3, -1 / 3])  # and not [1/2, 1/2, -1/2, -1/2]
    alone = [part(name, 0, 1) for name in "aabc"]  # one context each, whatever they are called
    assert [float(each[0]) for each in token_advantages(alone, [1.0, 1.0, 0.0, 0.0], config)] == [0.5, 0.5, -0.5, -0.5]
    threads = ["a", "a", "b", "c"]
    grpo = group_advantages([1.0, 0.5, 0.0, 0.0], ["t"] * 4, AdvantageConfig(epsilon=0.0), threads)
    once = group_advantages([0.75, 0.0, 0.0], ["t"] * 3, AdvantageConfig(epsilon=0.0))
    assert grpo == pytest.approx(once[[0, 0, 1, 2]])
