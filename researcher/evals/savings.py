"""What an early stop saves at identical samples: the real vote, replayed over the samples that full votes took.

Each sample takes as long as it has tokens, `width` at a time; a thread that is stopped has sampled as much as its time
allowed. So the stops are compared on the very same samples, which two sets of runs on a server would not give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from researcher.evals.record import Result, Sample
from researcher.strategies.vote import Vote
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Outcome, Task, VerdictStatus, Work
from researcher.views import BudgetLeft

Stop = Literal["lossless", "beta"]
STOPS: tuple[Stop, ...] = get_args(Stop)
USUAL = 16
"""The number of samples that the literature and our default stop early."""


class Saving(NamedTuple):
    """A stop against the full vote over the same samples: shares of tokens saved and of answers that are the same."""

    strategy: str
    n: int
    stop: Stop
    width: int
    """Threads at once."""
    runs: int
    saved: float
    begun: float
    """How many samples it began, on average."""
    same: float
    accuracy: float
    full_accuracy: float


class _Replayed(NamedTuple):
    answer: str | None
    right: bool
    tokens: float
    started: int


def savings(strategy: str, results: Iterable[Result], *, widths: Sequence[int]) -> list[Saving]:
    """What each stop would have saved of these full votes, and of their first `USUAL` samples, at each width."""
    runs = [run for run in results if len(run.samples) > 1 and run.status is not VerdictStatus.UNVERIFIED]
    most = max((len(run.samples) for run in runs), default=0)
    found = []
    for n in sorted({most, USUAL}) if most > USUAL else [most]:
        samples = [run.samples[:n] for run in runs]
        full = [replay(each, Vote(n=len(each), stop="full"), len(each)) for each in samples]
        for width in dict.fromkeys(widths):
            for stop in STOPS:
                early = [replay(each, Vote(n=len(each), stop=stop), width) for each in samples]
                if full:
                    found.append(_compared((strategy, n, stop, width), full, early))
    return found


def _compared(what: tuple[str, int, Stop, int], full: Sequence[_Replayed], early: Sequence[_Replayed]) -> Saving:
    runs = len(full)
    return Saving(
        *what,
        runs=runs,
        saved=1.0 - sum(each.tokens for each in early) / max(sum(each.tokens for each in full), 1.0),
        begun=sum(each.started for each in early) / runs,
        same=sum(a.answer == b.answer for a, b in zip(full, early, strict=True)) / runs,
        accuracy=sum(each.right for each in early) / runs,
        full_accuracy=sum(each.right for each in full) / runs,
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
        sample = samples[_index(work.key)]
        if sample.answer is None:
            return Reply(seconds=float(sample.completion), outcome=Outcome.EXHAUSTED)
        return Reply(f"<answer>{sample.answer}</answer>", seconds=float(sample.completion))

    ended = simulate(vote, Task(question="?"), reply, slots=width, budget=clock)
    index = {key: _index(key) for key in ended.started}
    cancelled = set(ended.cancelled)
    tokens = sum(
        min(ended.seconds - began[key], samples[i].completion) if key in cancelled else samples[i].completion
        for key, i in index.items()
    )
    answer = None if ended.answer is None else ended.answer.canonical
    right = any(s.canonical == answer and s.status is VerdictStatus.CORRECT for s in samples if s.answer is not None)
    return _Replayed(answer, answer is not None and right, tokens, len(ended.started))


def _index(key: str) -> int:
    """The number of the sample in a vote's key, `vote/7`."""
    return int(key.rpartition("/")[2])
