"""The paths of a run as samples: `paths_of(reader.read(), run)` reads the log once and tokenises nothing.

A thread's tokens are those its server counted: what each reply adds to the conversation before it, given and sampled.
A step continues its parent's. Where a server rendered the conversation anew (`Tokens.rebased`: a template that drops
earlier thoughts, say), what was sampled before was sampled in another context: it is a sample of its own, and in the
next one counts as given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise, takewhile
from typing import Any

import msgspec

from researcher.events import Event, MessageAdded, RunResumed, RunStarted, Scored, ThreadFinished
from researcher.graph import ThoughtGraph
from researcher.train.credit import CreditOf
from researcher.train.sample import NodeSpan, Sample, VersionSpan
from researcher.types import FinishReason, Message, Outcome, Task, Tokens
from researcher.views import ThreadInfo

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Paths:
    """The samples of a run, in submission order, and why threads gave none."""

    samples: tuple[Sample, ...]
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A reply: the state it was given and the one it came to, its place among the messages, and its tokens.

    `anew`: `tokens` begins at the start of the conversation, and not where the path before it ends.
    """

    before: str
    node: str
    place: int
    tokens: Tokens | None
    anew: bool
    event: Event

    @property
    def body(self) -> MessageAdded:
        assert isinstance(self.event.body, MessageAdded)
        return self.event.body

    @property
    def sampled(self) -> int:
        """How many tokens the reply has."""
        return 0 if self.tokens is None else len(self.tokens.ids) - self.tokens.sampled_from


def task_id(task: Task) -> str:
    """The name of a task: equal for equal questions with equal data, in whatever run."""
    return blake2b(_encode([task.question, task.tools, task.gold, task.data]), digest_size=8).hexdigest()


def paths_of(events: Iterable[Event], run: str, *, roles: Iterable[str] = ("reasoner",)) -> Paths:
    """The paths of threads with these roles, ended or not, each from its first message to where it stands.

    A step that others continue is part of their paths and no sample itself. `model` is the one that gave the last
    reply, and `at` when it did (Unix seconds). The log may be odd: what does not fit together is counted and left out.
    """
    reading = _Reading(run)
    for event in events:
        reading.see(event)
    return reading.paths(frozenset(roles))


