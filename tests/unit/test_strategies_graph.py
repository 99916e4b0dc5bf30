"""Graph of thoughts: plans that can and cannot be carried out, what waits for what, and how thoughts merge."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from researcher import Orchestrator
from researcher.errors import UserError
from researcher.graph.nodes import thread_id
from researcher.strategies import load_strategy
from researcher.strategies.graph import GraphOfThoughts
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.testing.strategy_conformance import check_the_memo_changes_nothing
from researcher.types import ModelRequest, Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import BudgetLeft

TASK = Task(question="What is it?")
CHECKED = Task(question="What is it?", verifier="exact", gold="right")


def op(name: str, **parameters: Any) -> dict[str, Any]:
    return {"op": name, **parameters}


def graph(*operations: dict[str, Any], **parameters: Any) -> GraphOfThoughts:
    return GraphOfThoughts.model_validate({"operations": operations, **parameters})


def saying(answers: dict[str, str], scores: Mapping[str, float | None] | None = None) -> Callable[[Work], Reply]:
    """The answer of each thread by the last three parts of its key; by default the key itself. "-": none."""

    def reply(work: Work) -> Reply:
        key = work.key.removeprefix("graph/")
        answer = answers.get(key, key)
        if answer == "-":
            return Reply("no idea", outcome=Outcome.EXHAUSTED, detail="the final message has no <answer>")
        status = VerdictStatus.CORRECT if answer == "right" else VerdictStatus.WRONG
        score = (scores or {}).get(key, 0.1) if work.scorer else None
        return Reply(f"<answer>{answer}</answer>", verdict=Verdict(status=status, by="exact"), score=score)

    return reply


def keys(run: Simulation, operation: int) -> list[str]:
    return sorted(key for key in run.started if key.startswith(f"graph/{operation}/"))


def uses(run: Simulation, key: str) -> tuple[str, ...]:
    thread = run.graph.thread(key)
    assert thread is not None
    return thread.work.uses


def answer(run: Simulation) -> str:
    assert run.answer is not None, run.failure
    return run.answer.text


def test_the_default_plan_makes_the_papers_calls() -> None:
    scores = {"0/2/0": 0.9, "0/5/0": 0.8, "0/6/0": 0.7, "3/1/0": 0.95}
    run = simulate(GraphOfThoughts(scorer="orm"), CHECKED, saying({}, scores))
    assert len(keys(run, 0)) == 8
    assert len(keys(run, 3)) == 4
    assert {uses(run, key) for key in keys(run, 3)} == {("graph/0/2/0", "graph/0/5/0", "graph/0/6/0")}
    assert len(keys(run, 4)) == 8, "none of the four is right, and each is revised twice"
    assert uses(run, "graph/4/1/0") == ("graph/3/1/0",)
    assert uses(run, "graph/4/1/1") == ("graph/4/1/0",)


def test_the_best_score_wins_and_the_graph_shows_what_it_was_made_of() -> None:
    plan = (op("generate", n=4), op("score"), op("keep_best", n=2), op("aggregate", n=2), op("score"))
    scores = {"0/0/0": 0.9, "0/3/0": 0.8, "3/0/0": 0.3, "3/1/0": 0.6}
    run = simulate(graph(*plan, scorer="orm"), TASK, saying({}, scores))
    assert answer(run) == "3/1/0"
    found = run.graph.ancestors("3/1/0")
    assert {thread_id("graph/0/0/0"), thread_id("graph/0/3/0")} <= found
    assert thread_id("graph/0/1/0") not in found, "it was scored, and left aside"


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ([op("score")], r"operation 1 \(score\) has no thoughts"),
        ([op("generate"), op("keep_best")], r"2 \(keep_best\) needs scores; put a score after .*1 \(generate\)"),
        (
            [op("generate"), op("score"), op("aggregate"), op("keep_best")],
            r"operation 4 \(keep_best\) needs scores; put a score after operation 3 \(aggregate\)",
        ),
        (
            [op("generate"), op("score"), op("validate_and_improve"), op("keep_best")],
            r"put a score after operation 3 \(validate_and_improve\)",
        ),
        ([op("generate"), op("improve"), op("generate")], r"operation 3 \(generate\) would forget"),
        ([op("generate", m=3)], "m"),
        ([op("invent")], "invent"),
        ([], "at least 1"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_carried_out_is_refused_with_its_operation(plan: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load_strategy("graph", {"operations": plan})
    assert "\n" not in str(caught.value)


def test_who_could_judge_is_asked_for_before_anything_is_spent() -> None:
    run = simulate(GraphOfThoughts(), TASK, saying({}))
    assert run.started == []
    assert run.failure == "operation 2 (score) needs a verifier or a scorer, and there is neither"
    plain = simulate(graph(op("generate", n=3), op("aggregate", n=2)), TASK, saying({}))
    assert plain.answer is not None, "this plan judges nothing"


def test_single_thoughts_wait_for_nobody() -> None:
    """A revision begins when its thought is there; the aggregation waits for all."""
    plan = graph(op("generate", n=3), op("improve"), op("aggregate", n=1))
    seconds = {"graph/0/0/0": 9.0}
    ends: dict[str, float] = {}

    def reply(work: Work) -> Reply:
        return Reply(saying({})(work).final, seconds.get(work.key, 1.0))

    run = simulate(plan, TASK, reply)
    ends = {key: place for place, key in enumerate(run.ended)}
    assert run.started.index("graph/1/1/0") < run.started.index("graph/1/0/0")
    assert ends["graph/1/1/0"] < ends["graph/0/0/0"], "it was revised before the slow thought was there"
    assert run.started[-1] == "graph/2/0/0"
    assert run.seconds == 9 + 1 + 1


def test_equal_thoughts_are_one() -> None:
    plan = graph(op("generate", n=6), op("improve"), op("aggregate", n=2))
    said = {f"0/{i}/0": "ab"[i % 2] for i in range(6)} | {"1/0/0": "A", "1/1/0": "c"}
    run = simulate(plan, TASK, saying(said), slots=1)
    assert keys(run, 1) == ["graph/1/0/0", "graph/1/1/0"], "one revision for three thoughts each"
    assert uses(run, "graph/2/0/0") == ("graph/1/0/0", "graph/1/1/0"), "and two thoughts to aggregate"


def test_an_equal_thought_that_comes_late_shares_what_began_without_it() -> None:
    plan = graph(op("generate", n=3), op("improve"))
    seconds = {"graph/0/0/0": 5.0}
    said = {"0/0/0": "a", "0/1/0": "b", "0/2/0": "a", "1/2/0": "z", "1/1/0": "y"}
    run = simulate(plan, TASK, lambda work: Reply(saying(said)(work).final, seconds.get(work.key, 1.0)))
    assert keys(run, 1) == ["graph/1/1/0", "graph/1/2/0"]
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("z", 2, 3), "both lanes of it vote"


def test_merging_is_by_what_answers_mean() -> None:
    plan = graph(op("generate", n=2), op("score"), op("keep_best", n=2), op("aggregate", n=1), scorer="orm")
    run = simulate(plan, TASK, saying({"0/0/0": "1,000", "0/1/0": "1000.0"}, {"0/1/0": 0.7}))
    assert uses(run, "graph/3/0/0") == ("graph/0/1/0",), "the better scored of the two"
    thread = run.graph.thread("graph/3/0/0")
    assert thread is not None
    assert "Attempt:\n" in thread.work.messages[-1].content, "a single thought is revised"


def test_what_is_right_is_not_improved_and_nothing_else_is_kept() -> None:
    plan = graph(op("generate", n=3), op("validate_and_improve", rounds=3), op("keep_valid"), stop_when_verified=False)
    said = {"0/1/0": "right", "0/0/0": "x", "0/2/0": "y", "1/0/1": "right"}
    run = simulate(plan, CHECKED, saying(said))
    assert keys(run, 1) == ["graph/1/0/0", "graph/1/0/1", "graph/1/2/0", "graph/1/2/1", "graph/1/2/2"]
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("right", 2, 2)


def test_nothing_valid_is_a_failure_that_names_the_operation() -> None:
    run = simulate(graph(op("generate", n=3), op("keep_valid")), CHECKED, saying({}))
    assert run.answer is None
    assert run.failure == "operation 2 (keep_valid): none of 3 answers is right"


def test_no_scores_is_a_failure_that_names_the_scorer() -> None:
    unscored = {f"0/{i}/0": None for i in range(3)}
    plan = graph(op("generate", n=3), op("score"), scorer="orm")
    run = simulate(plan, TASK, saying({}, unscored))
    assert run.failure == "operation 2 (score): orm scored none of 3 answers"


def test_a_failed_revision_leaves_the_thought_as_it_was() -> None:
    run = simulate(graph(op("generate", n=1), op("improve")), TASK, saying({"0/0/0": "a", "1/0/0": "-"}))
    assert answer(run) == "a"


def test_without_a_verifier_the_scorer_says_what_is_right() -> None:
    plan = graph(op("generate", n=2), op("validate_and_improve", rounds=1), op("keep_valid"), scorer="orm")
    run = simulate(plan, TASK, saying({}, {"0/0/0": 0.4, "0/1/0": 0.6, "1/0/0": 0.5}))
    assert keys(run, 1) == ["graph/1/0/0"]
    assert run.answer is not None
    assert run.answer.of == 2


def test_a_thought_that_its_scorer_finds_right_is_revised_no_more() -> None:
    plan = graph(op("generate", n=1), op("validate_and_improve", rounds=4), op("aggregate", n=1), scorer="orm")
    run = simulate(plan, TASK, saying({}, {"0/0/0": 0.4, "1/0/0": 0.2, "1/0/1": 0.6}))
    assert run.started == ["graph/0/0/0", "graph/1/0/0", "graph/1/0/1", "graph/2/0/0"]


def test_a_scorer_that_never_says_anything_is_not_passed_over() -> None:
    silent = {f"{key}/0": None for key in ("0/0", "0/1", "1/0", "1/1")}
    plan = graph(op("generate", n=2), op("validate_and_improve", rounds=1), scorer="orm")
    run = simulate(plan, TASK, lambda work: replace(saying({}, silent)(work), verdict=None))
    assert run.failure == "operation 2 (validate_and_improve): orm scored none of 2 answers"


def test_what_the_plan_does_not_score_is_put_to_the_vote() -> None:
    plan = graph(op("generate", n=3), op("score"), op("keep_best", n=2), op("aggregate", n=3), scorer="orm")
    run = simulate(plan, TASK, saying({"3/0/0": "a", "3/1/0": "b", "3/2/0": "b"}))
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("b", 2, 3)


def test_a_right_answer_ends_it() -> None:
    run = simulate(GraphOfThoughts(), CHECKED, saying({"0/3/0": "right"}), slots=1)
    assert answer(run) == "right"
    assert len(run.started) == 4


def test_scores_are_paid_for_only_where_an_operation_needs_them() -> None:
    plan = graph(op("generate", n=2), op("aggregate", n=2), op("score"), scorer="orm")
    run = simulate(plan, TASK, saying({}))
    assert [bool(thread.work.scorer) for thread in run.graph.threads()] == [False, False, True, True]


def test_an_aggregation_of_some_draws_them_by_seed() -> None:
    plan = graph(op("generate", n=8), op("aggregate", n=6, of=3))
    one, same, other = (simulate(plan, TASK, saying({}), seed=seed) for seed in (1, 1, 2))
    read = [uses(one, key) for key in keys(one, 1)]
    assert all(len(set(members)) == 3 for members in read)
    assert len(set(read)) > 1
    assert read == [uses(same, key) for key in keys(same, 1)]
    assert read != [uses(other, key) for key in keys(other, 1)]


def test_a_spent_budget_gives_the_best_of_the_furthest_operation() -> None:
    def budget(run: Simulation) -> BudgetLeft:
        return UNLIMITED._replace(spendable=len(run.ended) < 6)

    plan = graph(op("generate", n=4), op("score"), op("aggregate", n=4), op("score"), scorer="orm")
    scores = {"0/1/0": 0.9, "2/1/0": 0.4}
    run = simulate(plan, TASK, saying({}, scores), slots=1, budget=budget)
    assert run.limited
    assert answer(run) == "2/1/0"


def test_any_plan_in_any_order_of_endings_comes_to_an_end() -> None:
    """Random plans, answers, durations and slots: no stall, no thread twice, the same threads without the memo."""
    rng = random.Random(11)
    for _ in range(100):
        middle = [op(rng.choice(["improve", "score", "aggregate", "validate_and_improve"])) for _ in range(3)]
        plan = graph(op("generate", n=rng.randint(1, 5)), *middle, scorer="orm", stop_when_verified=False)
        seeds = {"a": rng.random()}

        def reply(work: Work, seeds: dict[str, float] = seeds) -> Reply:
            own = random.Random(f"{work.key}{seeds['a']}")
            said = own.choice(["a", "b", "right", "-"])
            status = VerdictStatus.CORRECT if said == "right" else VerdictStatus.WRONG
            verdict = Verdict(status=status, by="exact")
            final, outcome = (f"<answer>{said}</answer>", Outcome.ANSWERED) if said != "-" else ("", Outcome.EXHAUSTED)
            return Reply(final, own.random(), outcome, verdict=verdict if final else None, score=own.random())

        slots = rng.randint(1, 6)
        whole = simulate(plan, CHECKED, reply, slots=slots)
        assert len(whole.started) == len(set(whole.started))
        assert (whole.answer is None) == (whole.failure is not None)
        cut = rng.randint(1, len(whole.events))
        resumed = simulate(plan, CHECKED, reply, slots=slots, log=whole.events[:cut])
        assert (resumed.answer is None) == (whole.answer is None)
        check_the_memo_changes_nothing(plan, CHECKED, reply)


@pytest.mark.anyio
async def test_on_a_model_the_plan_is_read_from_parameters(tmp_path: Path) -> None:
    def reply(request: ModelRequest) -> str:
        prompt = request.messages[-1].content
        return "<answer>9</answer>" if "Attempt 2" in prompt else f"<answer>{(request.sampling.seed or 0) % 5}</answer>"

    model = ScriptedModel(reply)
    operations = [op("generate", n=5), op("aggregate", n=3)]
    async with Orchestrator(model, home=tmp_path) as orchestrator:
        run = await orchestrator.start(TASK, strategy="graph", params={"operations": operations})
        result = await run.result()
    assert result.answer is not None
    assert result.answer.text == "9"
    assert model.calls == 8
