"""Trees of thoughts: what is kept, valued, merged and given up, breadth and depth first."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest
from researcher_tools.verifiers.countdown import check_countdown

from researcher import Orchestrator
from researcher.errors import UserError
from researcher.graph import ThoughtGraph
from researcher.strategies import load_strategy
from researcher.strategies.tree import TreeOfThoughts
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Capabilities, ModelRequest, Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import Plan, View

TASK = Task(question="Make the target.", verifier="countdown")
State = tuple[Fraction, ...]


class Move(NamedTuple):
    """A step: the places of its numbers among those left, how they are joined, what is made, what is left."""

    i: int
    j: int
    op: str
    made: Fraction
    then: State


@cache
def legal(left: State) -> dict[str, Move]:
    """Every legal step by how it is written."""
    found = {}
    for i, j in permutations(range(len(left)), 2):
        rest = [x for k, x in enumerate(left) if k not in (i, j)]
        a, b = left[i], left[j]
        for op, made in (("+", a + b), ("-", a - b), ("*", a * b), ("/", a / b if b else None)):
            if made is not None:
                then = tuple(sorted([*rest, made]))
                found[f"{a}{op}{b}={made} left {' '.join(map(str, then))}"] = Move(i, j, op, made, then)
    return found


def moves(left: State) -> list[tuple[str, State]]:
    return [(line, move.then) for line, move in legal(left).items()]


@cache
def reachable(left: State, target: int) -> bool:
    return left == (target,) if len(left) == 1 else any(reachable(then, target) for _, then in moves(left))


class Puzzle:
    """A model that proposes every legal step, values by `word`, and answers truly; and the task's state function."""

    def __init__(self, numbers: Sequence[int], target: int, word: Callable[[State, int], str] | None = None) -> None:
        self.start: State = tuple(sorted(map(Fraction, numbers)))
        self.numbers, self.target = numbers, target
        self.word = word or (lambda left, _: "sure" if reachable(left, target) else "impossible")
        self.answers: set[bool] = set()

    def left(self, steps: Sequence[str]) -> State | None:
        state = self.start
        for step in steps:
            if step.strip() not in legal(state):
                return None
            state = legal(state)[step.strip()].then
        return state

    def state(self, steps: Sequence[str]) -> str | None:
        left = self.left(steps)
        return None if left is None else " ".join(map(str, left))

    def expression(self, steps: Sequence[str]) -> str:
        parts = [(number, str(number)) for number in self.start]
        for step in steps:
            move = legal(tuple(number for number, _ in parts))[step.strip()]
            made = (move.made, f"({parts[move.i][1]}{move.op}{parts[move.j][1]})")
            parts = sorted([*(part for k, part in enumerate(parts) if k not in (move.i, move.j)), made])
        return parts[0][1]

    def __call__(self, work: Work) -> Reply:
        seconds = 1 + (work.sampling.seed or 0) % 7
        if work.role == "reasoner":
            said = work.messages[-1].content
            steps = [line for line in said.splitlines() if "=" in line and "<answer>" not in line]
            answer = said.rpartition("<answer>")[2] if "<answer>" in said else self.expression(steps)
            right = check_countdown(answer, self.numbers, self.target).ok
            self.answers.add(right)
            status = VerdictStatus.CORRECT if right else VerdictStatus.WRONG
            close = "</answer>" if "<answer>" in said else f"<answer>{answer}</answer>"
            # The simulation reads the answer off the reply alone, the engine off the turn.
            final = f"<answer>{answer}</answer>" if "<answer>" in said else close
            return Reply(final, seconds, verdict=Verdict(status=status, by="countdown"))
        steps = [line for line in work.messages[-1].content.splitlines() if "=" in line and "<" not in line]
        left = self.left(steps)
        assert left is not None
        if work.role == "proposer":
            lines = [f"{i}. {line}" for i, (line, _) in enumerate(moves(left), 1)]
            return Reply("\n".join(lines or [f"<answer>{self.expression(steps)}</answer>"]), seconds)
        assert work.role == "valuer"
        return Reply(self.word(left, int(work.key.rpartition(".")[2])), seconds)


def roles(run: Simulation) -> Counter[str]:
    return Counter(key.partition("/")[0] for key in run.started)


