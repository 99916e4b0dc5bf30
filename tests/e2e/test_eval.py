"""`researcher eval` on the shipped model, killed and gone on with; the real generators of reasoning-gym."""

import importlib.util
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from researcher.evals.problem import Grader
from researcher.evals.record import Result, read_results
from researcher.evals.suites import open_suite, problems_of
from researcher.types import VerdictStatus

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
COMMAND = [
    *(sys.executable, "-m", "researcher", "eval", "--model", "embedded", "--at-once", "2"),
    *("--strategy", "chain_of_thought,full=vote", "--param", "full.n=4", "--param", "full.stop=full"),
    *("--budget", "4000", "--seeds", "2", "--curve", "full"),
]


def evaluate(*more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *more], capture_output=True, text=True, timeout=600, check=False)


def test_an_evaluation_that_is_killed_goes_on_where_it_was(gguf: Path, tmp_path: Path) -> None:
    options = ("--suite", "countdown:3", "--count", "4", "--out", str(tmp_path / "out"))
    file = tmp_path / "out" / "results.jsonl"
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until and process.poll() is None and not (file.exists() and file.stat().st_size):
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = read_results(file)
    assert before
    said = evaluate(*options)
    assert said.returncode == 0, said.stderr
    assert f"16 runs, {len(before)} of them done" in said.stderr
    results = read_results(file)
    assert len(results) == len({result.key for result in results}) == 16
    assert results[: len(before)] == before
    check(results)
    assert {path.name for path in file.parent.iterdir()} == {
        "config.json", "results.jsonl", "summary.json", "table.md", "accuracy.svg", "samples.svg",
    }  # fmt: skip


def check(results: list[Result]) -> None:
    """The figures of runs on the shipped model hold together."""
    assert all(result.status is not VerdictStatus.UNVERIFIED for result in results), results
    assert all(result.completion > 0 and result.prompt > 0 and result.seconds > 0 for result in results)
    full = [result for result in results if result.strategy == "full"]
    assert all(len(result.samples) == 4 for result in full)
    assert all(sum(s.completion for s in result.samples) == result.completion for result in full)
    assert sum(result.cached for result in full) > 0
    assert any(result.status is VerdictStatus.CORRECT for result in full)


def test_questions_over_documents_are_searched_and_judged(gguf: Path, tmp_path: Path) -> None:
    said = evaluate("--suite", "documents:one_hop", "--count", "2", "--out", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert len(results) == 8
    assert all(result.calls >= 2 for result in results if result.status is VerdictStatus.CORRECT)
    assert any(result.status is VerdictStatus.CORRECT for result in results)


@pytest.fixture(scope="module")
def reasoning_gym() -> None:
    """Its package, for the suites of its generators."""
    if importlib.util.find_spec("reasoning_gym") is None:
        pytest.skip("reasoning-gym is not installed (extra: evals)")


GENERATORS = ("chain_sum", "gsm_symbolic", "knights_knaves", "sokoban", "prime_factorization", "word_sorting")


@pytest.mark.parametrize("generator", GENERATORS)
async def test_real_generators_take_their_gold_and_no_hedge_of_it(generator: str, reasoning_gym: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own dependencies
        suite = open_suite(f"reasoning-gym:{generator}")
        problems = problems_of(suite, 3)
    grader = Grader(suite.verifiers)
    try:
        for problem in problems:
            assert problem.gold
            assert (await grader.grade(problem, problem.gold)).status is VerdictStatus.CORRECT
            for hedge in ("", " ", f"{problem.gold} or maybe not", f"not {problem.gold}", "no idea"):
                status = (await grader.grade(problem, hedge)).status
                assert status is not VerdictStatus.CORRECT, hedge
    finally:
        await grader.aclose()


async def test_a_generator_without_one_gold_is_judged_by_its_scorer(reasoning_gym: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = open_suite("reasoning-gym:graph_color")
        (problem,) = problems_of(suite, 1)
    assert problem.gold is None
    grader = Grader(suite.verifiers)
    try:
        assert (await grader.grade(problem, '{"0": 1}')).status is VerdictStatus.WRONG
    finally:
        await grader.aclose()