class _Reading:
    """A log as far as it was read."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._graph = ThoughtGraph()
        self._pieces: dict[str, list[_Piece]] = {}
        self._boundaries: dict[str, str] = {}
        self._judged: dict[str, tuple[str, float | None]] = {}
        self._tokens_of: dict[str, list[tuple[int, ...]]] = {}
        """For each state that was sampled the different tokens that threads came to it by."""
        self._told = set[tuple[int, ...]]()
        """Contexts by their replies' events: one that several threads went through and left is a sample once."""

    def see(self, event: Event) -> None:
        """Fold one more event."""
        graph, key, body = self._graph, event.thread, event.body
        sampled = isinstance(body, MessageAdded) and body.finish is not None
        anew = sampled and key is not None and not self._continues(key)
        graph.apply(event)
        if isinstance(body, RunResumed):
            self._reopen(body)
        if key is None or graph.thread(key) is None:
            return
        if isinstance(body, ThreadFinished):
            self._boundaries[key] = body.boundary or ""
        elif isinstance(body, Scored) and not body.guide:
            self._judged[key] = (body.verdict.by, body.verdict.score)
        elif isinstance(body, MessageAdded) and sampled:
            leaf, tokens = graph.leaf(key), body.tokens  # and not its whole path, at each of its messages
            assert leaf is not None
            before = "" if leaf.parent is None else leaf.parent.id
            rebased = tokens is not None and tokens.rebased
            piece = _Piece(before, leaf.id, leaf.depth, tokens, rebased or anew, event)
            self._pieces.setdefault(key, []).append(piece)

    def _continues(self, key: str) -> bool:
        """Whether the next reply's tokens follow on a path: an ended answer's is not kept for those who continue it."""
        if any(piece.tokens is not None for piece in self._pieces.get(key, ())):
            return True
        info = self._graph.thread(key)
        return info is not None and bool(info.work.parent) and bool(self._graph.token_path(key))

    def _reopen(self, body: RunResumed) -> None:
        """A reply that broke off is asked for again, and what came of it is no part of the conversation."""
        for key in body.reopened:
            self._boundaries.pop(key, None)
            if (own := self._pieces.get(key)) and own[-1].body.finish is FinishReason.TRUNCATED:
                own.pop()

    def paths(self, roles: frozenset[str]) -> Paths:
        """The samples so far."""
        started = self._graph.started
        if started is None:
            return Paths((), Counter({"the log has no beginning": 1}))
        threads, skipped, samples = self._graph.threads(), Counter[str](), list[Sample]()
        continued = {info.work.parent for info in threads if info.work.parent}
        credit = CreditOf(self._graph)
        for info in threads:
            if info.work.role not in roles or (info.work.kind == "step" and info.key in continued):
                continue
            line = self._line(info)
            if why := self._unusable(info, line):
                skipped[why] += 1
                continue
            common = self._of_thread(info, started)
            common["credit"] = credit(info)
            samples.extend(self._samples(info, line, common))
        return Paths(tuple(samples), skipped)

    def _line(self, info: ThreadInfo) -> list[_Piece]:
        """The replies along the thread and those it continues, the first one first; an answer that it continues is
        part of it only where the server's prompt goes on from that answer's very tokens."""
        line: list[_Piece] = []
        states = {node.id for node in self._graph.path(info.key)}  # not what a parent said after it was continued
        for at in self._upwards(info):
            own = [piece for piece in self._pieces.get(at.key, ()) if piece.node in states]
            line = self._joined(at, own, line)
        return line

    def _upwards(self, info: ThreadInfo) -> Iterator[ThreadInfo]:
        """The thread, the one that it continues, and so on; an odd log may say that they continue each other."""
        at: ThreadInfo | None = info
        seen = set[str]()
        while at is not None and at.key not in seen:
            yield at
            seen.add(at.key)
            at = self._graph.thread(at.work.parent) if at.work.parent else None

    def _joined(self, parent: ThreadInfo, before: list[_Piece], after: list[_Piece]) -> list[_Piece]:
        if parent.work.kind == "step" or not before or not after or not after[0].anew:
            return before + after
        first, ids = after[0].tokens, _context(before)
        if first is None or ids is None or first.ids[: len(ids)] != ids or len(ids) > first.sampled_from:
            return after  # another context: the answer is a sample of its own thread
        rest = msgspec.structs.replace(
            first, ids=first.ids[len(ids) :], sampled_from=first.sampled_from - len(ids), rebased=False
        )
        found = after[0]
        return [*before, _Piece(found.before, found.node, found.place, rest, False, found.event), *after[1:]]

    def _unusable(self, info: ThreadInfo, line: list[_Piece]) -> str:
        if not line:
            return "no reply was recorded"
        if any(piece.tokens is None for piece in line):
            return "the server gave no token ids, or they were not recorded"
        if not all(0 <= p.tokens.sampled_from <= len(p.tokens.ids) for p in line if p.tokens is not None):
            return "the recorded tokens do not fit together"
        heats = {thread.work.sampling.temperature for thread in self._threads(line)}
        return "its parts were sampled at different temperatures" if len(heats) > 1 else ""

    def _threads(self, line: list[_Piece]) -> Iterator[ThreadInfo]:
        for key in dict.fromkeys(piece.event.thread for piece in line):
            if key is not None and (info := self._graph.thread(key)) is not None:
                yield info

    def _of_thread(self, info: ThreadInfo, started: RunStarted) -> dict[str, Any]:
        """What is true of every sample of the thread."""
        settings, task = started.settings, started.task
        fingerprint = settings.get("tokenizer")
        by, judged = self._judged.get(info.key, ("", None))
        heat = info.work.sampling.temperature
        return {
            "run": self._run,
            "thread": info.key,
            "task": task_id(task),
            "question": task.question,
            "gold": task.gold,
            "strategy": started.strategy,
            "tokenizer": fingerprint if isinstance(fingerprint, str) else "",
            "temperature": 1.0 if heat is None else heat,
            "outcome": info.outcome or Outcome.CANCELLED,
            "boundary": self._boundaries.get(info.key, ""),
            "verdict": None if info.verdict is None else info.verdict.status,
            "verifier": by,
            "judged": judged,
            "answer": info.answer,
            "canonical": info.canonical,
            "score": info.score,
            "steps": self._steps(info),
            "claims": info.claims,
        }

    def _steps(self, info: ThreadInfo) -> tuple[float, ...]:
        """The scores of the steps along the path, as far as they have one."""
        steps = takewhile(lambda thread: thread.work.kind == "step", self._upwards(info))
        return tuple([step.score for step in steps if step.score is not None][::-1])

    def _samples(self, info: ThreadInfo, line: list[_Piece], common: dict[str, Any]) -> Iterator[Sample]:
        """One sample, or one for each context that the server made of the conversation."""
        cuts = [0, *(index for index, piece in enumerate(line) if index and piece.anew), len(line)]
        parts = len(cuts) - 1
        messages, final = self._graph.messages(info.key), line[-1].body
        said = _turn(line, messages) if info.work.kind == "step" else final.message.content
        for part, (begin, end) in enumerate(pairwise(cuts)):
            replies = tuple([piece.event.seq for piece in line[begin:end]])
            if part + 1 < parts and replies in self._told:
                continue
            self._told.add(replies)
            piece = line[end - 1]
            yield Sample(
                **self._tokens(line[begin:end]),
                **common,
                part=part,
                parts=parts,
                finish=final.finish,
                thought=final.message.reasoning,
                text=said,
                model=piece.body.model or "",
                at=piece.event.at,
                messages=messages[: piece.place + 1],
                replies=tuple([each.place for each in line[begin:end] if each.sampled]),
            )

    def _tokens(self, line: list[_Piece]) -> dict[str, Any]:
        ids, mask, logprobs = list[int](), list[bool](), list[float]()
        nodes, versions, known = list[NodeSpan](), list[VersionSpan](), True
        for piece in line:
            tokens = piece.tokens
            assert tokens is not None
            begin, given = len(ids), tokens.sampled_from
            sampled = len(tokens.ids) - given
            known &= len(tokens.logprobs) == sampled and all(map(math.isfinite, tokens.logprobs))
            ids += tokens.ids
            mask += [False] * given + [True] * sampled
            logprobs += [0.0] * given + list(tokens.logprobs)
            if given:
                nodes.append(NodeSpan(piece.before, begin, begin + given))
            if sampled:
                nodes.append(NodeSpan(self._name(piece.node, tokens.ids[given:]), begin + given, len(ids)))
                versions += _versions(piece, tokens, begin + given, len(ids))
        return {
            "ids": tuple(ids),
            "mask": tuple(mask),
            "logprobs": tuple(logprobs) if known else (),
            "nodes": tuple(nodes),
            "versions": tuple(versions),
        }

    def _name(self, node: str, ids: tuple[int, ...]) -> str:
        """The state's id; with a number where another thread came to the same words by other tokens."""
        known = self._tokens_of.setdefault(node, [])
        if ids not in known:
            known.append(ids)
        number = known.index(ids)
        return f"{node}~{number + 1}" if number else node


def _context(line: list[_Piece]) -> tuple[int, ...] | None:
    """The ids of the last context of these replies; None where some are not known."""
    ids: tuple[int, ...] = ()
    for piece in line:
        if piece.tokens is None:
            return None
        ids = piece.tokens.ids if piece.anew else ids + piece.tokens.ids
    return ids


def _turn(line: list[_Piece], messages: tuple[Message, ...]) -> str:
    """The text of the assistant's turn that these steps sampled, with what was put into its mouth between them."""
    first, last = line[0].place, line[-1].place
    return "".join(message.content for message in messages[first : last + 1] if message.role == "assistant")


def _versions(piece: _Piece, tokens: Tokens, start: int, end: int) -> list[VersionSpan]:
    """Who sampled the reply's tokens, which stand at [start, end), as far as it is known."""
    if tokens.weights:
        parts = [(each.version, start + each.start, min(end, start + each.end)) for each in tokens.weights]
        return [VersionSpan(*part) for part in parts if part[1] < part[2]]
    return [VersionSpan(piece.body.weights, start, end)] if piece.body.weights else []
