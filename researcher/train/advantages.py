"""Advantages from rewards: of a group of siblings, of a tree, and of the thought graph. Plain numpy, no model.

Whether the standard deviation is that of a sample (`ddof=1`) or of a population, and what is added to it, differs from
trainer to trainer (TRL: 1 and 1e-4; verl: 1 and 1e-6; TRL's asynchronous trainer: 0 and 1e-8), so both are explicit.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from researcher.train.sample import Sample

Array = NDArray[np.float64]
Node = tuple[str, str]
Baseline = Literal["group", "leave_one_out", "mirror"]
Scale = Literal["std", "none", "mean", "batch_std"]


class AdvantageConfig(BaseModel):
    """How rewards become advantages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: Baseline = Field(default="group", description="group mean, RLOO's leave-one-out, or Kimi's tau log Z")
    scale: Scale = Field(default="std", description="divide by the group's std (GRPO), none (Dr. GRPO), mean (MaxRL)")
    ddof: int = Field(default=1, ge=0, le=1, description="1: std of a sample (TRL, verl); 0: of a population")
    epsilon: float = Field(default=1e-4, ge=0.0, description="added to the std (TRL: 1e-4, verl: 1e-6)")
    tau: float = Field(default=0.1, gt=0.0, description="temperature of log Z for `mirror`")
    tree: Literal["off", "inter_intra", "treerl", "nodes"] = Field(
        default="off",
        description="credit from the tree: Tree-GRPO's two groups, TreeRL's, or differences of node values",
    )


def group_advantages(
    rewards: Sequence[float],
    groups: Sequence[Hashable],
    config: AdvantageConfig,
    threads: Sequence[Hashable] | None = None,
) -> Array:
    """The advantage of each sample, [S]. A group of one has nothing to be compared with: 0.

    `threads`: whose sample each one is. Those of one thread (its contexts) count once in their group, with their mean
    reward, and have one advantage. Raises ValueError for a reward that is not a finite number.
    """
    if threads is not None and len(set(threads)) < len(threads):
        return _once(rewards, groups, config, threads)
    values = np.asarray(rewards, dtype=np.float64)
    if not (finite := np.isfinite(values)).all():
        wrong = int(np.flatnonzero(~finite)[0])
        raise ValueError(f"reward {wrong + 1} of {len(values)} is {values[wrong]}, not a finite number")
    out = np.zeros_like(values)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    for indices in members.values():
        out[indices] = _of_group(values[indices], config)
    if config.scale == "batch_std":
        out /= values.std(ddof=min(config.ddof, max(0, len(values) - 1))) + config.epsilon
    return out


def _once(
    rewards: Sequence[float], groups: Sequence[Hashable], config: AdvantageConfig, threads: Sequence[Hashable]
) -> Array:
    """Group advantages of threads, given to each of their samples."""
    places: dict[Hashable, int] = {}
    at = [places.setdefault(thread, len(places)) for thread in threads]
    values: list[list[float]] = [[] for _ in places]
    group_of: list[Hashable] = [None] * len(places)
    for place, value, group in zip(at, rewards, groups, strict=True):
        values[place].append(value)
        group_of[place] = group
    means = [sum(each) / len(each) for each in values]
    return np.asarray(group_advantages(means, group_of, config)[at])


def _of_group(rewards: Array, config: AdvantageConfig) -> Array:
    count = len(rewards)
    if count == 1:
        return np.zeros(1)
    if config.baseline == "mirror":  # Kimi k1.5: tau log of the mean of exp(r / tau)
        scaled = rewards / config.tau
        top = scaled.max()
        return np.asarray(rewards - config.tau * (top + np.log(np.exp(scaled - top).mean())))
    centred = rewards - rewards.mean()
    if config.baseline == "leave_one_out":  # RLOO, Ahmadian et al. 2024
        centred = centred * count / (count - 1)
    if config.scale == "std":
        return np.asarray(centred / (rewards.std(ddof=config.ddof) + config.epsilon))
    if config.scale == "mean":  # MaxRL
        return np.asarray(centred / (rewards.mean() + config.epsilon))
    return np.asarray(centred)


def token_advantages(samples: Sequence[Sample], rewards: Sequence[float], config: AdvantageConfig) -> list[Array]:
    """The advantage of each token of each sample, each [T]; with `tree`, a node is credited for all that share it."""
    groups = [sample.task for sample in samples]
    # A conversation that its server rendered anew is several samples of one thread.
    threads = [(s.run, s.thread) if s.parts > 1 else index for index, s in enumerate(samples)]
    outcome = group_advantages(rewards, groups, config, threads)
    if config.tree == "off":
        return [np.full(len(sample.ids), value) for sample, value in zip(samples, outcome, strict=True)]
    if config.tree == "inter_intra":
        trees = [tree_of(sample) for sample in samples]
        outcome = outcome + group_advantages(rewards, trees, config, list(zip(trees, threads, strict=True)))
        return [np.full(len(sample.ids), value) for sample, value in zip(samples, outcome, strict=True)]
    credit = _treerl if config.tree == "treerl" else _differences
    found: list[Array] = [np.zeros(len(sample.ids)) for sample in samples]
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    for indices in members.values():
        by_node = credit([samples[i] for i in indices], np.asarray([rewards[i] for i in indices]))
        for i in indices:
            for span in samples[i].nodes:
                found[i][span.start : span.end] = by_node.get((samples[i].run, span.node), 0.0)
    return found


def tree_of(sample: Sample) -> tuple[str, str]:
    """The tree a sample belongs to: samples of one run whose first sampled node is the same."""
    for span in sample.nodes:
        if any(sample.mask[span.start : span.end]):
            return sample.run, span.node
    return sample.run, sample.thread


def _leaves(samples: Sequence[Sample]) -> dict[Node, list[int]]:
    """For each sampled node the samples that go through it."""
    below: dict[Node, list[int]] = {}
    for index, sample in enumerate(samples):
        for span in sample.nodes:
            if any(sample.mask[span.start : span.end]):
                below.setdefault((sample.run, span.node), []).append(index)
    return below


def _treerl(samples: Sequence[Sample], rewards: Array) -> dict[Node, float]:
    """TreeRL (Hou et al. 2025): of a node, the sum of its leaves' leave-one-out advantages over the root of their
    number; then the mean over tokens is taken off, so that the tree as a whole neither gains nor loses."""
    count = len(rewards)
    if count < 2:
        return {}
    leaf = (rewards - rewards.mean()) * count / (count - 1)
    below = _leaves(samples)
    values = {node: float(leaf[indices].sum()) / len(indices) ** 0.5 for node, indices in below.items()}
    tokens: dict[Node, int] = {}
    for sample in samples:
        for span in sample.nodes:
            if (node := (sample.run, span.node)) in values:
                tokens[node] = sum(sample.mask[span.start : span.end])
    total = sum(tokens.values())
    mean = sum(values[node] * n for node, n in tokens.items()) / total if total else 0.0
    return {node: value - mean for node, value in values.items()}


def _differences(samples: Sequence[Sample], rewards: Array) -> dict[Node, float]:
    """The value of a node less that of the node before it, a value being the mean reward of the leaves below (VinePPO's
    advantage, Kazemnejad et al. 2024, with the tree's own leaves as rollouts)."""
    below = _leaves(samples)
    values = {node: float(rewards[indices].mean()) for node, indices in below.items()}
    root = float(rewards.mean())
    out: dict[Node, float] = {}
    for sample in samples:
        before = root
        for span in sample.nodes:
            if (node := (sample.run, span.node)) in values:
                out[node] = values[node] - before
                before = values[node]
    return out
