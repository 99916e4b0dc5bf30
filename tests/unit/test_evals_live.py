from __future__ import annotations

import io

from rich.console import Console

from researcher.cli.eval_live import Board
from researcher.evals.record import Result
from researcher.intervals import over_problems
from researcher.types import Outcome, VerdictStatus


def result(problem: int, seed: int, status: VerdictStatus) -> Result:
    return Result(problem=str(problem), strategy="vote", budget=400, seed=seed, status=status, outcome=Outcome.ANSWERED)


def cells(board: Board) -> list[str]:
    """The one line of the table: strategy, budget, runs, accuracy, interval, ..."""
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(board.table())
    return console.export_text().splitlines()[1].split()


def test_runs_of_one_problem_are_not_counted_as_independent() -> None:
    board = Board((), 12)
    for seed in range(3):
        for problem in range(4):
            board.see(result(problem, seed, VerdictStatus.CORRECT if problem else VerdictStatus.WRONG))
    low, high = over_problems([[0] * 3, [1] * 3, [1] * 3, [1] * 3])
    assert cells(board)[2:5] == ["12", "0.750", f"{low:.3f}-{high:.3f}"]
    assert high - low > 0.5  # four problems say little, however often each was run


def test_a_run_that_could_not_be_judged_is_in_no_accuracy() -> None:
    board = Board((), 2)
    board.see(result(0, 0, VerdictStatus.UNVERIFIED))
    assert cells(board)[2:5] == ["1", "-", "-"]
    board.see(result(1, 0, VerdictStatus.CORRECT))
    assert cells(board)[2:4] == ["2", "1.000"]
