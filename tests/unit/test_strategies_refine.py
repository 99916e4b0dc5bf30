"""Sequential revision: when a chain ends, what each revision reads, and which answer is taken."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from researcher import Orchestrator
from researcher.errors import UserError
from researcher.graph.nodes import thread_id
from researcher.strategies import load_strategy
from researcher.strategies.refine import Refine
from researcher.testing.scripted_model import ScriptedModel
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.types import Claim, Evidence, ModelRequest, Outcome, Task, Verdict, VerdictStatus, Work
from researcher.views import BudgetLeft

TASK = Task(question="What is it?")
CHECKED = Task(question="What is it?", verifier="exact", gold="42")


def saying(*chains: str, scores: str = "") -> Callable[[Work], Reply]:
    """Answers of one letter: those of chain 0, of chain 1 and so on, by position; "-" is none, "!" a broken server."""

    def reply(work: Work) -> Reply:
        _, chain, position = work.key.split("/")
        said = chains[int(chain)][int(position)]
        if said == "!":
            return Reply("", outcome=Outcome.FAILED, detail="the server is down")
        if said == "-":
            return Reply(f"idea {position}", outcome=Outcome.EXHAUSTED, detail="the final message has no <answer>")
        verdict = None
        if said in "42":
            right = said == "4"
            verdict = Verdict(status=VerdictStatus.CORRECT if right else VerdictStatus.WRONG, by="exact")
        score = int(scores[int(position)]) / 10 if scores and scores[int(position)] != "-" else None
        return Reply(f"try {position}: <answer>{said}</answer>", verdict=verdict, score=score)

    return reply


def answer(run: Simulation) -> str:
    assert run.answer is not None, run.failure
    return run.answer.text


def test_an_answer_that_stays_ends_the_chain() -> None:
    for patience, started in ((1, 2), (2, 3), (4, 5)):
        run = simulate(Refine(patience=patience, rounds=9), TASK, saying("aaaaaaaaaa"))
        assert len(run.started) == started, "the attempt, and as many passes as were asked for"


def test_the_passes_must_be_in_a_row() -> None:
    run = simulate(Refine(patience=2, rounds=9), TASK, saying("aabbabbbz"))
    assert len(run.started) == 8
    assert answer(run) == "b"


def test_mars_gives_up_after_five_rounds() -> None:
    run = simulate(Refine(patience=2), TASK, saying("abcdefgh"))
    assert len(run.started) == 6, "the attempt and five revisions"
    assert answer(run) == "f"


def test_a_right_answer_ends_everything_at_once() -> None:
    run = simulate(Refine(chains=2, rounds=9, patience=9), CHECKED, saying("2a4aaaaaaa", "abcdefghij"))
    assert answer(run) == "4"
    assert run.answer is not None
    assert run.answer.supported is True
    assert len(run.started) == 6
    assert run.cancelled == ["refine/1/2"]


def test_without_that_it_goes_on_and_ends_its_chains_as_ever() -> None:
    strategy = Refine(rounds=3, patience=9, stop_when_verified=False)
    run = simulate(strategy, CHECKED, saying("a4bc"))
    assert len(run.started) == 4
    assert answer(run) == "c"


def test_a_revision_is_a_thread_of_its_own_that_reads_the_attempt_before_it() -> None:
    run = simulate(Refine(), TASK, saying("abbb"))
    threads = run.graph.threads()
    assert [thread.work.uses for thread in threads] == [(), ("refine/0/0",), ("refine/0/1",), ("refine/0/2",)]
    for before, thread in pairwise(threads):
        assert len(thread.work.messages) == 2
        assert thread.work.parent == ""
        assert before.final in thread.work.messages[-1].content
        assert f"try {int(before.key[-1]) - 1}" not in thread.work.messages[-1].content, "only the last attempt"
    found = run.graph.ancestors("b")
    assert thread_id("refine/0/0") in found, "the first attempt is where the answer came from"


def test_an_attempt_without_an_answer_is_revised_too() -> None:
    run = simulate(Refine(patience=1), TASK, saying("-aa"))
    assert answer(run) == "a"
    assert "idea 0" in run.graph.threads()[1].work.messages[-1].content


def test_a_broken_thread_ends_its_chain_and_no_other() -> None:
    run = simulate(Refine(chains=2, patience=1, pick="majority"), TASK, saying("!", "bb"))
    assert answer(run) == "b"
    assert sorted(run.started) == ["refine/0/0", "refine/1/0", "refine/1/1"]


@pytest.mark.parametrize(
    ("pick", "expected"),
    [("last", "c"), ("majority", "b"), ("best", "a")],
)
def test_the_answer_is_the_last_the_most_frequent_or_the_best(pick: str, expected: str) -> None:
    scorer = {"scorer": "orm"} if pick == "best" else {}
    strategy = Refine.model_validate({"pick": pick, "rounds": 3, "patience": 9, **scorer})
    run = simulate(strategy, TASK, saying("abbc", scores="9123"))
    assert answer(run) == expected


def test_of_several_chains_the_last_answers_vote() -> None:
    run = simulate(Refine(chains=3, rounds=1, patience=9), TASK, saying("ab", "xb", "xc"))
    assert answer(run) == "b"
    assert run.answer is not None
    assert (run.answer.votes, run.answer.of) == (2, 3)


def test_with_a_scorer_the_best_is_taken() -> None:
    assert answer(simulate(Refine(scorer="orm", rounds=2, patience=9), TASK, saying("abc", scores="191"))) == "b"


def test_the_best_needs_a_score_and_says_where_there_was_none() -> None:
    run = simulate(Refine(pick="best", scorer="orm", patience=1), TASK, saying("aa"))
    assert run.answer is None
    assert run.failure == "none of 2 answers was scored by orm"


def test_without_a_scorer_the_best_is_the_verifiers() -> None:
    strategy = Refine(pick="best", rounds=3, patience=9, stop_when_verified=False)
    assert answer(simulate(strategy, CHECKED, saying("2422"))) == "4"


def test_chains_run_side_by_side_at_their_own_temperatures() -> None:
    strategy = Refine(chains=3, temperatures=(0.3, 0.6, 1.0), rounds=2)
    run = simulate(strategy, TASK, saying("aaa", "bbb", "ccc"))
    assert run.most_at_once == 3
    assert run.seconds == 3.0, "three threads one after the other, in three chains"
    temperatures = {t.work.key: t.work.sampling.temperature for t in run.graph.threads()}
    assert [temperatures[f"refine/{chain}/2"] for chain in range(3)] == [0.3, 0.6, 1.0]
    assert len({t.work.sampling.seed for t in run.graph.threads()}) == 9


def test_a_spent_budget_gives_what_there_is() -> None:
    def budget(run: Simulation) -> BudgetLeft:
        return UNLIMITED._replace(spendable=len(run.ended) < 2)

    run = simulate(Refine(patience=9), TASK, saying("abcdef"), budget=budget)
    assert answer(run) == "b"
    assert len(run.started) == 2
    assert run.limited
    whole = simulate(Refine(patience=1), TASK, saying("aaaa"), budget=budget)
    assert answer(whole) == "a"
    assert not whole.limited, "the chain was over when the budget was"


def test_quotes_of_the_first_attempt_bear_out_the_revised_answer() -> None:
    claim = Claim(text="It is a.", evidence=(Evidence(sha256="00" * 32, start=0, end=8),))

    def reply(work: Work) -> Reply:
        return Reply("<answer>a</answer>", claims=() if work.uses else (claim,))

    run = simulate(Refine(), Task(question="What is it?", tools=("search",)), reply)
    assert run.answer is not None
    assert run.answer.supported is True
    assert len(run.answer.claims) == 1
    assert [thread.work.tools for thread in run.graph.threads()] == [("search",), (), ()]


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"temperatures": [0.3, 0.6], "chains": 1}, "2 temperatures are too many for chains=1"),
        ({"temperatures": [3.0]}, "between 0 and 2"),
        ({"pick": "first"}, "'pick'"),
        ({"pick": "last", "scorer": "orm"}, "nothing would use the scorer with pick=last"),
        ({"round": 3}, "did you mean rounds"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_strategy("refine", parameters)


@pytest.mark.anyio
async def test_on_a_model_it_makes_as_many_calls_as_there_are_rounds(tmp_path: Path) -> None:
    def reply(request: ModelRequest) -> str:
        return "<answer>7</answer>" if "<answer>" in request.messages[-1].content else "<answer>6</answer>"

    model = ScriptedModel(reply)
    async with Orchestrator(model, home=tmp_path) as orchestrator:
        run = await orchestrator.start(TASK, strategy="refine", params={"rounds": 9})
        result = await run.result()
    assert result.answer is not None
    assert result.answer.text == "7"
    assert model.calls == 4, "6, then 7, and two passes"
