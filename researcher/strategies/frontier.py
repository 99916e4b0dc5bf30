"""Where a tree of thoughts stands: its states, their values, and the sequence of threads that it wants.

The search goes on in rounds: some states are expanded, the thoughts that come are valued, the best are taken on. What
a round wants is appended to one sequence of jobs, and a round ends when all of them have ended. Thoughts are taken in
in the order of their jobs, whenever they came, so the sequence is a function of the graph alone. Keys are made of what
the thread reads: a thread that is found under a job's key is that job's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Literal, Protocol

from researcher.strategies.prompts import parse_answer, parse_choice, parse_lines, parse_value
from researcher.strategies.revision import is_right
from researcher.strategies.steps import Aggregate, Node
from researcher.types import Outcome, VerdictStatus
from researcher.views import ThreadInfo, View

VALUES = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
"""What Tree of Thoughts' words are worth; a state's value is their sum over the samples."""
Kind = Literal["propose", "think", "value", "vote", "answer"]


class Rules(Protocol):
    """The parameters of the search."""

    search: Literal["bfs", "dfs"]
    thoughts: Literal["sample", "propose"]
    evaluate: Literal["scores", "values", "votes", "none"]
    breadth: int
    keep: int
    depth: int
    value_samples: int
    votes: int
    expansions: int
    merge: bool
    aggregate: Aggregate

    @property
    def floor(self) -> float: ...


class Thought:
    """A state by the steps that lead to it. `origin` is the thread that wrote its last step; None at the root."""

    __slots__ = ("complete", "depth", "id", "node", "origin", "parent", "state", "text", "value", "votes", "words")

    def __init__(self, parent: Thought | None, text: str, origin: ThreadInfo | None, node: Node | None = None) -> None:
        self.parent = parent
        self.text = text
        self.origin = origin
        self.node = node
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.state: str | None = None
        self.complete = parse_answer(text) is not None if node is None else node.complete
        self.words: Counter[str] = Counter()
        self.votes = 0
        self.value = 0.0
        self.id = "root" if parent is None else _digest("\n".join(self.steps) if node is None else node.key)

    @property
    def steps(self) -> list[str]:
        """The texts of the steps, without line ends."""
        texts: list[str] = []
        thought: Thought | None = self
        while thought is not None and thought.parent is not None:
            texts.append(thought.text.strip())
            thought = thought.parent
        return texts[::-1]

    def value_by(self, rules: Rules) -> float:
        """Its value: the score of its path, the worth of the words said of it, or its votes."""
        match rules.evaluate:
            case "scores":
                return 0.0 if self.node is None else self.node.value(rules.aggregate)
            case "values":
                return sum(VALUES[word] * self.words[word] for word in VALUES)
            case "votes":
                return float(self.votes)
            case "none":
                return 0.0


class Job:
    """A thread that is wanted: a state's expansion, a word on its value, its answer, or a vote on several states."""

    __slots__ = ("key", "kind", "thoughts")

    def __init__(self, kind: Kind, number: int, *thoughts: Thought) -> None:
        self.kind: Kind = kind
        self.thoughts = thoughts
        name = thoughts[0].id if len(thoughts) == 1 else _digest(" ".join(thought.id for thought in thoughts))
        self.key = f"{kind}/{name}.{number}"


