"""DeepConf (Fu et al. 2025, "Deep Think with Confidence"): how sure a trace is of its tokens, and who may vote by it.

C_t = -(1/k) * sum of the logprobs of the k most likely tokens at t (`ThreadInfo.confidence`). A group is a window of
consecutive tokens, its confidence their mean; a trace shorter than the window is one group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

from researcher.strategies.votes import Ballot, Tally, ThreadBallots
from researcher.views import ThreadInfo

Measure = Literal["mean", "tail", "bottom", "lowest"]
"""Of all tokens; of the last window; of the least confident tenth of the groups; of the least confident group."""

TOP = 20
"""Alternatives of each token that its confidence is taken over."""

BOTTOM = 0.1

ETA = {"low": 10, "high": 90}
"""The percentage of traces that the floor lets through."""


def group_confidences(confidence: Sequence[float], window: int) -> list[float]:
    """The sliding means over `window` tokens; one mean of all where there are fewer."""
    if len(confidence) <= window:
        return [sum(confidence) / len(confidence)] if confidence else []
    sums = list(accumulate(confidence, initial=0.0))
    return [(after - before) / window for before, after in zip(sums, sums[window:], strict=False)]


def trace_confidence(confidence: Sequence[float], measure: Measure, window: int) -> float | None:
    """One confidence of a trace; None where its tokens have none."""
    if not confidence:
        return None
    match measure:
        case "mean":
            return sum(confidence) / len(confidence)
        case "tail":
            tail = confidence[-window:]
            return sum(tail) / len(tail)
        case "bottom":
            groups = sorted(group_confidences(confidence, window))
            lowest = groups[: max(1, int(len(groups) * BOTTOM))]
            return sum(lowest) / len(lowest)
        case "lowest":
            return min(group_confidences(confidence, window))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them lie, interpolated between neighbours. Needs one value at least."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def keep_best(ballots: Sequence[Ballot[ThreadInfo]], share: float) -> Tally[ThreadInfo]:
    """The votes of the most confident `share` of the traces, weighted by their confidence (offline)."""
    floor = percentile([ballot.weight for ballot in ballots], 100 * (1 - share)) if ballots else 0.0
    kept = Tally[ThreadInfo]()
    for place, ballot in enumerate(ballots):
        if ballot.weight >= floor:
            kept.add(ballot.canonical, place, ballot.item, ballot.weight)
    return kept


class OnlineBallots(ThreadBallots):
    """Votes that wait until `warmup` threads have set the floor; what falls below it does not vote (online).

    `floor` is the percentile 100 - eta of the lowest group confidences of the first `warmup` threads.
    """

    def __init__(
        self, warmup: int, eta: int, window: int, stop: Callable[[Tally[ThreadInfo]], bool] | None = None
    ) -> None:
        super().__init__(self._lowest_above_the_floor, None if stop is None else self._warmed_up)
        self._rule = stop
        self.floor: float | None = None
        self._warmup, self._eta, self._window = warmup, eta, window
        self._held: dict[int, ThreadInfo] = {}

    def _warmed_up(self, prefix: Tally[ThreadInfo]) -> bool:
        """Whether the votes are enough, which counts from the end of the warm-up on, however few of it may vote."""
        return self._rule is not None and self.settled >= self._warmup and self._rule(prefix)

    @property
    def pending(self) -> int:
        """How many are out; those that wait for the floor are not."""
        return len(self.out)

    def end(self, place: int, thread: ThreadInfo) -> None:
        """Take in a thread that has ended."""
        if self.floor is not None:
            super().end(place, thread)
            return
        self._held[place] = thread
        if all(place in self._held for place in range(self._warmup)):
            self.set_floor()

    def set_floor(self) -> None:
        """Judge those that wait by the warm-up threads that there are; nothing where none has a confidence."""
        warm = [thread for place, thread in self._held.items() if place < self._warmup]
        lowest = [trace_confidence(thread.confidence, "lowest", self._window) for thread in warm]
        known = [value for value in lowest if value is not None]
        if self.floor is None and known:
            self.floor = percentile(known, 100 - self._eta)
            held, self._held = self._held, {}
            for place, thread in held.items():
                super().end(place, thread)

    def _lowest_above_the_floor(self, thread: ThreadInfo) -> float | None:
        lowest = trace_confidence(thread.confidence, "lowest", self._window)
        return None if lowest is None or self.floor is None or lowest < self.floor else lowest