@pytest.mark.slow
def test_exhaustive_search_merges_states_and_finds_the_same() -> None:
    """Every legal step of three numbers: with merging far fewer expansions, and the same answers."""
    saved = []
    for numbers, target in [((2, 3, 4), 24), ((1, 5, 7), 2), ((2, 2, 9), 100)]:
        merged, whole = Puzzle(numbers, target), Puzzle(numbers, target)
        strategy = TreeOfThoughts(evaluate="none", keep=10_000)
        with_states = simulate(strategy, TASK, merged, state=merged.state)
        without = simulate(strategy.model_copy(update={"merge": False}), TASK, whole, state=whole.state)
        found = [run.answer is not None and run.answer.supported is True for run in (with_states, without)]
        assert found == [reachable(merged.start, target)] * 2
        if not found[0]:  # both went to the end
            states = [merged.start, *{s for _, s in moves(merged.start)}]
            states += {t for s in states[1:] for _, t in moves(s)}
            assert roles(with_states)["propose"] == len(states)
            paths = 1 + len(moves(whole.start)) + sum(len(moves(then)) for _, then in moves(whole.start))
            assert roles(without)["propose"] == paths
            saved.append(paths / len(states))
    assert saved
    assert min(saved) > 2


def test_each_state_is_valued_once_and_a_proposed_line_costs_no_call() -> None:
    puzzle = Puzzle((2, 3, 4), 25)
    run = simulate(TreeOfThoughts(keep=3, depth=2, stop_when_verified=False), TASK, puzzle, state=puzzle.state)
    first = {then for _, then in moves(puzzle.start)}
    prompts = [info.work.messages[-1].content for info in run.graph.threads() if info.work.role == "valuer"]
    valued = Counter(puzzle.left([line for line in text.splitlines() if "=" in line]) for text in prompts)
    assert {state for state in valued if state and len(state) == 2} == first
    assert set(valued.values()) == {3}
    assert set(roles(run)) <= {"propose", "value", "answer"}


def test_breadth_first_keeps_the_best_states_by_the_words_said_of_them() -> None:
    """Independently: 20, 1 and 0.001 for the three words, added up, the first proposed before equal ones."""
    words = ["sure", "likely", "impossible", "no idea"]

    def word(left: State, sample: int) -> str:
        return words[int(sum(left) * 7 + sample * 3) % 4]

    puzzle = Puzzle((3, 5, 7), 1000, word)
    run = simulate(TreeOfThoughts(keep=4, depth=2), TASK, puzzle, state=puzzle.state, slots=5)
    worth = {"sure": 20, "likely": 1, "impossible": 0.001, "no idea": 0}
    order = list(dict.fromkeys(then for _, then in moves(puzzle.start)))
    values = {state: sum(worth[word(state, i)] for i in range(3)) for state in order}
    best = sorted((state for state in order if values[state] > 0), key=lambda state: -values[state])[:4]
    prompts = [info.work.messages[-1].content for info in run.graph.threads() if info.work.role == "proposer"]
    expanded = [puzzle.left([line for line in text.splitlines() if "=" in line]) for text in prompts]
    assert expanded == [puzzle.start, *best]


def test_no_state_that_is_given_up_is_expanded() -> None:
    puzzle = Puzzle((2, 3, 4), 24)
    run = simulate(TreeOfThoughts(keep=50, threshold=0.01), TASK, puzzle, state=puzzle.state)
    for info in run.graph.threads():
        if info.work.role == "proposer":
            left = puzzle.left([line for line in info.work.messages[-1].content.splitlines() if "=" in line])
            assert left is not None
            assert reachable(left, 24)
    assert run.answer is not None
    assert run.answer.supported is True
    assert check_countdown(run.answer.text, (2, 3, 4), 24).ok


def test_a_proposed_answer_has_only_to_be_closed() -> None:
    puzzle = Puzzle((2, 12), 24)
    run = simulate(TreeOfThoughts(threshold=0.01), TASK, puzzle, state=puzzle.state)
    assert run.answer is not None
    assert run.answer.supported is True
    work = next(info.work for info in run.graph.threads() if info.work.role == "reasoner")
    assert work.kind == "step"
    said = work.messages[-1]
    assert said.role == "assistant"
    assert said.content.endswith(f"<answer>{run.answer.text}")
    assert work.sampling.stop == ("</answer>",)
    assert work.uses
    assert work.uses[0].startswith("propose/")


def test_at_the_last_step_the_answer_is_asked_for() -> None:
    puzzle = Puzzle((2, 12), 24)
    run = simulate(TreeOfThoughts(depth=1, threshold=0.01), TASK, puzzle, state=puzzle.state)
    assert run.answer is not None
    assert run.answer.supported is True
    work = next(info.work for info in run.graph.threads() if info.work.role == "reasoner")
    assert work.messages[-1].content.strip() in {line for line, _ in moves(puzzle.start)}
    assert work.sampling.stop == ()


