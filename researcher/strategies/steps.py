"""Search over steps: the parameters its strategies share, and the tree of steps as a fold of the graph.

A node is a thread of kind `step`. Its key is chosen by the strategy, its parent is the step that it continues. The
tree is kept in the view's memo and brought up to date with the threads that changed, so a plan costs what is new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from researcher.strategies.base import InPieces, seed_of
from researcher.strategies.prompts import step_prompt
from researcher.types import Message, Outcome, Sampling, ThreadLimits, Work
from researcher.views import ThreadInfo, View

Aggregate = Literal["last", "min", "prod", "mean"]
"""How the scores of a solution's steps make one: `last` is the common default of process reward models."""


class StepParameters(InPieces):
    """Base of the strategies that search over steps."""

    scorer: str = Field(default="prm", description="verifier that scores each new step, once")
    aggregate: Aggregate = Field(default="last", description="how the scores of a path make its score")
    delimiter: str = Field(default="\n", min_length=1, description="ends a step, and is kept")
    step_tokens: int = Field(default=256, ge=1, description="tokens one step may have")
    depth: int = Field(default=40, ge=1, le=10_000, description="steps a solution may have (search-and-learn: 40)")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="sampling temperature of the steps")

    @property
    def scorers(self) -> tuple[str, ...]:
        """The verifiers that its works name."""
        return (self.scorer,) if self.scorer else ()

    @property
    def longest(self) -> int:
        """Tokens the call of a step may sample: no more than any call, where that was said."""
        return min(self.step_tokens, self.max_tokens) if "max_tokens" in self.model_fields_set else self.step_tokens

    def step(
        self, view: View, key: str, parent: Node | None, *, group: str = "", temperature: float | None = None
    ) -> Work:
        """Work that samples one step after `parent`; a first step where that is None."""
        return Work(
            key=key,
            kind="step",
            group=group,
            parent="" if parent is None else parent.key,
            messages=_first(view.task.question) if parent is None else (),
            scorer=self.scorer,
            sampling=Sampling(
                temperature=self.temperature if temperature is None else temperature,
                max_tokens=self.longest,
                seed=seed_of(view.seed, key),
                stop=(self.delimiter,),
                keep_stop=True,
            ),
            limits=ThreadLimits(turns=1),
        )


def _first(question: str) -> tuple[Message, ...]:
    prompt = step_prompt(question)
    return Message(role="system", content=prompt.system), Message(role="user", content=prompt.user)


class Node:
    """A step. `info` is the thread as it is now; `children` are in submission order."""

    __slots__ = ("children", "depth", "info", "parent")

    def __init__(self, info: ThreadInfo, parent: Node | None) -> None:
        self.info = info
        self.parent = parent
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.children: list[Node] = []

    @property
    def key(self) -> str:
        """The key of its thread."""
        return self.info.key

    @property
    def running(self) -> bool:
        """Whether it is still being sampled."""
        return self.info.outcome is None

    @property
    def complete(self) -> bool:
        """Whether the solution ends here: it has its answer, or the model said nothing more."""
        if self.info.outcome is not Outcome.ANSWERED:
            return False
        ended = not self.info.final.endswith(self.info.work.sampling.stop)
        return self.info.answer is not None or ended or not self.info.final.strip()

    @property
    def alive(self) -> bool:
        """Whether it can be continued: it came to a step, and the solution does not end with it."""
        return self.info.outcome is Outcome.ANSWERED and not self.complete

    @property
    def score(self) -> float:
        """Its step's score; 0 where the scorer could not score."""
        return 0.0 if self.info.score is None else self.info.score

    def path(self) -> list[Node]:
        """The nodes from the first step to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def text(self) -> str:
        """The solution up to here."""
        return "".join(node.info.final for node in self.path())

    def value(self, how: Aggregate) -> float:
        """The score of the path."""
        if how == "last":  # without a walk up the path
            return self.score
        return aggregate([node.score for node in self.path()], how)


def aggregate(scores: Sequence[float], how: Aggregate) -> float:
    """One score of the scores of a solution's steps."""
    match how:
        case "last":
            return scores[-1]
        case "min":
            return min(scores)
        case "prod":
            return math.prod(scores)
        case "mean":
            return sum(scores) / len(scores)


LONGEST_KEY = 120


def child_key(parent: str, child: int | str) -> str:
    """The key of a child, `parent.child`: it says the path, and is short for a path of any length."""
    key = f"{parent}.{child}"
    if len(key) <= LONGEST_KEY:
        return key
    name = key.partition("/")[0]
    return f"{name}/~{blake2b(key.encode(), digest_size=8).hexdigest()}"


class StepTree:
    """All steps of one search. `seq`: the event up to which it is right; `fresh`: the nodes that the last update
    brought, in the order of their changes."""

    __slots__ = ("fresh", "nodes", "roots", "running", "seq")

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.roots: list[Node] = []
        self.running: dict[str, Node] = {}
        self.fresh: list[Node] = []
        self.seq = 0

    @classmethod
    def of(cls, view: View, name: str) -> StepTree:
        """The tree of the view's graph, kept in its memo under `name`."""
        tree = view.memo.get(name)
        if not isinstance(tree, cls):
            tree = view.memo[name] = cls()
        tree.update(view.graph.changes(tree.seq))
        tree.seq = view.graph.seq
        return tree

    def update(self, changes: Iterable[ThreadInfo]) -> list[Node]:
        """Take in threads as they are now; the nodes they are, in the order given. Other kinds are passed over."""
        self.fresh = [self._put(info) for info in changes if info.work.kind == "step"]
        return self.fresh

    def _put(self, info: ThreadInfo) -> Node:
        node = self.nodes.get(info.key)
        if node is None:
            parent = self.nodes.get(info.work.parent)
            node = self.nodes[info.key] = Node(info, parent)
            (self.roots if parent is None else parent.children).append(node)
        node.info = info
        if node.running:
            self.running[node.key] = node
        else:
            self.running.pop(node.key, None)
        return node

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())
