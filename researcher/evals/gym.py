"""`reasoning-gym:NAME`: problems of any generator of reasoning-gym, judged without the holes of its scorers.

Its scorers give partial credit to texts that contain the gold and to empty ones, and that of countdown and puzzle24
accept what breaks their rules; some evaluate the answer with sympy. So: countdown and puzzle24 are judged by our own
rule; of all others only a full score counts, an empty answer is wrong, and the scorer runs in a process of its own
with a time limit. A scorer that raises or is late leaves the answer unverified.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from researcher_tools.verifiers.countdown import check_countdown
from researcher_tools.verifiers.verdicts import settled, unverified
from researcher_tools.verifiers.worker import Worker

from researcher.errors import UserError
from researcher.evals.problem import Problem
from researcher.protocols import Verifier
from researcher.types import Task, Verdict

SEED = 1_900_000_007
"""Far from the seeds of training sets: item i + 1 of seed s is item i of seed s + 1 in nearly all generators."""
SIZE = 10_000
"""Of every data set that is made, so that the first items do not depend on how many are wanted."""
MAX_LENGTH = 20_000
"""Characters of an answer that can be right."""
SECONDS = 10.0
RULES = {"countdown": None, "puzzle24": 24}
"""The generators that our own rule judges, with their fixed target."""


class ReasoningGym:
    """A generator's problems."""

    size = SIZE

    def __init__(self, generator: str) -> None:
        factory = _factory()
        if generator not in factory.DATASETS:
            close = difflib.get_close_matches(generator, list(factory.DATASETS), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {len(factory.DATASETS)} of them."
            raise UserError(f"reasoning-gym has no generator {generator!r}; {hint}")
        self.name = f"reasoning-gym:{generator}"
        self._generator = generator
        judge = NumbersOnce(RULES[generator]) if generator in RULES else FullScore()
        self.verifiers: Mapping[str, Verifier] = {judge.name: judge}

    def problems(self, count: int) -> list[Problem]:
        """Items of a far seed."""
        try:
            data = _factory().create_dataset(self._generator, seed=SEED, size=SIZE)
            return [self._problem(i, data[i]) for i in range(count)]
        except (AssertionError, ArithmeticError, ImportError, LookupError, OSError, TypeError, ValueError) as error:
            raise UserError(f"The generator {self._generator} of reasoning-gym failed: {error}.") from error

    def _problem(self, i: int, item: Mapping[str, Any]) -> Problem:
        if self._generator in RULES:
            numbers = [int(number) for number in item["metadata"]["numbers"]]
            target = RULES[self._generator] or int(item["metadata"]["target"])
            given = {"numbers": numbers, "target": target}
            return Problem(str(i), item["question"], NumbersOnce.name, data=given, rule=True)
        gold = item["answer"]
        return Problem(
            str(i),
            item["question"],
            FullScore.name,
            gold=gold if isinstance(gold, str) else None,
            hidden={"generator": self._generator, "index": i},
        )


class NumbersOnce:
    """Checks an expression against `numbers` and `target` of the task; each number may be used once, or not at all."""

    name = "numbers_once"

    def __init__(self, target: int | None = None) -> None:
        # puzzle24 asks for all four numbers; countdown for "some or all"
        self._all = target is not None

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified for a task without numbers and target."""
        numbers, target = task.data.get("numbers"), task.data.get("target")
        if not isinstance(numbers, list) or not numbers or not isinstance(target, int):
            return unverified(self.name, "the task has no numbers and target")
        used = [int(digits) for digits in re.findall(r"[0-9]{1,9}", answer[:1_000])]
        if not self._all:
            if not used or Counter(used) - Counter(numbers):
                return settled(self.name, False, "uses a number that is not there, or one twice")
            numbers = used
        ok, reason = check_countdown(answer, numbers, target)
        return settled(self.name, ok, reason)


class FullScore:
    """Checks with the generator's own scorer, in a process of its own: only the full score is right."""

    name = "reasoning_gym"

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._worker = Worker("researcher.evals.gym_worker", seconds, "the scorer")

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified where the scorer fails."""
        generator, index = task.data.get("generator"), task.data.get("index")
        if not isinstance(generator, str) or not isinstance(index, int):
            return unverified(self.name, "the task names no item of a generator")
        text = answer.strip()
        if not text or len(text) > MAX_LENGTH:
            return settled(self.name, False, f"empty, or longer than {MAX_LENGTH} characters")
        if task.gold is not None and text == task.gold.strip():
            return settled(self.name, True)
        asked = {"generator": generator, "seed": SEED, "size": SIZE, "index": index, "answer": text}
        try:
            reply = await self._worker.ask(asked)
        except (TimeoutError, OSError, ValueError) as error:
            return unverified(self.name, str(error))
        if (score := reply.get("score")) is None:
            return unverified(self.name, str(reply.get("reason", "the scorer gave no score")))
        return settled(self.name, score == 1.0, f"it scores {score:g}")

    async def aclose(self) -> None:
        """End the process; it is started again if it is needed again."""
        await self._worker.aclose()


def _factory() -> Any:
    """The generators by name. Raises UserError where reasoning-gym is not installed."""
    try:
        importlib.import_module("reasoning_gym")
    except ImportError:
        raise UserError(
            "The suites of reasoning-gym need its package; run: pip install 'researcher-orchestrator[evals]'."
        ) from None
    return importlib.import_module("reasoning_gym.factory")
