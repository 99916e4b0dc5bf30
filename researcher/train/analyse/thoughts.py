"""The thinking of a run's threads: `thoughts_of(reader.read(), run)` reads a log once and wants no token ids.

A thread that answers is one thought. Steps are one thought for each path to a step that no other continues, as samples
are (`train/paths.py`), so that what two paths share is in both. What a strategy put into a model's mouth ("Wait") is
not the model's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from researcher.events import Event, MessageAdded, RunResumed, RunStarted, ThreadFinished
from researcher.graph import ThoughtGraph
from researcher.train.paths import task_id
from researcher.types import FinishReason, Frozen, Message, Outcome, VerdictStatus
from researcher.views import ThreadInfo

_ANSWER = re.compile(r"<answer>.*?(?:</answer>|$)", re.DOTALL)
_EVIDENCE = re.compile(r'^\[\d+\] ".*"$', re.MULTILINE)
_OPEN, _CLOSE = "<think>", "</think>"


class Thought(Frozen, frozen=True, kw_only=True):
    """What a thread thought, and what became of it.

    `tokens` are all that it sampled, answer and tool calls too: servers do not count the thought apart. None where a
    server did not count. `ids` are theirs, empty where they are not known. `problem`: its name in the evaluation that
    the run was of. `version` sampled the most of it, and `versions` counts how many sampled any. `cut`: its last reply
    ran into its limit. `at`: when each of its replies came.
    """

    run: str
    thread: str
    task: str
    strategy: str
    question: str
    problem: str = ""
    text: str
    tokens: int | None
    ids: tuple[int, ...] = ()
    model: str = ""
    version: str = ""
    versions: int = 0
    outcome: Outcome | None = None
    boundary: str = ""
    verdict: VerdictStatus | None = None
    answer: str | None = None
    cut: bool = False
    at: tuple[float, ...] = ()


@dataclass(slots=True)
class Reading:
    """A log as far as it was read; `graph` is its fold."""

    run: str
    graph: ThoughtGraph = field(default_factory=ThoughtGraph)
    _said: dict[str, list[tuple[float, MessageAdded]]] = field(default_factory=dict)
    _boundaries: dict[str, str] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Fold one more event."""
        self.graph.apply(event)
        body, key = event.body, event.thread
        if isinstance(body, RunResumed):
            self._reopen(body)
        elif key is not None and isinstance(body, ThreadFinished):
            self._boundaries[key] = body.boundary or ""
        elif key is not None and isinstance(body, MessageAdded) and body.finish is not None:
            self._said.setdefault(key, []).append((event.at, body))

    def _reopen(self, body: RunResumed) -> None:
        """A reply that broke off is asked for again."""
        for key in body.reopened:
            self._boundaries.pop(key, None)
            own = self._said.get(key)
            if own and own[-1][1].finish is FinishReason.TRUNCATED:
                own.pop()

    def thoughts(self, roles: frozenset[str]) -> Iterator[Thought]:
        """The thoughts of threads with these roles that said anything, in submission order."""
        started = self.graph.started
        if started is None:
            return
        threads = self.graph.threads()
        continued = {info.work.parent for info in threads if info.work.kind == "step"}
        for info in threads:
            if info.work.role in roles and not (info.work.kind == "step" and info.key in continued):
                line = [said for key in self._line(info) for said in self._said.get(key, ())]
                if line:
                    yield self._thought(info, line, started)

    def _line(self, info: ThreadInfo) -> list[str]:
        """The thread, and if it is a step those it follows, the first one first; an odd log may name them in a ring."""
        keys = [info.key]
        at: ThreadInfo | None = info
        while at is not None and at.work.kind == "step" and at.work.parent and at.work.parent not in keys:
            at = self.graph.thread(at.work.parent)
            if at is not None and at.work.kind == "step":
                keys.append(at.key)
        return keys[::-1]

    def _thought(self, info: ThreadInfo, line: list[tuple[float, MessageAdded]], started: RunStarted) -> Thought:
        replies = [body for _, body in line]
        sizes = [_size(body) for body in replies]
        by_version = Counter[str]()
        for body in replies:
            by_version.update(_versions(body))
        known = all(body.tokens is not None for body in replies)
        return Thought(
            run=self.run,
            thread=info.key,
            task=task_id(started.task),
            strategy=started.strategy,
            question=started.task.question,
            problem=_problem(started),
            text=thinking([body.message for body in replies], steps=info.work.kind == "step"),
            tokens=None if None in sizes else sum(size for size in sizes if size is not None),
            ids=tuple([i for b in replies if b.tokens for i in b.tokens.ids[b.tokens.sampled_from :]]) if known else (),
            model=replies[-1].model or started.model,
            version=by_version.most_common(1)[0][0] if by_version else "",
            versions=len(by_version),
            outcome=info.outcome,
            boundary=self._boundaries.get(info.key, ""),
            verdict=None if info.verdict is None else info.verdict.status,
            answer=info.answer,
            cut=replies[-1].finish is FinishReason.LENGTH and info.answer is None,
            at=tuple([at for at, _ in line]),
        )


def read_run(events: Iterable[Event], run: str) -> Reading:
    """The whole log, folded."""
    reading = Reading(run)
    for event in events:
        reading.see(event)
    return reading


def thoughts_of(events: Iterable[Event], run: str, *, roles: Iterable[str] = ("reasoner",)) -> list[Thought]:
    """The thoughts of a run's threads with these roles, in submission order."""
    return list(read_run(events, run).thoughts(frozenset(roles)))


def thinking(replies: list[Message], *, steps: bool = False) -> str:
    """The thinking in these replies: what the server gave apart as reasoning; where it gave none, what stands between
    `<think>` tags; where there are none, all that was said but the answer and the evidence for it."""
    if any(message.reasoning.strip() for message in replies):
        said = "\n".join([message.reasoning.strip() for message in replies if message.reasoning.strip()])
    else:
        said = ("" if steps else "\n").join([message.content for message in replies])
        said = _between(said) if _OPEN in said or _CLOSE in said else _EVIDENCE.sub("", said)
    return _ANSWER.sub("", said).strip()


def _between(text: str) -> str:
    """What stands in think blocks; a first one may lack its opening (the template wrote it), a last one its end."""
    parts: list[str] = []
    if _CLOSE in text and text.find(_CLOSE) < (text.find(_OPEN) if _OPEN in text else len(text)):
        first, _, text = text.partition(_CLOSE)
        parts.append(first)
    while _OPEN in text:
        inside, _, text = text.partition(_OPEN)[2].partition(_CLOSE)
        parts.append(inside)
    return "\n".join([part.strip() for part in parts if part.strip()])


def _problem(started: RunStarted) -> str:
    named = started.settings.get("problem")
    return named if isinstance(named, str) else ""


def _size(body: MessageAdded) -> int | None:
    """How many tokens the reply has; None where nobody counted."""
    if body.tokens is not None:
        return max(0, len(body.tokens.ids) - body.tokens.sampled_from)
    return None if body.usage is None else body.usage.completion_tokens


def _versions(body: MessageAdded) -> dict[str, int]:
    """Tokens by the version of the weights that sampled them, as far as it is known."""
    if body.tokens is not None and body.tokens.weights:
        spans = Counter[str]()
        for span in body.tokens.weights:
            spans[span.version] += max(0, span.end - span.start)
        return dict(spans)
    return {body.weights: max(1, _size(body) or 0)} if body.weights else {}
