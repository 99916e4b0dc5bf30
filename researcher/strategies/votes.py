"""Counting votes, and knowing when more of them cannot change the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from researcher.protocols import ThreadInfo


class Tally(NamedTuple):
    """Answer classes by votes, the largest first; of equal ones the first submitted."""

    classes: list[tuple[str, list[ThreadInfo]]]

    @property
    def leader(self) -> list[ThreadInfo]:
        """The threads of the largest class; empty if nobody voted."""
        return self.classes[0][1] if self.classes else []

    @property
    def votes(self) -> int:
        """How many voted."""
        return sum(len(threads) for _, threads in self.classes)

    @property
    def top_two(self) -> tuple[int, int]:
        """The votes of the two largest classes."""
        counts = [len(threads) for _, threads in self.classes[:2]] + [0, 0]
        return counts[0], counts[1]


def tally(threads: Iterable[ThreadInfo]) -> Tally:
    """The votes of these threads (in submission order); those without an answer do not vote."""
    classes: dict[str, list[ThreadInfo]] = {}
    for thread in threads:
        if thread.canonical is not None and thread.outcome is not None:
            classes.setdefault(thread.canonical, []).append(thread)
    return Tally(sorted(classes.items(), key=lambda item: (-len(item[1]), item[1][0].order)))


def beta_confidence(first: int, second: int) -> float:
    """P(the leading class is the more frequent of the two), uniform prior; first >= second votes.

    1 - sum_{k <= second} C(first+second+1, k) / 2^(first+second+1): Aggarwal et al. 2023, adaptive consistency.
    """
    n = first + second + 1
    term = below = 1
    for k in range(second):
        term = term * (n - k) // (k + 1)  # C(n, k + 1) from C(n, k)
        below += term
    return 1.0 - below / (1 << n)


def decided(first: int, second: int, pending: int) -> bool:
    """Whether no outcome of the pending votes can change the winner; agrees with the full vote always."""
    return first - second > pending


def finished_prefix(threads: Sequence[ThreadInfo]) -> Sequence[ThreadInfo]:
    """The threads, in submission order, before the first that is still running.

    A rule that looks at whoever finished first favours quick answers over right ones.
    """
    for position, thread in enumerate(threads):
        if thread.outcome is None:
            return threads[:position]
    return threads
