"""`ThoughtGraph`: the fold of a run's events, as a networkx graph and as queries that cost what they return."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from researcher.events import Event, RunStarted
from researcher.graph.fold import apply
from researcher.graph.nodes import RUN, EdgeKind, MessageNode
from researcher.graph.state import State
from researcher.graph.threads import ThreadState
from researcher.types import (
    Answer,
    FinishReason,
    Message,
    Outcome,
    PassageRef,
    ToolCall,
    Usage,
    Verdict,
    VerdictStatus,
    Work,
)
from researcher.views import ClaimInfo, ThreadInfo


@dataclass(frozen=True, slots=True)
class Vote:
    """A class of equal answers: how its first supporter put it, and its supporters in submission order."""

    canonical: str
    text: str
    count: int
    supporters: tuple[str, ...]


class ThoughtGraph:
    """What is known after event `seq`. Only `apply` changes it; nobody else writes into `nx`.

    Nodes of `nx` have the attributes `kind` (NodeKind) and `data` (the record); the key of an edge is its EdgeKind.
    Threads are named by the key of their work.
    """

    def __init__(self) -> None:
        self._state = State()

    @classmethod
    def fold(cls, events: Iterable[Event]) -> Self:
        """The graph of these events."""
        graph = cls()
        for event in events:
            apply(graph._state, event)
        return graph

    def apply(self, event: Event) -> None:
        """Fold one more event. Raises ValueError for one that is not after the last."""
        apply(self._state, event)

    @property
    def nx(self) -> Any:
        """The networkx MultiDiGraph."""
        return self._state.nx

    # The run.

    @property
    def seq(self) -> int:
        """The number of the last event; 0 before the first."""
        return self._state.seq

    @property
    def started(self) -> RunStarted | None:
        """The first event's body: task, strategy, seed, budget."""
        return self._state.started

    @property
    def answer(self) -> Answer | None:
        """The accepted answer."""
        return self._state.answer

    @property
    def refutation(self) -> Verdict | None:
        """The verdict that calls the accepted answer wrong; None where there is none, or another calls it right."""
        if self.answer is None or self.answer.supported:
            return None
        of_answer = (info.verdict for info in self.threads() if info.canonical == self.answer.canonical)
        return next((each for each in of_answer if each is not None and each.status is VerdictStatus.WRONG), None)

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while it is open, and again once it is resumed."""
        return self._state.outcome

    @property
    def detail(self) -> str:
        """Why it ended so, in a sentence."""
        return self._state.detail

    @property
    def limit(self) -> str | None:
        """The limit that ended it, if one did."""
        return self._state.limit

    @property
    def resumes(self) -> int:
        """How often the run was taken up again."""
        return self._state.resumes

    @property
    def usage(self) -> Usage:
        """What the run has used, with calls that failed or were cancelled."""
        return self._state.meter.total()

    @property
    def calls_in_flight(self) -> int:
        """Model calls that were sent and have neither a reply nor a charge: after a crash, those made once more."""
        return len(self._state.calling)

    @property
    def calling(self) -> tuple[str, ...]:
        """The threads with such a call."""
        return tuple(sorted(self._state.calling))

    # Threads.

    def thread(self, key: str) -> ThreadInfo | None:
        """A thread as strategies see it."""
        thread = self._state.threads.get(key)
        return None if thread is None else thread.freeze()

    def threads(self, group: str | None = None) -> Sequence[ThreadInfo]:
        """Threads in submission order, of one group or all."""
        states = self._state.threads.values() if group is None else self._state.groups.get(group, ())
        return tuple([thread.info or thread.freeze() for thread in states])

    def changes(self, after: int) -> Sequence[ThreadInfo]:
        """Threads that started, ended or were opened again after this event, each once, as they are now."""
        changed = self._state.changed
        begin = bisect_right(changed, after, key=lambda change: change[0])
        threads = dict.fromkeys(thread for _, thread in changed[begin:])
        return tuple([thread.info or thread.freeze() for thread in threads])

    def state(self, key: str) -> Sequence[str]:
        """The keys of the threads that stand in this state of the task, in the order they came to it."""
        node = self._state.reached(key)
        return () if node is None else tuple(node.threads)

    def stopped_at(self, boundaries: Collection[str]) -> tuple[str, ...]:
        """The threads that ended at one of these boundaries, in submission order."""
        return tuple(key for key, thread in self._state.threads.items() if thread.boundary in boundaries)

    @property
    def in_flight(self) -> Mapping[str, Work]:
        """The work of threads that have not ended, by key, in submission order."""
        return {key: thread.work for key, thread in self._state.open.items()}

    def open_work(self) -> list[tuple[str, Work]]:
        """The same as pairs: what a resumed run takes up again."""
        return [(key, thread.work) for key, thread in self._state.open.items()]

    def path(self, key: str) -> list[MessageNode]:
        """The states a thread went through, from the first message to the last."""
        return self._thread(key).path()

    def leaf(self, key: str) -> MessageNode | None:
        """The state where a thread stands; None before its first message. The states before it are its parents."""
        return self._thread(key).leaf

    def messages(self, key: str) -> tuple[Message, ...]:
        """The conversation so far, ready to go on: results of tools stand in the order of their calls."""
        return self._thread(key).messages()

    def given(self, key: str) -> int:
        """How many messages the thread began with, its parent's included."""
        return self._thread(key).given

    def pending_tools(self, key: str) -> tuple[ToolCall, ...]:
        """Calls the thread's model asked for that have not returned, in its order."""
        return self._thread(key).pending()

    def passages(self, key: str) -> tuple[PassageRef, ...]:
        """The numbered passages that tools showed the thread, in order; where a number comes twice, the last counts."""
        return tuple(self._thread(key).passages or ())

    def origins(self, key: str) -> tuple[str, ...]:
        """Whose words the thread has read: those of its own tools' results, and what the threads it continues or was
        told of had read when it began, and those before them. Empty for a thread that never started."""
        thread = self._state.threads.get(key)
        return () if thread is None else thread.origins

    def done(self, key: str, tool: str) -> list[ToolCall]:
        """The thread's calls of this tool that came back `ok`, in the order in which they did."""
        return [call for call in self._thread(key).done if call.name == tool]

    def token_path(self, key: str) -> tuple[int, ...]:
        """The token ids of an open thread's conversation, as far as the server gave them. Of ended threads only
        steps keep theirs, because others may continue them."""
        return tuple(self._thread(key).token_path())

    def usage_of(self, key: str) -> Usage:
        """What one thread has used."""
        return self._thread(key).meter.total()

    def context_of(self, key: str) -> int:
        """Tokens of a thread's conversation at its last reply; 0 where nobody counted."""
        return self._thread(key).context

    def finish_of(self, key: str) -> FinishReason | None:
        """Why the thread's last reply ended."""
        return self._thread(key).finish

    def _thread(self, key: str) -> ThreadState:
        """Raises KeyError for a thread that never started."""
        return self._state.threads[key]

    # Claims and answers.

    def claim(self, claim_id: str) -> ClaimInfo:
        """A claim, or the one it was merged into. Raises KeyError where there is none."""
        node = self._state.root_claim(claim_id)
        if node is None:
            raise KeyError(claim_id)
        return node.freeze()

    def claims(self) -> Iterator[ClaimInfo]:
        """All claims that were not merged into others, the first reported first."""
        return (node.freeze() for node in list(self._state.claims.values()) if node.into is None)

    def votes(self, group: str | None = None) -> list[Vote]:
        """Answer classes of one group or all: the most votes first, of equal ones the first submitted."""
        classes = self._state.votes.get(group, {})
        ranked = sorted(classes.items(), key=lambda item: (-len(item[1]), item[1][0]))
        threads = self._state.threads
        return [
            Vote(canonical, threads[who[0][1]].answer or "", len(who), tuple([key for _, key in who]))
            for canonical, who in ranked
        ]

    def frontier(self) -> list[MessageNode]:
        """The states open threads are in, each once, in submission order."""
        leaves = {t.leaf.id: t.leaf for t in self._state.open.values() if t.leaf is not None}
        return list(leaves.values())

    def ancestors(self, canonical: str) -> set[str]:
        """Ids of all nodes an answer class rests on: its threads and those that they continue or whose findings
        they use, their states, calls, sources and claims."""
        found: set[str] = set()
        graph = self._state.nx
        threads = [key for _, key in self._state.votes[None].get(canonical, ())]
        while threads:
            thread = self._state.threads.get(threads.pop())
            if thread is None or thread.id in found:
                continue
            found |= {RUN, thread.id, *thread.claims}
            found.update(node.id for node in thread.path())
            threads += [thread.work.parent, *thread.work.uses]
        follow = {EdgeKind.CALLED, EdgeKind.READ, EdgeKind.CITES}
        stack = list(found - {RUN})
        while stack:
            for target, keys in graph.succ[stack.pop()].items():
                if target not in found and not follow.isdisjoint(keys):
                    found.add(target)
                    stack.append(target)
        return found
