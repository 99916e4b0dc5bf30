"""Number puzzles for test-time compute: solving step by step, and judging, proposing, choosing and mending solutions.

The policy guesses: it writes one solution, drawn among many, without a search, so that samples differ and a search
over its lines is worth something. Every label comes from an exact search.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from researcher.strategies.prompts import (
    Prompt,
    aggregate_prompt,
    choose_prompt,
    outcome_prompt,
    process_prompt,
    propose_prompt,
    revise_prompt,
    step_prompt,
    value_prompt,
)
from researcher.train.embedded.tasks.countdown import PHRASINGS, value_of
from researcher.train.embedded.tasks.example import Example, Message, Skill, system, user, write
from researcher.train.embedded.tasks.puzzles import (
    Move,
    Puzzle,
    State,
    after,
    draw,
    expression,
    lines,
    moves,
    reachable,
    solve,
    walk,
    worked,
)

KINDS = ("3", "4", "24")
PROPOSALS = 8
GIVEN_THOUGHT = "<think>\n\n</think>\n\n"
"""What a server puts before the reply when thinking is switched off; some examples begin with it."""


class Attempt(NamedTuple):
    """A solution as somebody wrote it: steps and an answer, or the bare expression."""

    text: str
    expression: str


def make(rng: random.Random, skill: Skill, *, held_out: bool = False) -> Example:
    """One example of one of these skills."""
    kind = skill.removeprefix("step_") if skill.startswith("step_") else rng.choices(KINDS, (3, 3, 3))[0]
    puzzle = draw(rng, kind, held_out=held_out)
    question = puzzle.ask(rng.randrange(len(PHRASINGS)))
    match skill:
        case "process" | "value":
            prompt, answer = _state_verdict(rng, puzzle, question, skill)
            return _example(rng, skill, prompt, answer, answer)
        case "outcome":
            right = rng.random() < 0.5
            attempt = _right(rng, puzzle) if right else _wrong(rng, puzzle)
            answer = "+" if right else "-"
            return _example(rng, skill, outcome_prompt(question, attempt.text), answer, answer)
        case "propose":
            prompt, answer = _propose(rng, puzzle, question)
            return _example(rng, skill, prompt, answer, answer)
        case "choose":
            prompt, answer = _choose(rng, puzzle, question)
            return _example(rng, skill, prompt, answer, answer)
        case "revise":
            attempt = _right(rng, puzzle) if rng.random() < 0.4 else _wrong(rng, puzzle)
            content, answer = _mend(rng, puzzle, [attempt])
            return _example(rng, skill, revise_prompt(question, attempt.text), content, answer)
        case "aggregate":
            return _aggregate(rng, puzzle, question)
    content, answer = _chain(rng, puzzle)
    return _example(rng, skill, step_prompt(question), content, answer)


def _example(rng: random.Random, skill: Skill, prompt: Prompt, content: str, answer: str) -> Example:
    final: Message = write(content)
    if rng.random() < 0.2:
        final["reasoning_content"] = ""
    return Example(skill, [system(prompt.system), user(prompt.user), final], (), answer, {})


def _chain(rng: random.Random, puzzle: Puzzle) -> tuple[str, str]:
    path = solve(rng, puzzle.state, puzzle.target)
    assert path is not None
    return _written(puzzle.state, path)


def _written(state: State, path: tuple[Move, ...]) -> tuple[str, str]:
    made = expression(state, path)
    return "\n".join([*lines(state, path), f"<answer>{made}</answer>"]), made


def _right(rng: random.Random, puzzle: Puzzle) -> Attempt:
    text, made = _chain(rng, puzzle)
    return Attempt(text if rng.random() < 0.5 else made, made)


def _wrong(rng: random.Random, puzzle: Puzzle) -> Attempt:
    """A wrong solution: of another value, with a false operation, or with other numbers."""
    state, target = puzzle.state, puzzle.target
    while True:
        form = rng.random()
        path = walk(rng, state, len(state) - 1) if form < 0.4 else solve(rng, state, target)
        assert path is not None
        if 0.4 <= form < 0.7:  # right but for the last move or the last two
            kept = path[: -1 if rng.random() < 0.6 else -2]
            left = after(state, kept)
            path = (*kept, *walk(rng, left, len(left) - 1))
        text, made = _written(state, path)
        if form >= 0.7:
            made = _other_number(rng, made, puzzle)
            text = made
        if form < 0.7 and rng.random() < 0.4:  # the last step claims the target
            *before, _ = lines(state, path)
            last = path[-1]
            claim = last._replace(made=target).text
            text = "\n".join([*before, f"{claim} left {target}", f"<answer>{made}</answer>"])
        if value_of(made, puzzle.numbers) != target:
            return Attempt(text if rng.random() < 0.6 else made, made)


def _other_number(rng: random.Random, made: str, puzzle: Puzzle) -> str:
    parts = made.replace("(", "( ").replace(")", " )").split()
    places = [i for i, part in enumerate(parts) if part.isdigit()]
    i = rng.choice(places)
    old = int(parts[i])
    options = [n for n in (*puzzle.numbers, old + 1, old - 1, old + 10, rng.randrange(1, 100)) if n != old and n > 0]
    parts[i] = str(rng.choice(options))
    return " ".join(parts).replace("( ", "(").replace(" )", ")")


def _state_verdict(rng: random.Random, puzzle: Puzzle, question: str, skill: Skill) -> tuple[Prompt, str]:
    """Steps so far and whether they can lead to the target, both verdicts (or all three values) as often."""
    wanted = rng.choice(("sure", "likely", "impossible") if skill == "value" else ("+", "-"))
    while True:
        written, left = _progress(rng, puzzle, good=wanted not in ("impossible", "-"))
        if written is None:
            continue
        live = left is not None and reachable(left, puzzle.target)
        if skill == "process":
            if ("+" if live else "-") == wanted:
                return process_prompt(question, written), wanted
            continue
        found = "impossible" if not live else "sure" if left is not None and len(left) <= 2 else "likely"
        if found == wanted or (wanted == "likely" and found == "sure" and len(puzzle.numbers) == 3):
            return value_prompt(question, written), found


def _progress(rng: random.Random, puzzle: Puzzle, *, good: bool) -> tuple[list[str] | None, State | None]:
    """Some steps as written, and the state they leave (None: they are false)."""
    state, target = puzzle.state, puzzle.target
    length = rng.randrange(0 if good else 1, len(state))
    path = solve(rng, state, target) or ()
    if good:
        path = path[:length]
        if rng.random() < 0.1 and length == len(state) - 1:
            return [*lines(state, path), f"<answer>{expression(state, path)}</answer>"], after(state, path)
        return lines(state, path), after(state, path)
    kept = path[: length - 1] if rng.random() < 0.7 else walk(rng, state, length - 1)
    form = rng.random()
    if form < 0.15:  # a false step
        return _false(rng, state, (*kept, *walk(rng, after(state, kept), 1))), None
    path = (*kept, *walk(rng, after(state, kept), 1))
    written = lines(state, path)
    if len(path) == len(state) - 1 and rng.random() < 0.2:
        written.append(f"<answer>{expression(state, path)}</answer>")
    return written, after(state, path)


def _false(rng: random.Random, state: State, path: tuple[Move, ...]) -> list[str]:
    """The steps, the last of which is false: its result, or a number that is left."""
    last = path[-1]
    made = max(1, int(last.made) + rng.choice((-10, -2, -1, 1, 2, 10)))
    if made == last.made:
        made += 1
    left = list(after(state, path))
    if rng.random() < 0.5 or len(left) == 1:
        left.remove(last.made)
        left.append(made)
        text = f"{last._replace(made=made).text}"
    else:
        i = rng.randrange(len(left))
        left[i] = rng.randrange(1, 100) if rng.random() < 0.5 else left[i] + 1
        text = last.text
    if tuple(sorted(left)) == after(state, path):
        left.append(1)
    return [*lines(state, path)[:-1], f"{text} left {' '.join(map(str, sorted(left)))}"]


def _propose(rng: random.Random, puzzle: Puzzle, question: str) -> tuple[Prompt, str]:
    """Next steps, those that can still lead to the target first."""
    state, target = puzzle.state, puzzle.target
    length = rng.choices(range(len(state)), [3, 3, 2, 1][: len(state)])[0]
    path = solve(rng, state, target) or ()
    path = path[:length] if rng.random() < 0.8 else walk(rng, state, length)
    left = after(state, path)
    prompt = propose_prompt(question, lines(state, path))
    if len(left) == 1:
        return prompt, f"<answer>{expression(state, path)}</answer>"
    options = [(f"{move.text} left {' '.join(map(str, then))}", then) for move, then in moves(left)]
    rng.shuffle(options)
    good = [text for text, then in options if reachable(then, target)]
    bad = [text for text, then in options if not reachable(then, target)]
    return prompt, "\n".join([*good[:5], *bad][:PROPOSALS])


def _choose(rng: random.Random, puzzle: Puzzle, question: str) -> tuple[Prompt, str]:
    """Candidates of which one can still be right, and its number."""
    count = rng.randrange(2, 6)
    while True:
        good, state = _progress(rng, puzzle, good=True)
        if good and state is not None:
            break
    candidates = ["\n".join(good)]
    while len(candidates) < count:
        bad, left = _progress(rng, puzzle, good=False)
        if bad and (left is None or not reachable(left, puzzle.target)):
            candidates.append("\n".join(bad))
    if rng.random() < 0.3:  # whole solutions
        candidates = [_right(rng, puzzle).text, *(_wrong(rng, puzzle).text for _ in range(count - 1))]
    order = rng.sample(range(count), count)
    return choose_prompt(question, [candidates[i] for i in order]), str(order.index(0) + 1)


def _check(puzzle: Puzzle, attempt: Attempt) -> tuple[str, bool]:
    """An expression worked out in one line: its numbers, its steps, yes or no."""
    leaves, steps, value = worked(attempt.expression)
    right = leaves == sorted(puzzle.numbers) and value == puzzle.target
    return f"{' '.join(map(str, leaves))}: {' '.join(steps)} {'yes' if right else 'no'}", right


def _mend(rng: random.Random, puzzle: Puzzle, attempts: list[Attempt]) -> tuple[str, str]:
    """The checks up to the first right attempt, then its answer, else a new solution."""
    checks: list[str] = []
    for attempt in attempts:
        line, right = _check(puzzle, attempt)
        checks.append(line)
        if right:
            return "\n".join([*checks, f"<answer>{attempt.expression}</answer>"]), attempt.expression
    text, made = _chain(rng, puzzle)
    return "\n".join([*checks, text]), made


def _aggregate(rng: random.Random, puzzle: Puzzle, question: str) -> Example:
    count = rng.choice((2, 2, 3, 3, 4, 4, 5))
    attempts = [_right(rng, puzzle) if rng.random() < 0.3 else _wrong(rng, puzzle) for _ in range(count)]
    content, answer = _mend(rng, puzzle, attempts)
    prompt = aggregate_prompt(question, [attempt.text for attempt in attempts])
    return _example(rng, "aggregate", prompt, content, answer)
