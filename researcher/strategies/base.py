"""What strategies share: parameters as a frozen pydantic model, seeds, and the first messages of a thread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from researcher.strategies.prompts import Prompt
from researcher.types import Answer, Message, Outcome, Sampling, Task, ThreadLimits, VerdictStatus, Work
from researcher.views import GraphView, ThreadInfo, View


class Parameters(BaseModel):
    """Base of the strategies: their fields are their parameters, checked when they are built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=1024, ge=1, description="tokens one model call may sample")
    turns: int = Field(default=12, ge=1, description="model calls one thread may make")

    @property
    def needs(self) -> frozenset[str]:
        """Capability names the model must have, whatever the task."""
        return frozenset()

    @property
    def calls_tools(self) -> bool:
        """Whether its threads can call the task's tools; where none can, a task with tools is refused."""
        return True

    @property
    def cancels(self) -> bool:
        """Whether it stops threads early; their calls are streamed then, so that what they cost is known."""
        return True

    def work(
        self,
        view: View,
        key: str,
        prompt: Prompt,
        *,
        role: str = "reasoner",
        group: str = "",
        tools: tuple[str, ...] = (),
        temperature: float = 0.0,
        reserved: bool = False,
        verify: bool = True,
        scorer: str = "",
        shots: tuple[Message, ...] = (),
    ) -> Work:
        """A thread that starts from a prompt, with a seed of its own; `shots` stand before the question."""
        system, user = Message(role="system", content=prompt.system), Message(role="user", content=prompt.user)
        return Work(
            key=key,
            role=role,
            group=group,
            tools=tools,
            reserved=reserved,
            verify=verify,
            scorer=scorer,
            messages=(system, *shots, user),
            sampling=Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=seed_of(view.seed, key)),
            limits=ThreadLimits(turns=self.turns),
        )


class InPieces(Parameters):
    """Base of the strategies whose works are pieces of a reply, each continued by the next."""

    @property
    def needs(self) -> frozenset[str]:
        """Pieces can be sampled where a begun reply can be continued."""
        return frozenset({"steps"})

    @property
    def calls_tools(self) -> bool:
        """No: a piece of a reply ends before a tool could answer."""
        return False


EVIDENCE_TOOLS = frozenset({"search", "read", "fetch"})
"""Tools that show sources: who has one is expected to quote."""


def wants_support(task: Task) -> bool:
    """Whether an answer to this task should be borne out by a quoted source or a verifier."""
    return task.verifier is not None or not EVIDENCE_TOOLS.isdisjoint(task.tools)


def seed_of(seed: int, key: str) -> int:
    """A sampling seed in [0, 2^31) that depends only on the run's seed and the work's key."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big") >> 1


def support(threads: Iterable[ThreadInfo], *, wanted: bool) -> tuple[bool | None, tuple[str, ...]]:
    """Whether a verifier or a quoted source bears these threads' answer out, and the claims that do.

    None where neither a verifier nor evidence was `wanted` or there.
    """
    claims: dict[str, None] = {}
    verdicts = set()
    for thread in threads:
        if thread.verdict is not None:
            verdicts.add(thread.verdict.status)
        claims.update(dict.fromkeys(thread.claims))
    if VerdictStatus.CORRECT in verdicts:
        return True, tuple(claims)
    if verdicts:
        return False, tuple(claims)
    if claims or wanted:
        return bool(claims), tuple(claims)
    return None, ()


def conclude(threads: Iterable[ThreadInfo], graph: GraphView, *, of: int, wanted: bool, reason: str) -> Answer:
    """The answer these agreeing threads give; `of` is how many votes there were."""
    supporters = list(threads)
    supported, claims = support(supporters, wanted=wanted)
    first = supporters[0]
    assert first.answer is not None
    assert first.canonical is not None
    return Answer(
        text=first.answer,
        canonical=first.canonical,
        votes=len(supporters),
        of=of,
        claims=claims,
        body=first.final,
        reason=reason,
        supported=supported,
    )


def conclude_runs(answers: Iterable[Answer], *, of: int, reason: str) -> Answer:
    """The answer these agreeing runs give; `of` is how many votes there were."""
    supporters = list(answers)
    claims = dict.fromkeys(claim for answer in supporters for claim in answer.claims)
    words = {answer.supported for answer in supporters}
    first = supporters[0]
    return Answer(
        text=first.text,
        canonical=first.canonical,
        votes=len(supporters),
        of=of,
        claims=tuple(claims),
        body=first.body,
        reason=reason,
        supported=True if True in words else False if False in words else None,
    )


def failure(threads: Iterable[ThreadInfo]) -> str:
    """Why no thread gave an answer, in one sentence."""
    reasons = [f"{thread.key}: {thread.outcome} ({thread.detail})" for thread in threads if thread.outcome]
    broken = [thread for thread in threads if thread.outcome is Outcome.FAILED]
    if not reasons:
        return "no thread gave an answer; none could be started"
    head = f"{len(broken)} of {len(reasons)} threads failed; " if broken else ""
    return f"no thread gave an answer; {head}{'; '.join(reasons[:3])}"