def test_without_prefill_the_answer_is_asked_for_anew() -> None:
    puzzle = Puzzle((2, 12), 24)
    strategy = TreeOfThoughts(depth=1, threshold=0.01, finish="ask")
    run = simulate(strategy, TASK, puzzle, state=puzzle.state)
    assert run.answer is not None
    work = next(info.work for info in run.graph.threads() if info.work.role == "reasoner")
    assert work.kind == "answer"
    assert "Attempt:" in work.messages[-1].content
    assert strategy.needs == frozenset()
    assert TreeOfThoughts().needs == TreeOfThoughts(thoughts="sample", finish="ask").needs == {"steps"}


def test_illegal_proposals_are_left_out_and_counted() -> None:
    puzzle = Puzzle((2, 12), 24)

    def reply(work: Work) -> Reply:
        given = puzzle(work)
        return Reply("2*12=25 left 25\n3*8=24 left 24\nlet me see") if work.role == "proposer" else given

    run = simulate(TreeOfThoughts(), TASK, reply, state=puzzle.state)
    assert run.answer is None
    assert "never expanded" in (run.failure or "")
    assert "3 thoughts were no legal steps" in (run.failure or "")
    assert roles(run) == {"propose": 1}


def test_values_that_nobody_can_read_are_said() -> None:
    puzzle = Puzzle((2, 3, 4), 24, lambda left, _: "hm")
    run = simulate(TreeOfThoughts(), TASK, puzzle, state=puzzle.state)
    assert run.answer is None
    assert "no value could be had" in (run.failure or "")


