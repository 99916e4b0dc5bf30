"""The suites: problems that hold out what must be, say what they must, and never hand over the gold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from researcher_tools.verifiers.countdown import solve_countdown

from researcher.errors import UserError
from researcher.evals.problem import Grader, Problem
from researcher.evals.suites import open_suite, problems_of
from researcher.train.embedded.tasks.countdown import is_held_out
from researcher.types import VerdictStatus


def test_countdown_is_held_out_solvable_and_without_repeats() -> None:
    problems = problems_of(open_suite("countdown"), 40)
    drawn = {(*sorted(p.data["numbers"]), p.data["target"]) for p in problems}
    assert len(drawn) == len({p.id for p in problems}) == 40
    assert {len(p.data["numbers"]) for p in problems} == {3, 4}
    for problem in problems:
        numbers, target = problem.data["numbers"], problem.data["target"]
        assert is_held_out(numbers, target)
        assert solve_countdown(numbers, target)
        assert all(str(n) in problem.question for n in (*numbers, target))


@pytest.mark.parametrize("suite", ["countdown", "countdown:4", "documents", "foreign", "game24"])
def test_the_first_problems_do_not_depend_on_how_many_there_are(suite: str) -> None:
    assert problems_of(open_suite(suite), 12)[:5] == problems_of(open_suite(suite), 5)


@pytest.mark.parametrize("suite", ["documents", "foreign"])
def test_documents_ask_what_one_of_their_texts_states_or_none(suite: str) -> None:
    problems = problems_of(open_suite(suite), 10)
    assert {p.id.partition("/")[0] for p in problems} == {
        "one_hop", "two_hops", "comparison", "three_hops", "unanswerable",
    }  # fmt: skip
    for problem in problems:
        assert problem.gold
        assert (problem.gold == "unknown") == problem.id.startswith("unanswerable")
        if problem.gold != "unknown":
            assert any(problem.gold in text for text in problem.texts.values())
        assert problem.task().tools == ("search", "read")


def test_game24_has_the_published_index_range() -> None:
    suite = open_suite("game24")
    problems = problems_of(suite, 100)
    assert (suite.name, suite.size) == ("game24:900-999", 100)
    assert (problems[0].id, problems[-1].id) == ("900", "999")
    assert problems[0].data["numbers"] == [4, 5, 6, 10]
    assert open_suite("game24:0-0").size == 1


def test_game24_held_out_leaves_out_what_training_may_draw() -> None:
    suite = open_suite("game24:held-out")
    assert suite.size
    assert 30 < suite.size < 70
    assert all(is_held_out(p.data["numbers"], 24) for p in problems_of(suite, suite.size))


def test_a_run_is_told_neither_gold_nor_what_is_hidden() -> None:
    problem = Problem("1", "What?", "exact", gold="SECRET", data={"open": 1}, hidden={"aliases": ["HIDDEN"]})
    task = problem.task()
    assert (task.gold, task.verifier, task.data) == (None, None, {"open": 1})
    ruled = problem._replace(rule=True)
    assert ruled.task().verifier == "exact"
    assert ruled.task(blind=True).verifier is None
    assert ruled.task().gold is None


@pytest.mark.anyio
async def test_the_grader_knows_what_is_hidden() -> None:
    grader = Grader({})
    problem = Problem("1", "What?", "exact", gold="one", hidden={"aliases": ["1"]})
    assert (await grader.grade(problem, "1")).status is VerdictStatus.CORRECT
    assert (await grader.grade(problem, "2")).status is VerdictStatus.WRONG
    await grader.aclose()


GPQA = {
    "Question": "Which is a noble gas?", "Correct Answer": "Neon", "Incorrect Answer 1": "Iron",
    "Incorrect Answer 2": "Gold", "Incorrect Answer 3": "Zinc",
}  # fmt: skip
RECORDS = {
    "GSM8K": ({"question": "6 boxes of 12?", "answer": "6*12=<<6*12=72>>72\n#### 72"}, "72", "73"),
    "GSM8K with commas": ({"question": "q", "answer": "so\n#### 1,080"}, "1080", "1,08"),
    "MATH": ({"problem": "Half?", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "level": "1"}, "1/2", "2"),
    "MATH-500": ({"problem": "p", "solution": "no box", "answer": "7", "unique_id": "x"}, "7", "8"),
    "AIME": ({"ID": "2024-I-1", "Problem": "p", "Answer": "204"}, "204", "402"),
    "AIME with an integer": ({"problem": "p", "answer": 33}, "33", "34"),
    "plain number": ({"question": "q", "answer": "3.5"}, "7/2", "3"),
    "plain text": ({"question": "q", "answer": "Mira Tol"}, "mira tol.", "Mira"),
    "choices by index": ({"question": "q", "choices": ["red", "blue"], "answer": 1}, "B", "A"),
    "choices by letter": ({"question": "q", "options": ["red", "blue"], "answer": "a"}, "red", "blue"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", RECORDS)
async def test_published_formats_are_read_and_judged(name: str, tmp_path: Path) -> None:
    record, right, wrong = RECORDS[name]
    (tmp_path / "set.jsonl").write_text(json.dumps(record) + "\n\n")
    (problem,) = problems_of(open_suite(f"jsonl:{tmp_path / 'set.jsonl'}"), 1)
    grader = Grader({})
    try:
        assert (await grader.grade(problem, right)).status is VerdictStatus.CORRECT
        assert (await grader.grade(problem, wrong)).status is VerdictStatus.WRONG
    finally:
        await grader.aclose()
    assert problem.id == "1"
    assert not problem.rule


@pytest.mark.anyio
async def test_gpqa_shuffles_its_options_the_same_way_each_time(tmp_path: Path) -> None:
    path = tmp_path / "gpqa.jsonl"
    path.write_text("".join(json.dumps({**GPQA, "Question": f"Which is {i}?"}) + "\n" for i in range(20)))
    problems = problems_of(open_suite(f"jsonl:{path}"), 20)
    assert problems == problems_of(open_suite(f"jsonl:{path}"), 20)
    assert {p.gold for p in problems} == set("ABCD")
    grader = Grader({})
    for problem in problems:
        assert problem.gold
        assert f"{problem.gold}) Neon" in problem.question
        assert (await grader.grade(problem, problem.gold)).status is VerdictStatus.CORRECT
        assert (await grader.grade(problem, "Iron")).status is VerdictStatus.WRONG


PLAIN = '{"question": "q", "answer": "a"}'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"{PLAIN}\n{{broken\n", 2, "not a JSON object"),
        (f"{PLAIN}\n\n[1]\n", 3, "a JSON object is wanted"),
        (f'{PLAIN}\n{{"question": "q"}}\n', 2, "unlike the first line"),
        ('{"question": "q", "answer": " "}\n', 1, "its answer is not a text"),
        ('{"text": "q"}\n', 1, "no known format"),
        ('{"question": "q", "answer": "#### 1"}\n{"question": "q", "answer": "2"}\n', 2, "unlike the first line"),
        ('{"question": "q", "answer": "#### many"}\n', 1, "does not end in ####"),
        ('{"problem": "p", "solution": "none"}\n', 1, "no \\boxed"),
        ('{"question": "q", "choices": ["x", "y"], "answer": "z"}\n', 1, "none of its choices"),
        ('{"question": "q", "choices": "xy", "answer": "x"}\n', 1, "not a list"),
    ],
)
def test_a_broken_line_is_named(text: str, line: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        open_suite(f"jsonl:{path}")
    assert f"{path}:{line}: " in str(error.value)
    assert says in str(error.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(PLAIN.encode() + b"\n\xff\xfe\n")
    with pytest.raises(UserError, match=":2: not UTF-8"):
        open_suite(f"jsonl:{path}")


def test_foreign_documents_are_of_another_build() -> None:
    """Names of more than the syllables, beside the same kinds of questions."""
    plain, foreign = (open_suite(f"{name}:one_hop+comparison").problems(6) for name in ("documents", "foreign"))
    assert [problem.id for problem in plain] == [problem.id for problem in foreign]
    assert not {problem.question for problem in plain} & {problem.question for problem in foreign}
    assert open_suite("foreign:one_hop").name == "foreign:one_hop"


def test_documents_of_several_kinds_come_in_turn() -> None:
    kinds = [problem.id.partition("/")[0] for problem in open_suite("documents:comparison+two_hops").problems(4)]
    assert kinds == ["comparison", "two_hops"] * 2


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("cuntdown", "did you mean countdown"),
        ("xyz", "there are: countdown, game24, documents, foreign, reasoning-gym, jsonl"),
        ("countdown:7", "countdown:3"),
        ("documents:hops", "documents:one_hop"),
        ("foreign:hops", "there are: foreign, foreign:one_hop"),
        ("documents:one_hop+hops", "no suite documents:hops"),
        ("documents:one_hop+", "no suite documents:;"),
        ("game24:9-3", "game24:FIRST-LAST"),
        ("game24:0-5000", "numbers up to 1361"),
        ("jsonl:", "lacks its file"),
        ("jsonl:/there/is/none", "cannot be read"),
    ],
)
def test_an_unknown_suite_is_refused_with_what_there_is(spec: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        open_suite(spec)
    assert says in str(error.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        open_suite(f"jsonl:{tmp_path / 'set.jsonl'}")


def test_more_problems_than_there_are_are_refused() -> None:
    with pytest.raises(UserError, match="has 100 problems"):
        problems_of(open_suite("game24"), 101)
    with pytest.raises(UserError, match="one problem at least"):
        problems_of(open_suite("countdown"), 0)


@pytest.mark.slow
def test_the_suites_need_no_torch() -> None:
    code = "import sys; from researcher.evals.suites import open_suite; open_suite('countdown').problems(1); "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
