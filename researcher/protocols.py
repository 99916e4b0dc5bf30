"""The six seams: Model, Tool, Sandbox, Strategy, Verifier, Store; `researcher.testing` has conformance tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from researcher.events import Event, EventBody
from researcher.types import (
    Capabilities,
    Completion,
    ModelRequest,
    PassageRef,
    SourceRef,
    Task,
    ToolSpec,
    Verdict,
)
from researcher.views import Plan, View


@dataclass(slots=True)
class Progress:
    """What a call in flight has received so far; still right when the call is cancelled."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    on_delta: Callable[[str], None] | None = None
    on_confidence: Callable[[Sequence[float]], None] | None = None
    """Called with the confidence of each new token, where alternatives are streamed; may cancel the call."""


class Model(Protocol):
    """A served language model."""

    @property
    def uri(self) -> str:
        """The URI that names it, without any key."""
        ...

    async def capabilities(self) -> Capabilities:
        """What the server can do; probed once, then kept."""
        ...

    async def complete(self, request: ModelRequest, progress: Progress | None = None) -> Completion:
        """One completion. Raises ModelError. A cancelled call closes its request and gives back its permit."""
        ...

    async def aclose(self) -> None:
        """Close connections, and the server where it is ours."""
        ...


class Source(NamedTuple):
    """A source a tool hands over for keeping, and where it came from: UTF-8 text where a passage points into it,
    else any bytes (the page as it came, whose sha256 is `SourceRef.raw` of its text)."""

    ref: SourceRef
    data: bytes


@dataclass(frozen=True, slots=True)
class ToolResult:
    """Data with an origin, never an instruction. `passages` are the numbers by which the model may cite.

    `origin` says whose words these are: `documents`, `sandbox`, `web HOST`, `search BACKEND`, `mcp SERVER`; where a
    result mixes several, they are joined by commas.
    """

    content: str
    sources: tuple[Source, ...] = ()
    passages: tuple[PassageRef, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who calls: the thread, what it was granted, and its past.

    `earlier` gives the arguments of this thread's earlier calls of the same tool that came back `ok`, in order, those
    before a crash included: a tool that keeps state for a thread rebuilds it from these.
    """

    thread: str
    granted: frozenset[str] = frozenset()
    earlier: Callable[[], Sequence[Mapping[str, Any]]] = tuple


class Tool(Protocol):
    """A typed async function the model can call. Raises ToolError for what the model should read."""

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class KeepsThreads(Protocol):
    """A tool that holds something for each thread that calls it."""

    async def release(self, thread: str) -> None:
        """The thread has ended, or is left open by a run that stops: give back what it holds. Never raises."""
        ...


class Asking(NamedTuple):
    """A tool call that waits for a person's word."""

    thread: str
    tool: str
    arguments: str
    origins: tuple[str, ...] = ()
    """Whose words this thread has read so far, its own tools' and those of the threads it was told of."""


Approve = Callable[[Asking], Awaitable[bool]]
"""Whether a call may be made; asked once for each call of a tool whose approval is `ask`."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One thing a backend found. `rank` counts from 1 in that backend's order, `origin` is the backend's name.

    `address` is a URL, or a document's name; `published` is the date the backend gave, as it gave it.
    """

    address: str
    title: str
    snippet: str
    rank: int
    origin: str
    published: str = ""


class SearchBackend(Protocol):
    """Something that can be searched: an index of documents, a web search engine, an archive of papers."""

    @property
    def name(self) -> str: ...

    async def search(self, query: str, count: int) -> Sequence[SearchHit]:
        """At most `count` hits, best first; none means that it was asked and has nothing. Raises ToolFault where the
        look-up failed, ToolError where the query cannot be asked."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A script to run. `seconds`, `memory` and `output` (bytes of text) are limits the sandbox enforces.

    `files` are put into the working directory under their relative names before it runs; those of `keep` that are
    regular files there afterwards come back in the result, within the sandbox's caps.
    """

    code: str
    language: str = "python"
    seconds: float = 5.0
    memory: int = 256 * 2**20
    output: int = 16_384
    files: Mapping[str, bytes] = field(default_factory=dict)
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecResult:
    """`status` is one of: ok, error, timeout, oom, output_limit, killed, unsupported.

    `stdout` is what was printed (both streams); where it was cut (`truncated`), its head and tail with a line between
    that says so, and `total` is how much there was. `refused` names the kept files that did not come back, and why.
    """

    status: str
    stdout: str = ""
    error: str = ""
    seconds: float = 0.0
    truncated: bool = False
    total: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


class Session(Protocol):
    """An interpreter that keeps its state from one cell to the next, for one thread alone."""

    async def run(self, request: ExecRequest) -> ExecResult:
        """The next cell. Raises SandboxFault once the session is lost (its container is gone): nothing is run again."""
        ...

    async def aclose(self) -> None: ...


class Sandbox(Protocol):
    """Runs untrusted code. Raises SandboxFault when the runtime itself breaks."""

    async def run(self, request: ExecRequest) -> ExecResult:
        """A script in an interpreter of its own: nothing is left of it for the next."""
        ...

    async def session(self) -> Session:
        """A new session, its caller's to close."""
        ...

    async def aclose(self) -> None: ...


class Verifier(Protocol):
    """Checks an answer by a rule."""

    @property
    def name(self) -> str: ...

    async def verify(self, task: Task, answer: str) -> Verdict:
        """A verdict; `unverified` when the check could not run. Never raises for a bad answer."""
        ...


@runtime_checkable
class StepVerifier(Verifier, Protocol):
    """A verifier that can also score a solution that is not complete: a process reward model, or a rule."""

    async def verify_step(self, task: Task, steps: Sequence[str]) -> Verdict:
        """A verdict with a score in [0, 1] on the last of these steps; `unverified` when it could not be scored."""
        ...


@runtime_checkable
class StateKey(Protocol):
    """What a task's verifier may know besides: which partial solutions are the same state."""

    def state_key(self, task: Task, steps: Sequence[str]) -> str | None:
        """The state after these steps; equal keys can be reached in several ways. None: no legal state."""
        ...


Ask = Callable[[ModelRequest], Awaitable[Completion]]
"""A model call that is charged to the thread that is being judged. Raises ModelError, LimitExceeded."""


@runtime_checkable
class ModelVerifier(Protocol):
    """A verifier that asks the run's model: a judge, a generative reward model."""

    def bound(self, ask: Ask) -> Verifier:
        """The verifier that asks through `ask`."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A pure planner: no await, no clock, no randomness but the view's seed."""

    @property
    def needs(self) -> frozenset[str]:
        """Capability names the model must have."""
        ...

    def plan(self, view: View) -> Plan: ...


class Store(Protocol):
    """An append-only event log of one run, and its blobs."""

    def append(self, thread: str | None, body: EventBody) -> Event:
        """The event with its sequence number, at once; durable later."""
        ...

    async def durable(self, seq: int) -> None:
        """Return when the event is on disk. Raises StoreError."""
        ...

    def put_blob(self, data: bytes) -> str:
        """Store bytes under their sha256 (hex), before any event appended later."""
        ...

    def get_blob(self, sha256: str) -> bytes: ...

    def read(self, after: int = 0) -> Iterator[Event]: ...

    async def aclose(self) -> None: ...
