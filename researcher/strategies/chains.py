"""Chains of threads, each begun from what the one before it came to, as a fold of the graph.

A thread's key is `name/chain/position`. The chains are kept in the view's memo and brought up to date with the threads
that changed, so a plan costs what is new.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from researcher.strategies.revision import is_right
from researcher.views import ThreadInfo, View

Over = Callable[[list[ThreadInfo]], bool]
"""Whether a chain whose threads have all ended is over."""


class Chains:
    """All chains of one strategy.

    `idle`: the chains that wait for their next thread, in order; `right`: the threads that the task's verifier found
    right, by key.
    """

    __slots__ = ("chains", "idle", "right", "seq")

    def __init__(self, count: int) -> None:
        self.chains: list[list[ThreadInfo]] = [[] for _ in range(count)]
        self.idle = list(range(count))
        self.right: dict[str, ThreadInfo] = {}
        self.seq = 0

    @classmethod
    def of(cls, view: View, name: str, count: int, over: Over) -> Chains:
        """The chains of the view's graph, kept in its memo under `name`."""
        chains = view.memo.get(name)
        if not isinstance(chains, cls):
            chains = view.memo[name] = cls(count)
        for info in view.graph.changes(chains.seq):
            if info.key.startswith(f"{name}/"):
                chains._put(info, over)
        chains.seq = view.graph.seq
        return chains

    def _put(self, info: ThreadInfo, over: Over) -> None:
        _, number, position = info.key.split("/")
        chain, at = int(number), int(position)
        if chain >= len(self.chains):  # the log of a fork that had more of them
            return
        threads = self.chains[chain]
        if at == len(threads):
            threads.append(info)
        else:
            threads[at] = info
        if is_right(info):
            self.right[info.key] = info
        place = bisect_left(self.idle, chain)
        if self.idle[place : place + 1] == [chain]:
            del self.idle[place]
        if all(thread.outcome is not None for thread in threads) and not over(threads):
            insort(self.idle, chain)

    def threads(self) -> Iterator[ThreadInfo]:
        """All threads, chain by chain."""
        for chain in self.chains:
            yield from chain
