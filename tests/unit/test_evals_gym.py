"""reasoning-gym's suites: its holes are closed, and one that we do not know leaves the answer unverified."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from researcher.errors import UserError
from researcher.evals.gym import SEED, SIZE, FullScore
from researcher.evals.problem import Grader, Problem
from researcher.evals.suites import open_suite, problems_of
from researcher.types import VerdictStatus

pytestmark = pytest.mark.anyio

FACTORY = '''
"""A small stand-in with the same interface and the same kinds of holes."""
import os

class Data:
    def __init__(self, name, seed, size):
        self.name, self.seed, self.size, self.looks = name, seed, size, 0

    def __getitem__(self, i):
        n = self.seed + i
        match self.name:
            case "countdown":
                return {"question": f"Make 24 from 6, 4, 1 ({n})", "answer": "6*4*1",
                        "metadata": {"numbers": [6, 4, 1], "target": 24}}
            case "puzzle24":
                return {"question": f"24 ({n})", "answer": "x", "metadata": {"numbers": [6, 4, 1, 1]}}
            case "graph_color":
                return {"question": f"colour ({n})", "answer": None, "metadata": {}}
            case "shifting":
                self.looks += 1
                return {"question": f"look {os.getpid()}/{self.looks}", "answer": "gold", "metadata": {}}
            case "failing":
                raise ValueError("no words")
        return {"question": f"say gold ({n})", "answer": "gold", "metadata": {}}

    def score_answer(self, answer, item):
        match self.name:
            case "countdown" | "puzzle24" | "lenient" | "knights_knaves" | "sokoban":
                return 1.0
            case "graph_color":
                return 1.0 if answer == "1: red" else 0.01
            case "raises":
                raise KeyError(answer)
            case "slow":
                while True:
                    pass
            case "prints":
                print("noise")
                return 1.0 if answer in ("gold", "or") else 0.0
        return 1.0 if answer == "gold" else 0.9 if "gold" in answer else 0.01

NAMES = ("countdown", "puzzle24", "graph_color", "shifting", "failing", "lenient", "knights_knaves", "sokoban",
         "raises", "slow", "prints", "partial")
DATASETS = {name: Data for name in NAMES}

def create_dataset(name, seed, size):
    return Data(name, seed, size)
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "reasoning_gym"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        del sys.modules[name]


async def verdict(generator: str, answer: str, *, seconds: float = 60.0) -> VerdictStatus:
    suite = open_suite(f"reasoning-gym:{generator}")
    (problem,) = problems_of(suite, 1)
    own = {FullScore.name: FullScore(seconds=seconds)} if suite.verifiers else {}
    grader = Grader(own)
    try:
        return (await grader.grade(problem, answer)).status
    finally:
        await grader.aclose()


@pytest.mark.parametrize(
    ("generator", "answer", "status"),
    [
        ("countdown", "6*4*1", VerdictStatus.CORRECT),
        ("countdown", "(6+4+1)*0+24", VerdictStatus.WRONG),
        ("countdown", "(6+4+1)*0e0+24e0", VerdictStatus.WRONG),
        ("puzzle24", "6*4*1*1", VerdictStatus.CORRECT),
        ("puzzle24", "6*4+1-1", VerdictStatus.CORRECT),
        ("puzzle24", "6*4*1", VerdictStatus.WRONG),
        ("partial", " gold ", VerdictStatus.CORRECT),
        ("partial", "I say gold", VerdictStatus.WRONG),
        ("partial", "", VerdictStatus.WRONG),
        ("partial", "  ", VerdictStatus.WRONG),
        ("graph_color", "1: red", VerdictStatus.CORRECT),
        ("graph_color", "1: blue", VerdictStatus.WRONG),
        ("lenient", "gold", VerdictStatus.CORRECT),
        ("lenient", "anything", VerdictStatus.UNVERIFIED),
        ("knights_knaves", "anything", VerdictStatus.WRONG),
        ("sokoban", "LRUD", VerdictStatus.CORRECT),
        ("sokoban", "perhaps LRUD", VerdictStatus.WRONG),
        ("raises", "silver", VerdictStatus.UNVERIFIED),
        ("shifting", "silver", VerdictStatus.UNVERIFIED),
        ("prints", "or", VerdictStatus.CORRECT),
    ],
)
@pytest.mark.slow
async def test_holes_are_closed(generator: str, answer: str, status: VerdictStatus) -> None:
    assert await verdict(generator, answer) is status


@pytest.mark.slow
async def test_a_scorer_that_does_not_end_leaves_the_answer_unverified() -> None:
    assert await verdict("slow", "silver", seconds=0.5) is VerdictStatus.UNVERIFIED


def test_our_own_rule_is_shown_to_runs_and_a_gold_is_not() -> None:
    (ruled,) = problems_of(open_suite("reasoning-gym:countdown"), 1)
    assert ruled.task().verifier == "countdown"
    (golden,) = problems_of(open_suite("reasoning-gym:partial"), 1)
    task = golden.task()
    assert (task.verifier, task.gold, task.data) == (None, None, {})


def test_items_are_those_of_a_far_seed() -> None:
    problems = problems_of(open_suite("reasoning-gym:partial"), 3)
    assert [p.question for p in problems] == [f"say gold ({SEED + i})" for i in range(3)]
    assert SEED > 10 * SIZE


def test_an_unknown_generator_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean countdown"):
        open_suite("reasoning-gym:countdwn")


def test_a_generator_that_fails_is_named() -> None:
    with pytest.raises(UserError, match="failing of reasoning-gym failed: no words"):
        problems_of(open_suite("reasoning-gym:failing"), 1)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"researcher-orchestrator\[evals\]"):
        open_suite("reasoning-gym:countdown")


async def test_a_task_of_no_generator_is_unverified() -> None:
    grader = Grader({FullScore.name: FullScore()})
    verdict = await grader.grade(Problem("1", "q", FullScore.name), "x")
    assert verdict.status is VerdictStatus.UNVERIFIED
