"""Problems to train on, apart from those that an evaluation of the suite begins with: `split(suite, 500, 100)`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import count as naturals
from typing import NamedTuple

from researcher_tools.verifiers.countdown import solve_countdown

from researcher.errors import UserError
from researcher.evals.generated import Countdown, Documents
from researcher.evals.listed import Game24
from researcher.evals.problem import Problem, Suite
from researcher.train.embedded.tasks import countdown
from researcher.types import Task

NAMESPACE = "train"
"""Begins the seeds of generated training problems."""


class Split(NamedTuple):
    """Tasks with what judges them; no problem is in both."""

    train: list[Task]
    held_out: list[Task]
    texts: Mapping[str, Mapping[str, str]] = {}
    """Of a question, the documents that it is about, by file name."""


def split(suite: Suite, train: int, held_out: int) -> Split:
    """The first `held_out` problems are for evaluation, others for training.

    Generated training problems are drawn from numbers and names that no evaluation draws; with `game24:...:held-out`
    they are the puzzles of that range which it leaves out. Where a suite has an end, training takes what comes after
    the held-out ones. Raises UserError where there are too few, or none can be rewarded here.
    """
    if suite.verifiers:
        raise UserError(f"The suite {suite.name} is judged by a program of its own, which training does not run yet.")
    kept = suite.problems(held_out)
    if isinstance(suite, Countdown):
        return Split(countdown_tasks(suite, train), [task_of(problem) for problem in kept])
    if isinstance(suite, Documents):
        made = document_problems(suite, train)
        texts = {problem.question: problem.texts for problem in [*made, *kept]}
        return Split([task_of(problem) for problem in made], [task_of(problem) for problem in kept], texts)
    if isinstance(suite, Game24) and suite.held_out:
        others = suite.others(train)
        if not others:
            raise UserError(f"All puzzles of {suite.name} are held out: none is left to train on; give a wider range.")
        return Split([task_of(problem) for problem in others], [task_of(problem) for problem in kept])
    if suite.size is not None and suite.size <= held_out:
        raise UserError(
            f"The suite {suite.name} has {suite.size} problems, of which {held_out} are held out: none is left to "
            "train on; give --held-out a smaller number."
        )
    asked = {problem.question for problem in kept}
    more = suite.problems(held_out + train)[held_out:]
    return Split([task_of(p) for p in more if p.question not in asked], [task_of(problem) for problem in kept])


def mixed(splits: Sequence[Split]) -> Split:
    """All of them as one, in their order; a question that is held out by one is trained on by none. Raises UserError
    where two ask the same with other documents."""
    if len(splits) == 1:
        return splits[0]
    held_out = {task.question: task for each in splits for task in each.held_out}
    train = {task.question: task for each in splits for task in each.train if task.question not in held_out}
    texts: dict[str, Mapping[str, str]] = {}
    for each in splits:
        if twice := next((question for question in each.texts if question in texts), None):
            raise UserError(f"Two of the suites ask {twice!r}: give each suite once.")
        texts |= each.texts
    return Split(list(train.values()), list(held_out.values()), texts)


def task_of(problem: Problem) -> Task:
    """The problem with its gold and its verifier: the run's prompts show neither."""
    return Task(
        question=problem.question,
        tools=problem.tools,
        verifier=problem.grader,
        gold=problem.gold,
        data={**problem.data, **problem.hidden},
    )


def document_problems(suite: Documents, count: int) -> list[Problem]:
    """Questions over worlds whose names no evaluation draws, no two alike."""
    found: dict[str, Problem] = {}
    for i in naturals():
        if len(found) >= count:
            break
        problem = suite.draw(NAMESPACE, i, held_out=False)
        found.setdefault(problem.question, problem)
    return list(found.values())


def countdown_tasks(suite: Countdown, count: int) -> list[Task]:
    """Countdown problems that the evaluation can never draw, no two alike."""
    found: dict[tuple[int, ...], Task] = {}
    for i in naturals():
        if len(found) >= count:
            break
        size = suite.sizes[i % len(suite.sizes)]
        rng = random.Random(f"{NAMESPACE}/countdown_{size}/{i}")
        numbers, target = countdown.problem(rng, size, held_out=False)
        shown = ", ".join(map(str, numbers))
        question = rng.choice(countdown.PHRASINGS).format(numbers=shown, target=target)
        given = {"numbers": numbers, "target": target, "domain": f"countdown-{size}"}
        gold = solve_countdown(numbers, target)  # for hints alone: the rule judges, and takes any solution
        task = Task(question=question, verifier="countdown", gold=gold, data=given)
        found.setdefault((*sorted(numbers), target), task)
    return list(found.values())
