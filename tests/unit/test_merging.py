"""Exhaustive Game of 24 over puzzles 900 to 999: what merging equal states saves, at the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement, permutations
from typing import NamedTuple

import pytest
from researcher_tools.verifiers import get_verifier
from researcher_tools.verifiers.countdown import check_countdown
from researcher_tools.verifiers.puzzle_steps import Number, join
from researcher_tools.verifiers.reachable import reachable

from researcher.evals.game24 import TEST, puzzles
from researcher.protocols import StateKey
from researcher.types import Task

SAVED = 4.5
"""Times fewer expansions with merging than without: the bar."""


class Node(NamedTuple):
    """Steps as they are written, the numbers they leave, and the expressions that made these."""

    steps: tuple[str, ...]
    left: tuple[Number, ...]
    made_by: tuple[str, ...]


class Search(NamedTuple):
    """How many nodes were expanded, and the first answer that the verifier takes."""

    expanded: int
    answer: str | None


@cache
def moves(left: tuple[Number, ...]) -> tuple[tuple[int, int, str, str, tuple[Number, ...]], ...]:
    """Every legal step of each two numbers left: their places, how they are joined, the line, what is left."""
    found = []
    for i, j in permutations(range(len(left)), 2):
        rest = [number for k, number in enumerate(left) if k not in (i, j)]
        for op in "+-*/" if i < j else "-/":
            if (made := join(left[i], op, left[j])) is not None:
                after = (*rest, made)
                found.append((i, j, op, f"({left[i]}){op}({left[j]})={made} left {' '.join(map(str, after))}\n", after))
    return tuple(found)


@cache
def lines_once(left: tuple[Number, ...]) -> tuple[tuple[int, int, str, str, tuple[Number, ...]], ...]:
    """The same, but of equal lines (which equal numbers give) the first alone."""
    return tuple({move[3]: move for move in reversed(moves(left))}.values())


def proposals(node: Node, *, once: bool) -> Iterator[Node]:
    """Every legal next step; of a single number, the answer."""
    if len(node.left) == 1:
        yield Node((*node.steps, f"<answer>{node.made_by[0]}</answer>"), (), node.made_by)
        return
    for i, j, op, line, after in (lines_once if once else moves)(node.left):
        rest = [made for k, made in enumerate(node.made_by) if k not in (i, j)]
        yield Node((*node.steps, line), after, (*rest, f"({node.made_by[i]}{op}{node.made_by[j]})"))


def search(task: Task, verifier: StateKey | None, *, once: bool = False) -> Search:
    """Breadth first, to the end; with a verifier's state keys, a state is expanded once. `once`: equal lines too."""
    numbers = task.data["numbers"]
    level = [Node((), tuple(numbers), tuple(map(str, numbers)))]
    seen: set[str] = set()
    expanded, answer = 0, None
    while level:
        reached = []
        for node in level:
            expanded += 1
            for child in proposals(node, once=once):
                if not child.left:
                    if answer is None and check_countdown(child.made_by[0], numbers, 24).ok:
                        answer = child.made_by[0]
                    continue
                if verifier is not None:
                    key = verifier.state_key(task, child.steps)
                    assert key is not None, child.steps
                    if key in seen:
                        continue
                    seen.add(key)
                reached.append(child)
        level = reached
    return Search(expanded, answer)


def _task(numbers: tuple[int, ...]) -> Task:
    return Task(question="Make 24.", verifier="game24", data={"numbers": list(numbers)})


def _keys() -> StateKey:
    verifier = get_verifier("game24")
    assert isinstance(verifier, StateKey)
    return verifier


def test_the_puzzles_are_those_of_the_game_in_the_order_of_tree_of_thoughts() -> None:
    assert len(puzzles()) == 1362
    assert len(set(puzzles())) == 1362
    assert all(puzzle == tuple(sorted(puzzle)) and puzzle[0] >= 1 and puzzle[3] <= 13 for puzzle in puzzles())
    assert (puzzles()[0], puzzles()[900], puzzles()[999]) == ((1, 1, 4, 6), (4, 5, 6, 10), (4, 9, 10, 13))


@pytest.mark.slow
def test_the_list_is_all_hands_that_can_be_solved() -> None:
    hands = combinations_with_replacement(range(1, 14), 4)
    assert set(puzzles()) == {hand for hand in hands if reachable(hand, 24)}


def test_one_puzzle_merged_and_not() -> None:
    """Small enough to check by hand: 1 and 23 are joined in 6 ways, two of them into 23."""
    task = _task((1, 23))
    merged, whole = search(task, _keys()), search(task, None)
    assert (whole.expanded, merged.expanded) == (1 + 6, 1 + 5)
    assert merged.answer == whole.answer == "(1+23)"


@pytest.mark.slow
def test_merging_saves_expansions_and_no_answers() -> None:
    merged = whole = 0
    for number in TEST:
        task = _task(puzzles()[number])
        with_keys, without = search(task, _keys()), search(task, None)
        assert with_keys.answer is not None
        assert without.answer is not None
        merged, whole = merged + with_keys.expanded, whole + without.expanded
    assert (merged, whole) == (89_738, 454_218)  # all multisets that can be reached, and all ways to reach them
    assert whole / merged >= SAVED


@pytest.mark.slow
def test_a_proposer_that_says_no_line_twice_leaves_less_to_save() -> None:
    """Equal numbers give equal lines; those alone, without knowing the state, are one part of the saving."""
    merged = once = 0
    for number in TEST[:10]:
        task = _task(puzzles()[number])
        merged, once = merged + search(task, _keys()).expanded, once + search(task, None, once=True).expanded
    assert 4.2 <= once / merged < SAVED
