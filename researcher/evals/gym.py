"""`reasoning-gym:NAME`: problems of any generator of reasoning-gym, judged without the holes of its scorers.

Its scorers give credit to texts that contain the gold and to empty ones; some give it in full, to a hedge ("G or maybe
not") or to anything at all; those of countdown and puzzle24 accept what breaks their rules; some evaluate the answer
with sympy, and some raise. So: countdown and puzzle24 are judged by our own rule; where the gold is the one right
answer and the scorer is known to be lenient, only the gold is right; elsewhere only a full score counts, of an answer
in the form that was asked for, and only if hedges of it get less. The scorer runs in a process of its own with a time
limit. One that raises, is late or is lenient in a way we do not know leaves the answer unverified.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from typing import Any

from researcher_tools.verifiers.exact import normal
from researcher_tools.verifiers.numeric import plain_number
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

RULES = {"countdown": "countdown", "puzzle24": "game24"}
"""The generators that our own rule judges."""
GOLD_ALONE = frozenset(
    {
        "fraction_simplification",
        "game_of_life_halting",
        "gsm_symbolic",
        "knights_knaves",
        "letter_jumble",
        "list_functions",
    }
)
"""Generators whose gold is the one right answer and whose scorer takes others too (list_functions: whose items change
from one look to the next)."""
_NUMBER = r"-?\d+(?:\.\d+)?"
FORMS = {
    "kakurasu": re.compile(r"[01](?:\s+[01])*"),
    "polynomial_equations": re.compile(rf"{_NUMBER}(?:\s*,\s*{_NUMBER})*"),
    "quantum_lock": re.compile(r"[A-Z](?:\s*→\s*[A-Z])*"),
    "sokoban": re.compile(r"[LRUD]+"),
    "survo": re.compile(r"\d+(?:\s+\d+)*"),
}
"""What an answer must be for lenient scorers of generators with several right answers."""


class ReasoningGym:
    """A generator's problems."""

    size = SIZE

    def __init__(self, generator: str) -> None:
        known = list(_factory().DATASETS)
        if generator not in known:
            close = difflib.get_close_matches(generator, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {len(known)} others."
            raise UserError(f"reasoning-gym has no generator {generator!r}; {hint}")
        self.name = f"reasoning-gym:{generator}"
        self._generator = generator
        self.verifiers: Mapping[str, Verifier] = {} if generator in RULES else {FullScore.name: FullScore()}

    def problems(self, count: int) -> list[Problem]:
        """Items of a far seed."""
        try:
            data = _factory().create_dataset(self._generator, seed=SEED, size=SIZE)
            return [self._problem(i, data[i]) for i in range(count)]
        except (AssertionError, ArithmeticError, ImportError, LookupError, OSError, TypeError, ValueError) as error:
            raise UserError(f"The generator {self._generator} of reasoning-gym failed: {error}.") from error

    def _problem(self, i: int, item: Mapping[str, Any]) -> Problem:
        question, gold, metadata = item["question"], item["answer"], item["metadata"]
        if self._generator in RULES:
            given = {"numbers": [int(number) for number in metadata["numbers"]], "target": metadata.get("target", 24)}
            return Problem(str(i), question, RULES[self._generator], data=given, rule=True)
        named = {"generator": self._generator, "index": i, "asked": question}
        return Problem(str(i), question, FullScore.name, gold=gold if isinstance(gold, str) else None, hidden=named)


class FullScore:
    """Checks with the generator's own scorer, in a process of its own; one check may take `seconds`."""

    name = "reasoning_gym"

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._worker = Worker("researcher.evals.gym_worker", seconds, "the scorer")

    async def verify(self, task: Task, answer: str) -> Verdict:
        """Correct, wrong, or unverified where the scorer fails or cannot be trusted."""
        generator, index, asked = (task.data.get(name) for name in ("generator", "index", "asked"))
        if not isinstance(generator, str) or not isinstance(index, int):
            return unverified(self.name, "the task names no item of a generator")
        text = answer.strip()
        if not text or len(text) > MAX_LENGTH:
            return settled(self.name, False, f"empty, or longer than {MAX_LENGTH} characters")
        if task.gold is not None and same(text, task.gold):
            return settled(self.name, True)
        if generator in GOLD_ALONE:
            return settled(self.name, False, "not the gold answer")
        form = FORMS.get(generator)
        if form is not None and form.fullmatch(text) is None:
            return settled(self.name, False, "not in the form that was asked for")
        question = {"generator": generator, "seed": SEED, "size": SIZE, "index": index, "asked": asked, "answer": text}
        try:
            reply = await self._worker.ask(question)
        except (TimeoutError, OSError, ValueError) as error:
            return unverified(self.name, str(error))
        return self._judged(reply, trusted=form is not None)

    def _judged(self, reply: Mapping[str, Any], *, trusted: bool) -> Verdict:
        score, lenient = reply.get("score"), reply.get("lenient")
        if not isinstance(score, float):
            return unverified(self.name, str(reply.get("reason", "the scorer gave no score")))
        if score == 1.0 and lenient is not None and not trusted:
            return unverified(self.name, f"not the gold answer, and the scorer takes {lenient!r} too")
        return settled(self.name, score == 1.0, f"it scores {score:g}")

    async def aclose(self) -> None:
        """End the process; it is started again if it is needed again."""
        await self._worker.aclose()


def same(answer: str, gold: str) -> bool:
    """Whether an answer is the gold text, or the same number."""
    if normal(answer) == normal(gold):
        return True
    value = plain_number(gold)
    return value is not None and plain_number(answer) == value


def _factory() -> Any:
    """The module with the generators by name. Raises UserError where reasoning-gym is not installed."""
    try:
        importlib.import_module("reasoning_gym")
    except ImportError:
        raise UserError(
            "The suites of reasoning-gym need its package; run: pip install 'researcher-orchestrator[evals]'."
        ) from None
    return importlib.import_module("reasoning_gym.factory")
