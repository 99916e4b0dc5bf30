"""What an early stop saves at identical samples: the real vote, replayed over the samples that full votes took.

Each sample takes as long as it has tokens, `width` at a time; a thread that is stopped has sampled as much as its time
allowed. So the stops are compared on the very same samples, which two sets of runs on a server would not give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from researcher.evals.record import Result, Sample
from researcher.protocols import BudgetLeft
from researcher.strategies.vote import Vote
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, VerdictStatus, Work


class Saving(NamedTuple):
    """A stop against the full vote over the same samples: shares of tokens saved and of answers that are the same."""

    strategy: str
    stop: str
    width: int
    runs: int
    saved: float
    samples: float
    """How many it started, on average."""
    same: float
    accuracy: float
    full_accuracy: float


class _Replayed(NamedTuple):
    answer: str | None
    right: bool
    tokens: float
    started: int


def savings(strategy: str, results: Iterable[Result], *, widths: Sequence[int]) -> list[Saving]:
    """What each stop would have saved of these full votes, at each number of threads at once."""
    runs = [run for run in results if len(run.samples) > 1 and run.status is not VerdictStatus.UNVERIFIED]
    found = []
    for width in dict.fromkeys(widths):
        full = [replay(run.samples, Vote(n=len(run.samples), stop="full"), width) for run in runs]
        for stop in ("lossless", "beta"):
            early = [replay(run.samples, Vote(n=len(run.samples), stop=stop), width) for run in runs]
            if runs:
                found.append(_compared(strategy, stop, width, full, early))
    return found


def _compared(strategy: str, stop: str, width: int, full: Sequence[_Replayed], early: Sequence[_Replayed]) -> Saving:
    n = len(full)
    return Saving(
        strategy=strategy,
        stop=stop,
        width=width,
        runs=n,
        saved=1.0 - sum(each.tokens for each in early) / max(sum(each.tokens for each in full), 1.0),
        samples=sum(each.started for each in early) / n,
        same=sum(a.answer == b.answer for a, b in zip(full, early, strict=True)) / n,
        accuracy=sum(each.right for each in early) / n,
        full_accuracy=sum(each.right for each in full) / n,
    )


def replay(samples: Sequence[Sample], vote: Vote, width: int) -> _Replayed:
    """How the vote goes over these samples, in this order."""
    now = 0.0
    began: dict[str, float] = {}

    def clock(simulation: Simulation) -> BudgetLeft:
        nonlocal now
        now = simulation.seconds
        return UNLIMITED

    def reply(work: Work) -> Reply:
        began[work.key] = now
        sample = samples[_index(work)]
        if sample.answer is None:
            return Reply(seconds=float(sample.completion), outcome=Outcome.EXHAUSTED)
        return Reply(f"<answer>{sample.answer}</answer>", seconds=float(sample.completion))

    ended = simulate(vote, Task(question="?"), reply, slots=width, budget=clock)
    index = {key: _index_of(key) for key in ended.started}
    cancelled = set(ended.cancelled)
    tokens = sum(
        min(ended.seconds - began[key], samples[i].completion) if key in cancelled else samples[i].completion
        for key, i in index.items()
    )
    answer = None if ended.answer is None else ended.answer.canonical
    right = any(s.canonical == answer and s.status is VerdictStatus.CORRECT for s in samples if s.answer is not None)
    return _Replayed(answer, answer is not None and right, tokens, len(ended.started))


def _index(work: Work) -> int:
    return _index_of(work.key)


def _index_of(key: str) -> int:
    """The number of the sample in a vote's key, `vote/7`."""
    return int(key.rpartition("/")[2])