class Letters:
    """A model that writes one letter a step and ends after three; each letter has its score, `a` the best."""

    def __init__(self, letters: str = "abc", *, ends: int = 3) -> None:
        self.letters, self.ends = letters, ends
        self.path: dict[str, str] = {}

    def __call__(self, work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        if work.role == "voter":
            texts = work.messages[-1].content.split("Candidate ")[1:]
            best = min(range(len(texts)), key=lambda i: texts[i].partition(":")[2].split())
            return Reply(str(best + 1), 1 + rng.random())
        letter = self.letters[int(work.key.rpartition(".")[2]) % len(self.letters)]
        path = self.path[work.key] = self.path.get(work.parent, "") + letter
        score = 1 - (ord(letter) - ord("a")) / 4
        if len(path) == self.ends:
            return Reply(f"<answer>{path}</answer>", 1 + rng.random(), score=score)
        return Reply(f"{letter}\n", 1 + rng.random(), score=score)


@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_sampled_steps_are_ranked_by_their_scores(search: str) -> None:
    strategy = TreeOfThoughts(
        thoughts="sample", evaluate="scores", scorer="prm", search=search, breadth=3, keep=1, aggregate="mean"
    )
    run = simulate(strategy, Task(question="q"), Letters())
    assert run.answer is not None
    assert run.answer.text == "aaa"
    assert run.answer.body == "a\na\n<answer>aaa</answer>"
    assert len(run.started) == 9


def test_the_votes_rank_a_level() -> None:
    letters = Letters("bca")
    strategy = TreeOfThoughts(thoughts="sample", evaluate="votes", breadth=3, keep=1, votes=4)
    run = simulate(strategy, Task(question="q"), letters)
    assert run.answer is not None
    assert run.answer.text == "aaa"
    assert roles(run) == {"think": 9, "vote": 12}


def test_depth_first_goes_back_where_a_state_is_given_up() -> None:
    """Under `a` everything is worthless: the search goes on with `b`, the next best, and never looks at `c`."""
    letters = Letters()

    def reply(work: Work) -> Reply:
        given = letters(work)
        path = letters.path[work.key]
        if path.startswith("a") and len(path) == 2:
            return Reply(given.final, given.seconds, score=0.1)
        return given

    strategy = TreeOfThoughts(
        thoughts="sample", evaluate="scores", scorer="prm", search="dfs", breadth=3, keep=1, threshold=0.2
    )
    run = simulate(strategy.model_copy(update={"keep": 3, "expansions": 4}), Task(question="q"), reply)
    assert [letters.path[key] for key in run.started[::3]] == ["a", "aa", "ba", "baa"]
    assert run.answer is not None
    assert run.answer.text == "baa"


def test_duplicates_of_a_step_are_one_state_without_a_state_function() -> None:
    strategy = TreeOfThoughts(thoughts="sample", evaluate="scores", scorer="prm", breadth=6, keep=6, depth=9)
    run = simulate(strategy, Task(question="q"), Letters("ab"))
    assert len([path for path in run.started if run.graph.thread(path).work.parent == ""]) == 6  # type: ignore[union-attr]
    assert len(run.started) == 6 * (1 + 2 + 4)


def test_a_tree_of_one_level_is_no_search() -> None:
    strategy = TreeOfThoughts(thoughts="sample", evaluate="scores", scorer="prm", breadth=3)
    run = simulate(strategy, Task(question="q"), Letters(ends=1))
    assert run.answer is None
    assert "never expanded" in (run.failure or "")


def test_what_does_not_go_together_is_refused() -> None:
    for parameters in ({"evaluate": "scores", "scorer": "prm"}, {"thoughts": "sample", "evaluate": "scores"}):
        with pytest.raises(UserError, match="needs a scorer and thoughts=sample"):
            load_strategy("tree", parameters)
    with pytest.raises(UserError, match="a scorer is for evaluate=scores"):
        load_strategy("tree", {"scorer": "prm"})


def test_a_spent_budget_asks_once_for_the_answer_of_the_best_state() -> None:
    puzzle = Puzzle((2, 3, 4), 24)
    run = simulate(
        TreeOfThoughts(keep=2),
        TASK,
        puzzle,
        state=puzzle.state,
        slots=4,
        budget=lambda run: UNLIMITED._replace(spendable=len([k for k in run.ended if k.startswith("propose/")]) < 2),
    )
    last = run.graph.thread(run.started[-1])
    assert last is not None
    assert last.work.reserved
    assert last.work.role == "reasoner"
    assert run.answer is not None


def test_broken_threads_are_named() -> None:
    broken = Reply("", outcome=Outcome.FAILED, detail="the server is down")
    puzzle = Puzzle((2, 3, 4), 24)
    run = simulate(TreeOfThoughts(), TASK, lambda w: broken if w.role == "valuer" else puzzle(w), state=puzzle.state)
    assert run.answer is None
    assert "the server is down" in (run.failure or "")


def test_it_never_looks_at_the_whole_graph() -> None:
    class Narrow:
        def __init__(self, graph: ThoughtGraph) -> None:
            self.seq, self.changes, self.thread = graph.seq, graph.changes, graph.thread

    class Blinkered(TreeOfThoughts):
        def plan(self, view: View) -> Plan:
            narrow = Narrow(view.graph)  # type: ignore[arg-type]
            return super().plan(View(view.task, narrow, view.in_flight, view.free, view.budget, memo=view.memo))

    puzzle = Puzzle((2, 12), 24)
    assert simulate(Blinkered(depth=1), TASK, puzzle).answer is not None


@pytest.mark.anyio
@pytest.mark.parametrize("finish", ["continue", "ask"])
async def test_through_the_engine_states_merge_and_the_proposed_answer_is_judged(finish: str, tmp_path: Path) -> None:
    puzzle = Puzzle((2, 3, 4), 24)

    def speak(request: ModelRequest) -> str:
        text = request.prefix or request.messages[-1].content
        steps = [line for line in text.splitlines() if "=" in line and "<" not in line]
        if request.raw:
            return "</answer>" if "<answer>" in text else f"<answer>{puzzle.expression(steps)}</answer>"
        if "Attempt:" in text:
            return f"<answer>{text.rpartition('<answer>')[2].partition('<')[0]}</answer>"
        role = "proposer" if request.messages[0].content.startswith("Write possible") else "valuer"
        return puzzle(Work(key="value/x.0", role=role, messages=request.messages)).final

    task = Task(question="Make 24 of 2, 3, 4.", verifier="countdown", data={"numbers": [2, 3, 4], "target": 24})
    model = ScriptedModel(speak, capabilities=Capabilities(prefill=finish == "continue"))
    async with Orchestrator(model, home=tmp_path, tools=[]) as orchestrator:
        params = {"threshold": 0.01, "keep": 3, "value_samples": 1, "finish": finish}
        run = await orchestrator.start(task, strategy="tree", params=params, seed=1)
        result = await run.result()
        threads = run.graph.threads()
    assert result.outcome is Outcome.ANSWERED, result
    assert result.answer is not None
    assert result.answer.supported is True
    assert check_countdown(result.answer.text, (2, 3, 4), 24).ok
    first = {then for _, then in moves(puzzle.start)}
    states = [puzzle.left(t.work.messages[-1].content.splitlines()[2:]) for t in threads if t.work.role == "valuer"]
    assert {state for state in states if state and len(state) == 2} == first
    assert len([state for state in states if state and len(state) == 2]) == len(first), "a state was valued twice"
