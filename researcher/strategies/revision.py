"""What the strategies share whose threads read what others wrote: revisions and aggregations.

Such a thread reads attempts, not sources, and calls no tools; `Work.uses` says whose attempts it read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from researcher.strategies.base import Parameters, conclude, support, wants_support
from researcher.strategies.prompts import Prompt, aggregate_prompt, revise_prompt
from researcher.types import Answer, Task, VerdictStatus, Work
from researcher.views import ThreadInfo, View


def reading(question: str, attempts: Sequence[ThreadInfo]) -> Prompt:
    """The prompt that asks for one answer from these attempts; of a single one, for its revision."""
    if len(attempts) == 1:
        return revise_prompt(question, attempts[0].final)
    return aggregate_prompt(question, [attempt.final for attempt in attempts])


def rewrite(
    strategy: Parameters,
    view: View,
    key: str,
    attempts: Sequence[ThreadInfo],
    *,
    group: str,
    temperature: float,
    scorer: str = "",
) -> Work:
    """A thread that makes one answer of these attempts."""
    prompt = reading(view.task.question, attempts)
    work = strategy.work(view, key, prompt, group=group, temperature=temperature, scorer=scorer)
    return msgspec.structs.replace(work, uses=tuple([attempt.key for attempt in attempts]))


def is_right(thread: ThreadInfo) -> bool:
    """Whether the task's verifier said that its answer is right."""
    return thread.verdict is not None and thread.verdict.status is VerdictStatus.CORRECT


def value(thread: ThreadInfo, scorer: str) -> float | None:
    """The score of the thread's answer in [0, 1]: the scorer's, or without one that of the task's verifier.

    None where nobody could score it.
    """
    if scorer:
        return thread.score
    if thread.verdict is None or thread.verdict.status is VerdictStatus.UNVERIFIED:
        return None
    return float(is_right(thread)) if thread.verdict.score is None else thread.verdict.score


def settle(view: View, supporters: Iterable[ThreadInfo], *, of: int, reason: str) -> Answer:
    """The answer these agreeing threads give, with the claims of every thread that gave it.

    Who revised it read no sources; the quotes of those whose answer it was bear it out as well.
    """
    answer = conclude(supporters, view.graph, of=of, wanted=wants_support(view.task), reason=reason)
    if answer.supported is not False or not _by_quotes(view.task):
        return answer
    same = [thread for thread in view.graph.threads() if thread.canonical == answer.canonical]
    supported, claims = support(same, wanted=True)
    return msgspec.structs.replace(answer, supported=supported, claims=claims)


def _by_quotes(task: Task) -> bool:
    """Whether quotes, and no verifier, bear an answer out."""
    return task.verifier is None
