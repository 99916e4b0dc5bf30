"""What every verifier must do, as plain checks that raise AssertionError.

`check_verifier` for answers, `check_steps` for scores of steps, `check_states` for state keys, `check_model_verifier`
for verifiers that ask a model; a verifier passes all those whose protocols it has.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import anyio

from researcher.errors import BudgetExceeded, LimitExceeded, ServerFault
from researcher.protocols import Ask, ModelVerifier, StateKey, StepVerifier, Verifier
from researcher.testing.scripted_model import Said, ScriptedModel
from researcher.types import (
    Alternative,
    Completion,
    FinishReason,
    Message,
    ModelRequest,
    Task,
    Usage,
    Verdict,
    VerdictStatus,
)

HOSTILE = (
    "",
    " ",
    "\n\n",
    "\0",
    "\ud800",
    "\x1b[2J",
    "(" * 5_000,
    "-" * 5_000 + "1",
    "9" * 100_000,
    "__import__('os').system('true')",
    "<answer></answer>",
    "correct",
    "True",
    "None",
    "nan",
    "inf",
    "1e999",
    "0/0",
    "\u202e42",
    "x" * 100_000,
)
"""Answers that are wrong for any sane task, and that must neither raise nor take long."""

Steps = Sequence[str]


async def check_verifier(verifier: Verifier, task: Task, *, right: str, wrong: str, seconds: float = 30.0) -> None:
    """Pass if the verifier tells right from wrong, keeps its word, and survives every hostile answer.

    `seconds` is the time that any one verdict may take.
    """
    assert verifier.name.strip(), "the verifier has no name"
    await _expect(verifier, task, right, VerdictStatus.CORRECT, seconds)
    await _expect(verifier, task, wrong, VerdictStatus.WRONG, seconds)
    for answer in HOSTILE:
        verdict = await _verdict(verifier, task, answer, seconds)
        assert verdict.status is not VerdictStatus.CORRECT, f"{answer[:40]!r} was taken as right"
    await _expect(verifier, task, right, VerdictStatus.CORRECT, seconds)
    bare = await _verdict(verifier, Task(question=task.question), right, seconds)
    assert bare.status is VerdictStatus.UNVERIFIED, "without anything to check against, the verdict must be unverified"
    assert bare.reason.strip(), "an unverified verdict must say why"


async def check_steps(
    verifier: Verifier, task: Task, *, live: Sequence[Steps], dead: Sequence[Steps], seconds: float = 30.0
) -> None:
    """Pass if steps that can still lead to a right answer score 0.5 or more, and dead ones less.

    The same steps score the same, whatever was scored in between, and hostile ones neither raise nor take long.
    """
    assert isinstance(verifier, StepVerifier), "it scores no steps"
    for steps in (*live, *dead, *live):
        verdict = await _of_steps(verifier, task, steps, seconds)
        assert verdict.score is not None, f"{list(steps)} have no score: {verdict.reason}"
        assert (verdict.score >= 0.5) == (steps in live), f"{list(steps)} score {verdict.score} ({verdict.reason})"
    for text in HOSTILE:
        for before in ((), *live):
            await _of_steps(verifier, task, (*before, text), seconds)
    await _of_steps(verifier, task, (), seconds)
    bare = await _of_steps(verifier, Task(question=task.question), live[0], seconds)
    if bare.status is VerdictStatus.UNVERIFIED:
        assert bare.reason.strip(), "an unverified verdict must say why"


def check_states(verifier: Verifier, task: Task, *, same: Sequence[Sequence[Steps]], illegal: Sequence[Steps]) -> None:
    """Pass if the steps of one group of `same` have one key, those of two groups two, and illegal ones none."""
    assert isinstance(verifier, StateKey), "it knows no states"
    keys: list[str | None] = []
    for group in same:
        found = {verifier.state_key(task, steps) for steps in group}
        assert len(found) == 1, f"one state has several keys: {found}"
        keys.extend(found)
    assert None not in keys, "a legal state has no key"
    assert len(set(keys)) == len(keys), f"two states have one key: {keys}"
    for steps in illegal:
        assert verifier.state_key(task, steps) is None, f"{list(steps)} are a state"
    for text in HOSTILE:
        key = verifier.state_key(task, (*same[0][0], text))
        assert key is None or isinstance(key, str)
    assert verifier.state_key(Task(question=task.question), same[0][0]) is None, "a task without data has a state"


async def check_model_verifier(
    verifier: Verifier, task: Task, *, good: Said, bad: Said, unreadable: Said, solution: str = "1+1=2"
) -> None:
    """Pass if it asks through what it is bound to, reads the replies, and never makes a verdict of a failure.

    `good`, `bad` and `unreadable` are replies that stand for a right solution, a wrong one, and nothing.
    """
    assert isinstance(verifier, ModelVerifier), "it cannot be bound to a model"
    assert verifier.name.strip(), "the verifier has no name"
    for judged in _ways(verifier, task, solution):
        for reply, status in (
            (good, VerdictStatus.CORRECT),
            (bad, VerdictStatus.WRONG),
            (unreadable, VerdictStatus.UNVERIFIED),
            (ServerFault("the server is down"), VerdictStatus.UNVERIFIED),
            (good, VerdictStatus.CORRECT),
        ):
            model = ScriptedModel(lambda _, reply=reply: reply)
            verdict = await judged(verifier.bound(model.complete))
            assert model.calls >= 1, "the model was not asked"
            assert verdict.status is status, f"{reply!r} makes {verdict.status} ({verdict.reason}), not {status}"
            assert verdict.by == verifier.name, "the verdict is not signed with the verifier's name"
            assert (verdict.score is None) == (status is VerdictStatus.UNVERIFIED)
            assert verdict.score is None or 0.0 <= verdict.score <= 1.0, "the score is not in [0, 1]"
            assert verdict.score is not None or verdict.reason.strip(), "an unverified verdict must say why"
            assert "the server is down" in verdict.reason or not isinstance(reply, ServerFault)
        for limit in (LimitExceeded("calls", 2, 1), BudgetExceeded("tokens", 2, 1)):
            raised: LimitExceeded | None = None
            try:
                await judged(verifier.bound(_refusing(limit)))
            except LimitExceeded as error:
                raised = error
            assert raised is limit, "a limit that was reached was swallowed"
        unbound = await judged(verifier)
        assert unbound.status is VerdictStatus.UNVERIFIED, "without a model the verdict must be unverified"
    for text in HOSTILE:
        for judged in _ways(verifier, task, text):
            await judged(verifier.bound(ScriptedModel(lambda _: good).complete))


def sign_reply(plus: float | None = None, minus: float | None = None, **others: float) -> Completion:
    """A reply whose first token's alternatives have these probabilities; `other` tokens by name."""
    given = {"+": plus, "-": minus, **others}
    found = {token: math.log(p) if p else -math.inf for token, p in given.items() if p is not None}
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return Completion(
        message=Message(role="assistant", content=ranked[0][0] if ranked else ""),
        finish=FinishReason.LENGTH,
        model="scripted",
        usage=Usage(prompt_tokens=1, completion_tokens=1, calls=1),
        alternatives=(tuple(Alternative(token=token, logprob=logprob) for token, logprob in ranked),),
    )


