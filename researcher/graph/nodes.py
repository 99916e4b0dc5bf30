"""What the thought graph is made of: kinds of nodes and edges, their records, and their ids.

Ids are hashes of what a node says, so equal states have equal ids: in one run, after a replay, and in a fork.
Records change only by the fold; everybody else reads them.
"""

from __future__ import annotations

import enum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from researcher.graph.canonical import canonical_text
from researcher.types import Evidence, FinishReason, Message, SourceRef
from researcher.views import ClaimInfo

RUN = "run"
"""The id of the run's node."""

_json = msgspec.json.Encoder().encode


class NodeKind(enum.StrEnum):
    """What a node is."""

    RUN = "run"
    THREAD = "thread"
    MESSAGE = "message"  # a state of a conversation: this message after all before it
    TOOL_CALL = "tool_call"  # equal calls of all threads
    SOURCE = "source"
    CLAIM = "claim"
    ANSWER = "answer"
    VERDICT = "verdict"
    STATE = "state"  # a state of the task: equal keys of all threads, however they came there


class EdgeKind(enum.StrEnum):
    """What an edge says; it is also its key, so that an edge said twice is one edge."""

    SPAWNED = "spawned"  # run -> thread
    STARTS = "starts"  # thread -> the last message it was given
    USES = "uses"  # thread -> a thread whose findings its prompt holds
    NEXT = "next"  # message -> message
    CALLED = "called"  # message -> tool_call
    RETURNED = "returned"  # tool_call -> the tool message
    READ = "read"  # tool_call -> source
    REPORTED = "reported"  # message -> claim
    CITES = "cites"  # claim -> source
    MERGED = "merged"  # claim -> claim
    PROPOSED = "proposed"  # message -> answer
    SUPPORTS = "supports"  # claim -> the accepted answer
    ACCEPTED = "accepted"  # run -> answer
    JUDGED = "judged"  # message, claim or answer -> verdict
    REACHED = "reached"  # message -> state


class Pass(NamedTuple):
    """A thread that went through a state. Event `seq` has its tokens, logprobs, usage and weights."""

    thread: str
    seq: int


class MessageNode:
    """A state of a conversation. `message` is as the first thread had it; calls of others have other ids.

    `finish` is set on sampled messages; `status` (ok, error, refused, failed) and `origin` (whose words) on results
    of tools.
    """

    __slots__ = ("_more", "_seq", "_thread", "depth", "finish", "id", "message", "origin", "parent", "status")

    def __init__(
        self,
        node_id: str,
        message: Message,
        *,
        parent: MessageNode | None,
        finish: FinishReason | None,
        status: str | None,
        thread: str,
        seq: int,
    ) -> None:
        self.id = node_id
        self.message = message
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.finish = finish
        self.status = status
        self.origin = ""
        # Most states have one thread: a list for each of them would cost more than the rest of the node.
        self._thread = thread
        self._seq = seq
        self._more: list[Pass] | None = None

    def visit(self, thread: str, seq: int) -> None:
        """Another thread came through."""
        if self._more is None:
            self._more = []
        self._more.append(Pass(thread, seq))

    @property
    def visits(self) -> int:
        """How many threads came through."""
        return 1 + len(self._more or ())

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Who came through, in order."""
        return (Pass(self._thread, self._seq), *(self._more or ()))

    @property
    def threads(self) -> tuple[str, ...]:
        """The keys of the threads that came through, in order."""
        return (self._thread, *(thread for thread, _ in self._more or ()))


class ToolCallNode(NamedTuple):
    """Equal calls: one tool, the same arguments. `threads` made it, in order, each as often as it did; `outcomes`
    are the statuses it came back with, and `origins` whose words came back, each once."""

    id: str
    name: str
    arguments: str
    threads: list[str]
    outcomes: list[str]
    origins: list[str]


class SourceNode(NamedTuple):
    """A stored source; `ref` is None where only a claim has named it so far. `origins`: where it was read."""

    id: str
    sha256: str
    ref: SourceRef | None
    origins: list[str]


class AnswerNode(NamedTuple):
    """A class of equal answers; `text` as it was first said."""

    id: str
    canonical: str
    text: str


class VerdictNode(NamedTuple):
    """Somebody's word on an answer or a claim."""

    id: str
    status: str
    by: str
    score: float | None
    reason: str


class StateNode(NamedTuple):
    """A state of the task. `threads` came to it, in order."""

    id: str
    key: str
    threads: list[str]


class ClaimNode:
    """Equal claims of any number of threads, with all their evidence. `into`: the node it was merged into; `cited`:
    for each source it cites where that one was read, the source's own list, which may grow."""

    __slots__ = ("cited", "evidence", "id", "info", "into", "text", "threads", "verdict")

    def __init__(self, node_id: str, text: str) -> None:
        self.id = node_id
        self.text = text
        self.threads: dict[str, None] = {}
        self.evidence: dict[Evidence, None] = {}
        self.cited: dict[str, list[str]] = {}
        self.verdict: str | None = None
        self.into: ClaimNode | None = None
        self.info: ClaimInfo | None = None

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the sources it cites came from."""
        return tuple(dict.fromkeys(origin for origins in self.cited.values() for origin in origins))

    def freeze(self) -> ClaimInfo:
        """The claim as strategies see it; kept until the fold changes it."""
        if self.info is None:
            threads, evidence = tuple(self.threads), tuple(self.evidence)
            self.info = ClaimInfo(self.id, self.text, threads, evidence, self.verdict, self.origins)
        return self.info


def origins_of(origin: str) -> tuple[str, ...]:
    """The origins that a result's `origin` joins with commas."""
    return tuple(part for part in map(str.strip, origin.split(",")) if part) if origin else ()


def digest(*parts: object) -> str:
    """24 hex digits: short in memory, and too many to be forged by whoever writes a web page."""
    try:
        encoded = _json(parts)
    except UnicodeEncodeError:  # half of a character pair, which JSON cannot say
        encoded = repr(parts).encode("utf-8", "backslashreplace")
    return blake2b(encoded, digest_size=12).hexdigest()


def message_id(parent: MessageNode | None, message: Message) -> str:
    """The id of the state after `message`: equal for equal parents, roles, texts and calls, whatever the calls' ids."""
    before = "" if parent is None else parent.id
    calls = [(call.name, call.arguments) for call in message.tool_calls] if message.tool_calls else ()
    return digest(before, message.role, message.content, message.reasoning, calls)


def thread_id(key: str) -> str:
    """The id of a thread's node."""
    return f"thread:{key}"


def call_id(name: str, arguments: str) -> str:
    """The id of the node of equal tool calls."""
    return f"call:{digest(name, arguments)}"


def source_id(sha256: str) -> str:
    """The id of a source's node."""
    return f"source:{sha256}"


def claim_id(text: str) -> str:
    """The id of the node of equal claims; the same in every run."""
    return f"claim:{digest(canonical_text(text))}"


def state_id(key: str) -> str:
    """The id of the node of a state of the task."""
    return f"state:{digest(key)}"


def answer_id(canonical: str) -> str:
    """The id of the node of a class of answers."""
    return f"answer:{digest(canonical)}"
