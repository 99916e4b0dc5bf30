"""How old the weights are that sampled what is learned from, in versions; who is too old is left out and counted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from researcher.train.advantages import token_advantages
from researcher.train.batch import Batch
from researcher.train.partial import newest
from researcher.train.sample import Sample
from researcher.train.trainer import Metrics, Trainer


class Fresh(NamedTuple):
    """Samples that are not too old, in their order, and what is known of the age of all."""

    samples: list[Sample]
    metrics: Metrics


def fresh(samples: Sequence[Sample], versions: Sequence[str], bound: int, *, masked: bool = False) -> Fresh:
    """The samples of which nothing that is learned was sampled more than `bound` versions before the last of
    `versions`, the names of the weights in the order of their use.

    `masked`: of a sample, only what its newest weights sampled is learned. Above a bound of 0, a sample that does not
    say whose it is, or has no logprobs to correct by, is left out too. With a bound of 0 nothing is left out: there
    nothing can be old, and if something is (the server did not take the weights), the figures say so.
    """
    ages = [_age(sample, versions, masked=masked) for sample in samples]
    if not bound:
        kept = list(samples)
    else:
        kept = [s for s, age in zip(samples, ages, strict=True) if s.logprobs and age is not None and age[1] <= bound]
    known = [age for age in ages if age is not None]
    unknown = sum(bool(s.versions) and age is None for s, age in zip(samples, ages, strict=True))
    metrics: Metrics = {"staleness/bound": float(bound), "staleness/dropped": float(len(samples) - len(kept))}
    metrics["staleness/unknown"] = float(unknown)
    if known:
        metrics["staleness/mean"] = statistics.fmean(mean for mean, _ in known)
        metrics["staleness/max"] = float(max(oldest for _, oldest in known))
    return Fresh(kept, metrics)


def _age(sample: Sample, versions: Sequence[str], *, masked: bool) -> tuple[float, int] | None:
    """The mean age of a sample's learned tokens and that of the oldest, in versions; None where it is not known."""
    now, places = len(versions) - 1, {name: place for place, name in enumerate(versions)}
    if not sample.versions or any(span.version not in places for span in sample.versions):
        return None
    learned = newest(sample) if masked else np.asarray(sample.mask, dtype=bool)
    counts = [(now - places[span.version], int(learned[span.start : span.end].sum())) for span in sample.versions]
    counts = [(age, count) for age, count in counts if count]
    if not counts:
        return 0.0, 0
    return sum(age * count for age, count in counts) / sum(count for _, count in counts), max(age for age, _ in counts)


def update_newest(trainer: Trainer, samples: Sequence[Sample]) -> list[Metrics]:
    """An iteration that learns of each sample what its newest weights sampled; the rest is context, and counts in no
    denominator. Rewards and advantages are those of whole rollouts."""
    rewards = [sample.reward for sample in samples]
    batch = Batch.of(samples, token_advantages(samples, rewards, trainer.config.advantages))
    counted = torch.from_numpy(np.concatenate([newest(sample) for sample in samples]))
    batch.policy = (batch.mask & counted).float()
    return trainer.learn(batch)