Judged = Callable[[Verifier], Awaitable[Verdict]]


def _ways(verifier: Verifier, task: Task, solution: str) -> list[Judged]:
    """The ways to ask it: of an answer, and of steps where it scores them."""

    async def step(bound: Verifier) -> Verdict:
        assert isinstance(bound, StepVerifier), "bound, it scores no steps"
        return await bound.verify_step(task, (solution,))

    answer: Judged = lambda bound: bound.verify(task, solution)  # noqa: E731
    return [answer, step] if isinstance(verifier, StepVerifier) else [answer]


def _refusing(error: LimitExceeded) -> Ask:
    async def ask(request: ModelRequest) -> Completion:
        raise error

    return ask


async def _expect(verifier: Verifier, task: Task, answer: str, status: VerdictStatus, seconds: float) -> None:
    verdict = await _verdict(verifier, task, answer, seconds)
    assert verdict.status is status, f"{answer!r} is {verdict.status} ({verdict.reason}), not {status}"


async def _verdict(verifier: Verifier, task: Task, answer: str, seconds: float) -> Verdict:
    with anyio.fail_after(seconds):
        verdict = await verifier.verify(task, answer)
    return _signed(verdict, verifier)


async def _of_steps(verifier: StepVerifier, task: Task, steps: Steps, seconds: float) -> Verdict:
    with anyio.fail_after(seconds):
        verdict = await verifier.verify_step(task, steps)
    return _signed(verdict, verifier)


def _signed(verdict: Verdict, verifier: Verifier) -> Verdict:
    assert verdict.by == verifier.name, "the verdict is not signed with the verifier's name"
    assert verdict.score is None or 0.0 <= verdict.score <= 1.0, "the score is not in [0, 1]"
    return verdict