class Frontier:
    """The search so far. `over`: it wants no more; `answers`: the threads that gave one, with their states."""

    def __init__(self, rules: Rules, view: View) -> None:
        self.rules = rules
        self.seq = 0
        self.threads: dict[str, ThreadInfo] = {}
        self.jobs: list[Job] = []
        self.begun = 0
        self.open: dict[str, Job] = {}
        self.ended: deque[str] = deque()
        self.queue: list[Job] = []
        """The expansions of this round."""
        self.taken = 0
        """How many of them have been taken in."""
        self.fresh: list[Thought] = []
        """The thoughts of this round."""
        self.barren: dict[Thought, None] = {}
        """States of this round after which nothing was proposed."""
        self.voted = False
        self.stack: list[Thought] = []
        """Of a depth-first search: the states to go back to, the best last."""
        self.finals: dict[str, Thought] = {}
        """States that the answer is made of, but for those whose answer was wrong."""
        self.answers: dict[str, tuple[Thought, ThreadInfo]] = {}
        self.verified: dict[str, ThreadInfo] = {}
        self.counts: Counter[str] = Counter()
        """Thoughts that were merged, illegal, dropped; values that could be read or not; states that were expanded."""
        self.deepest = 0
        self.over = False
        root = Thought(None, "", None)
        root.state = view.state(()) if view.state is not None else None
        self.seen: set[Hashable] = {root.state}
        self._expand([root])

    @classmethod
    def of(cls, view: View, name: str, rules: Rules) -> Frontier:
        """The search in the view's graph, kept in its memo under `name`."""
        frontier = view.memo.get(name)
        if not isinstance(frontier, cls):
            frontier = view.memo[name] = cls(rules, view)
        for info in view.graph.changes(frontier.seq):
            frontier.threads[info.key] = info
            if info.outcome is not None and info.key in frontier.open:
                frontier.ended.append(info.key)
        frontier.seq = view.graph.seq
        frontier._settle(view)
        return frontier

    def wanted(self, room: int) -> list[Job]:
        """The next jobs that have no thread, in order."""
        while self.begun < len(self.jobs) and self.jobs[self.begun].key in self.threads:
            self.begun += 1
        rest = (self.jobs[at] for at in range(self.begun, len(self.jobs)))
        return list(islice((job for job in rest if job.key not in self.threads), max(0, room)))

    def best(self) -> Thought | None:
        """The state to answer from where the search cannot go on: the best of this round, else of the one before."""
        here = [thought for thought in self.fresh if self._good(thought)]
        before = [job.thoughts[0] for job in self.queue if job.thoughts[0].depth]
        return max(here or before or self.stack, key=lambda thought: thought.value_by(self.rules), default=None)

    def body(self, info: ThreadInfo) -> str:
        """The whole solution that a thread ended: what it was given of it, what its parents wrote, and its own."""
        texts: list[str] = []
        thread: ThreadInfo | None = info
        while thread is not None:
            said = [message.content for message in thread.work.messages if message.role == "assistant"]
            texts.append("".join([*said, thread.final]))
            thread = self.threads.get(thread.work.parent)
        return "".join(reversed(texts))

    def _want(self, job: Job) -> None:
        self.jobs.append(job)
        self.open[job.key] = job
        info = self.threads.get(job.key)
        if info is not None and info.outcome is not None:
            self.ended.append(job.key)

    def _settle(self, view: View) -> None:
        """Take in what ended, round by round, until threads are wanted that have not."""
        while True:
            while self.ended:
                key = self.ended.popleft()
                if (job := self.open.pop(key, None)) is not None:
                    self._take(job, self.threads[key])
            while self.taken < len(self.queue) and self.queue[self.taken].key not in self.open:
                expansion = self.queue[self.taken]
                self.taken += 1
                self._absorb(expansion, self.threads[expansion.key], view)
            if self.open or self.over:
                if not self.ended:
                    return
            else:
                self._advance()

    def _expand(self, thoughts: Sequence[Thought]) -> None:
        """Begin a round that expands these states."""
        self.queue, self.taken, self.voted = [], 0, False
        kind: Kind = "think" if self.rules.thoughts == "sample" else "propose"
        for thought in thoughts:
            self.counts["expanded"] += 1
            self.deepest = max(self.deepest, thought.depth + 1)
            self.queue += [Job(kind, number, thought) for number in range(self.rules.breadth if kind == "think" else 1)]
        for job in self.queue:
            self._want(job)

    def _take(self, job: Job, info: ThreadInfo) -> None:
        """What a thread says of its states, in whatever order such words come."""
        if is_right(info):
            self.verified[info.key] = info
        match job.kind:
            case "value":
                word = parse_value(info.final) if info.outcome is Outcome.ANSWERED else None
                self._heard(word is not None)
                if word is not None:
                    job.thoughts[0].words[word] += 1
            case "vote":
                choice = parse_choice(info.final, len(job.thoughts)) if info.outcome is Outcome.ANSWERED else None
                self._heard(choice is not None)
                if choice is not None:
                    job.thoughts[choice].votes += 1
            case "answer":
                self._answered(job.thoughts[0], info)

    def _heard(self, read: bool) -> None:
        self.counts["read" if read else "unread"] += 1

    def _answered(self, thought: Thought, info: ThreadInfo) -> None:
        """Keep an answer; a state without one, or with a wrong one, leaves its place to others."""
        if info.answer is not None:
            self.answers[info.key] = thought, info
        wrong = info.verdict is not None and info.verdict.status is VerdictStatus.WRONG
        if info.answer is None or wrong:
            self.finals.pop(thought.id, None)

    def _absorb(self, job: Job, info: ThreadInfo, view: View) -> None:
        """Take in the thoughts that an expansion brought; called in the order of the jobs."""
        parent = job.thoughts[0]
        if info.outcome is not Outcome.ANSWERED:
            return
        if job.kind == "think":
            self._add(Thought(parent, info.final, info, Node(info, parent.node)), info.state)
            return
        found = False
        for line in parse_lines(info.final):
            thought = Thought(parent, line, info)
            state = view.state(thought.steps) if view.state is not None and not thought.complete else None
            if state is None and parent.state is not None and not thought.complete:
                self.counts["illegal"] += 1
                continue
            found = True
            self._add(thought, state)
        if not found and parent.depth:
            self.barren[parent] = None

    def _add(self, thought: Thought, state: str | None) -> None:
        """Take a thought into the round, if it is a new state and there is a way to value it."""
        thought.state = state
        key: Hashable = (thought.parent, " ".join(thought.text.split())) if state is None else state
        if self.rules.merge and key in self.seen:
            self.counts["merged"] += 1
            return
        self.seen.add(key)
        if thought.node is not None and thought.complete:
            info = thought.node.info
            if info.answer is None or (info.verdict is not None and info.verdict.status is VerdictStatus.WRONG):
                self._answered(thought, info)
                return
        if self.rules.evaluate == "scores":
            scored = thought.node is not None and thought.node.info.score is not None
            self._heard(scored)
            if not scored:
                return
        self.fresh.append(thought)
        if self.rules.evaluate == "values":
            for number in range(self.rules.value_samples):
                self._want(Job("value", number, thought))

    def _good(self, thought: Thought) -> bool:
        return self.rules.evaluate in ("votes", "none") or thought.value_by(self.rules) > self.rules.floor

    def _advance(self) -> None:
        """Rank the round and begin the next, or end the search."""
        if self.rules.evaluate == "votes" and len(self.fresh) > 1 and not self.voted:
            self.voted = True
            for number in range(self.rules.votes):
                self._want(Job("vote", number, *self.fresh))
            return
        if self.counts["unread"] and not self.counts["read"]:
            self.over = True
            return
        for thought in self.fresh:
            thought.value = thought.value_by(self.rules)
        good = [thought for thought in self.fresh if self._good(thought)]
        self.counts["dropped"] += len(self.fresh) - len(good)
        good.sort(key=lambda thought: -thought.value)
        ends, self.fresh, self.barren = list(self.barren), [], {}
        for thought in ends:
            self._final(thought)
        if self.rules.search == "bfs":
            self._broad(good)
        else:
            self._deep(good)

    def _broad(self, good: list[Thought]) -> None:
        """The best of the round take the places that are left; those that go on are the next round."""
        kept = good[: max(0, self.rules.keep - len(self.finals))]
        following = [thought for thought in kept if not self._ends(thought)]
        for thought in kept:
            if self._ends(thought):
                self._final(thought)
        self._expand(following)
        self.over = not self.open

    def _deep(self, good: list[Thought]) -> None:
        """On with the best state after the last one, or back to the best that was left; one at a time."""
        self.stack += reversed(good[: self.rules.keep])
        self._expand([])
        while self.stack and not self.open and len(self.finals) < self.rules.keep:
            if self._ends(thought := self.stack.pop()):
                self._final(thought)
            elif self.counts["expanded"] < self.rules.expansions:
                self._expand([thought])
        self.over = not self.open

    def _ends(self, thought: Thought) -> bool:
        return thought.complete or thought.depth >= self.rules.depth

    def _final(self, thought: Thought) -> None:
        """Have the answer of a state: the one it has, or that of a thread that goes on from it."""
        self.finals[thought.id] = thought
        if thought.node is not None and thought.complete:
            self._answered(thought, thought.node.info)
        else:
            self._want(Job("answer", 0, thought))


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
