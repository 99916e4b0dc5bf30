"""One thread of the run as the fold knows it, and the meter that adds up what was used."""

from __future__ import annotations

from collections.abc import Iterable

from researcher.graph.nodes import MessageNode, ToolCallNode, thread_id
from researcher.types import FinishReason, Message, Outcome, PassageRef, Tokens, ToolCall, Usage, Verdict, Work
from researcher.views import ThreadInfo


class Meter:
    """A running sum of Usage, without a new record for each addition."""

    __slots__ = ("cached", "calls", "completion", "cost", "prompt")

    def __init__(self) -> None:
        self.prompt = self.completion = self.cached = self.calls = 0
        self.cost: float | None = None

    def add(self, usage: Usage) -> None:
        """Count it in; an unknown cost adds nothing to what is known."""
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens
        self.cached += usage.cached_tokens
        self.calls += usage.calls
        if usage.cost is not None:
            self.cost = usage.cost + (self.cost or 0.0)

    def total(self) -> Usage:
        """The sum so far."""
        return Usage(
            prompt_tokens=self.prompt,
            completion_tokens=self.completion,
            cached_tokens=self.cached,
            calls=self.calls,
            cost=self.cost,
        )


class Slot:
    """A call the model asked for and what came back."""

    __slots__ = ("call", "node", "origin", "returned", "seq", "status")

    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.node: ToolCallNode | None = None
        self.returned: Message | None = None
        """The tool's message; it joins the conversation when all calls before it have returned."""
        self.status: str | None = None
        self.origin = ""
        self.seq = 0


class ThreadState:
    """A thread: its work, the state it is in, and what came of it. `info` is the frozen copy for strategies."""

    __slots__ = (
        "answer",
        "boundary",
        "calling",
        "canonical",
        "claims",
        "confidence",
        "context",
        "detail",
        "done",
        "final",
        "finish",
        "given",
        "id",
        "info",
        "key",
        "leaf",
        "meter",
        "order",
        "origins",
        "outcome",
        "own",
        "parent",
        "passages",
        "score",
        "slots",
        "state",
        "tokens",
        "verdict",
        "work",
    )

    def __init__(self, key: str, work: Work, order: int, parent: ThreadState | None = None) -> None:
        self.id = thread_id(key)
        self.key = key
        self.work = work
        self.order = order
        self.parent = parent
        """The thread whose conversation this one continues."""
        self.leaf: MessageNode | None = None
        self.given = 0
        """How many messages it began with, its parent's included."""
        self.outcome: Outcome | None = None
        self.detail = ""
        self.boundary: str | None = None
        self.answer: str | None = None
        self.canonical: str | None = None
        self.final = ""
        self.verdict: Verdict | None = None
        self.score: float | None = None
        self.state: str | None = None
        self.confidence: tuple[float, ...] = ()
        self.claims: tuple[str, ...] = ()
        self.meter = Meter()
        self.context = 0
        """Tokens of the conversation at the last reply: its prompt and what was sampled."""
        self.calling = False
        self.finish: FinishReason | None = None
        self.slots: list[Slot] | None = None
        self.own: dict[int, Message] | None = None
        """Messages at a depth where a merged node holds another thread's ids of the same calls."""
        self.passages: list[PassageRef] | None = None
        self.done: tuple[ToolCall, ...] = ()
        """The calls that came back `ok`, in the order in which they did, those of its conversation's beginning too."""
        self.origins: tuple[str, ...] = ()
        """Whose words it has read, its own and what it was told when it began."""
        self.tokens: list[Tokens] | None = None
        """Its own, while it can go on or be continued: to train on them reads the log."""
        self.info: ThreadInfo | None = None

    def freeze(self) -> ThreadInfo:
        """The thread as strategies see it; kept until the fold changes it."""
        if self.info is None:
            self.info = ThreadInfo(
                key=self.key,
                work=self.work,
                order=self.order,
                outcome=self.outcome,
                answer=self.answer,
                canonical=self.canonical,
                final=self.final,
                verdict=self.verdict,
                claims=self.claims,
                detail=self.detail,
                score=self.score,
                state=self.state,
                finish=self.finish,
                confidence=self.confidence,
                tokens=self.meter.prompt + self.meter.completion,
                sampled=self.meter.completion,
                origins=self.origins,
            )
        return self.info

    def read(self, origins: Iterable[str]) -> None:
        """Note whose words it has read now."""
        if new := tuple([each for each in dict.fromkeys(origins) if each not in self.origins]):
            self.origins, self.info = (self.origins + new) if self.origins else new, None

    def token_path(self) -> list[int]:
        """The token ids from the first message to the last, as far as the server gave them."""
        parts: list[tuple[int, ...]] = []
        thread: ThreadState | None = self
        while thread is not None:
            for tokens in reversed(thread.tokens or ()):
                parts.append(tokens.ids)
                if tokens.rebased:
                    thread = None
                    break
            thread = thread.parent if thread is not None else None
        return [token for ids in reversed(parts) for token in ids]

    def path(self) -> list[MessageNode]:
        """The states from the first message to the last."""
        nodes: list[MessageNode] = []
        node = self.leaf
        while node is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    def messages(self) -> tuple[Message, ...]:
        """The conversation with the thread's own ids of its calls."""
        if self.own is None:
            return tuple([node.message for node in self.path()])
        own = self.own
        return tuple([own.get(node.depth) or node.message for node in self.path()])

    def pending(self) -> tuple[ToolCall, ...]:
        """Calls that have not returned, in the order the model made them."""
        if self.slots is None:
            return ()
        return tuple([slot.call for slot in self.slots if slot.returned is None])
