"""The router: what it measures, what it chooses, that it goes on with its probes, and that it says why."""

import random
from collections.abc import Callable

import pytest

from researcher.errors import UserError
from researcher.strategies import load_strategy
from researcher.strategies.auto import Auto
from researcher.testing.plan_cost import plan_cost
from researcher.testing.simulate import UNLIMITED, Reply, Simulation, simulate
from researcher.testing.strategy_conformance import check_strategy
from researcher.types import Capabilities, Outcome, Task, Verdict, VerdictStatus, Work

TASK = Task(question="What is it?")
CHECKED = Task(question="What is it?", verifier="countdown")
STEPS = Capabilities(prefill=True)
PROBES = [f"auto/samples/vote/{i}" for i in range(4)]


def saying(probes: str, *, scores: list[float] | None = None, status: VerdictStatus | None = None, later: str = "a"):
    """Four probes with these answers (a space: none), then everybody says `later`."""

    def reply(work: Work) -> Reply:
        number = PROBES.index(work.key) if work.key in PROBES else None
        said = later if number is None else probes[number].strip()
        score = None if not work.scorer else 0.9 if number is None or scores is None else scores[number]
        verdict = None if status is None else Verdict(status=status, by="countdown")
        if not said:
            return Reply("no idea", outcome=Outcome.EXHAUSTED)
        return Reply(f"so\n<answer>{said}</answer>", score=score, verdict=verdict)

    return reply


def chosen(run: Simulation) -> str:
    """The strategy that the reason of the answer names."""
    assert run.answer is not None, run.failure
    return run.answer.reason.split(": ")[1].split(";")[0]


@pytest.mark.parametrize(
    ("probes", "difficulty", "strategy"),
    [
        ("aaaa", "4 of 4 probes agree (easy)", "vote"),
        ("aaab", "3 of 4 probes agree (easy)", "vote"),
        ("aabc", "2 of 4 probes agree (medium)", "vote"),
        ("abcd", "1 of 4 probes agree (hard)", "rsa"),
        ("a   ", "1 of 4 probes agree (hard)", "rsa"),
        ("    ", "0 of 4 probes agree (hard)", "rsa"),
    ],
)
def test_agreement_decides_where_nothing_is_scored(probes: str, difficulty: str, strategy: str) -> None:
    run = simulate(Auto(params={"rsa": {"population": 4, "rounds": 2}}), TASK, saying(probes))
    assert run.answer is not None
    assert run.answer.reason.startswith(f"{difficulty}: {strategy}")


def test_where_no_probe_answers_the_count_is_of_those_that_ended() -> None:
    run = simulate(Auto(among=("vote",)), TASK, saying("    "))
    assert run.answer is not None
    assert run.answer.reason.startswith("0 of 4 probes agree (hard): vote")


def test_a_scorer_that_trusts_no_answer_makes_it_harder() -> None:
    auto = Auto(scorer="orm")
    assert chosen(simulate(auto, TASK, saying("aaaa", scores=[0.9, 0.8, 0.9, 0.8]))) == "vote"
    run = simulate(auto, TASK, saying("aaaa", scores=[0.2, 0.3, 0.2, 0.1]))
    assert run.answer is not None
    assert run.answer.reason.startswith("4 of 4 probes agree with a mean score of 0.20 (medium): best_of_n")


def test_an_answer_that_is_refuted_is_hard_however_many_agree() -> None:
    run = simulate(Auto(among=("vote", "best_of_n")), CHECKED, saying("aaaa", status=VerdictStatus.WRONG))
    assert run.answer is not None
    assert "4 of 4 probes agree on an answer that is refuted (hard): best_of_n" in run.answer.reason


def test_a_verified_probe_is_the_answer() -> None:
    run = simulate(Auto(), CHECKED, saying("abcd", status=VerdictStatus.CORRECT), slots=1)
    assert run.started == PROBES[:1]
    assert run.answer is not None
    assert (run.answer.text, run.answer.supported) == ("a", True)
    on = simulate(Auto(stop_when_verified=False), CHECKED, saying("aaaa", status=VerdictStatus.CORRECT), slots=1)
    assert len(on.started) > 4


@pytest.mark.parametrize(
    ("among", "capabilities", "task", "params", "strategy"),
    [
        (("vote", "beam"), STEPS, TASK, {"step_scorer": "prm"}, "beam"),
        (("vote", "beam"), Capabilities(), TASK, {"step_scorer": "prm"}, "vote"),  # the model cannot be continued
        (("vote", "beam"), STEPS, TASK, {}, "vote"),  # nobody scores steps
        (("vote", "beam"), STEPS, Task(question="q", tools=("search",)), {"step_scorer": "prm"}, "vote"),  # needs tools
        (("vote", "best_of_n"), STEPS, TASK, {}, "vote"),  # nothing scores answers
        (("vote", "best_of_n"), STEPS, TASK, {"scorer": "orm"}, "best_of_n"),
        (("budget_forcing", "vote"), STEPS, TASK, {}, "vote"),  # what the table does not name comes after it
    ],
)
def test_it_never_chooses_what_cannot_run(
    among: tuple[str, ...], capabilities: Capabilities, task: Task, params: dict[str, object], strategy: str
) -> None:
    auto = Auto.model_validate({"among": among, **params})
    assert chosen(simulate(auto, task, saying("abcd"), capabilities=capabilities)) == strategy


def test_a_verifier_that_could_judge_no_probe_is_not_relied_on() -> None:
    auto = Auto(among=("vote", "best_of_n"))
    assert chosen(simulate(auto, CHECKED, saying("abcd", status=VerdictStatus.WRONG))) == "best_of_n"
    assert chosen(simulate(auto, CHECKED, saying("abcd", status=VerdictStatus.UNVERIFIED))) == "vote"
    mute = Auto(among=("vote", "best_of_n"), scorer="orm", params={"vote": {"weights": "none"}})
    assert chosen(simulate(mute, TASK, lambda work: Reply(f"<answer>{work.key[-1]}</answer>"))) == "vote"


def test_where_nothing_can_run_it_says_what_is_missing() -> None:
    run = simulate(Auto(among=("best_of_n", "beam", "budget_forcing")), TASK, saying("abcd"))
    assert run.answer is None
    assert run.failure is not None
    for lack in ("best_of_n needs a verifier or a scorer", "beam needs a step_scorer", "needs a model with steps"):
        assert lack in run.failure


def test_it_goes_on_with_the_probes_where_the_strategy_would_have_drawn_them() -> None:
    run = simulate(Auto(), TASK, saying("aaaa"), slots=1)
    assert run.started == [f"auto/samples/vote/{i}" for i in range(9)]
    assert run.answer is not None
    assert (run.answer.votes, run.answer.of) == (9, 9)
    best = simulate(Auto(scorer="orm", params={"best_of_n": {"stop": "full"}}), TASK, saying("abcd"))
    assert len([key for key in best.started if key.startswith("auto/samples/")]) == 4
    best = simulate(Auto(among=("best_of_n",), scorer="orm", params={"best_of_n": {"n": 6}}), TASK, saying("abcd"))
    assert [key.split("/")[1] for key in best.started] == ["samples"] * 6


def test_it_does_not_where_the_samples_would_be_others() -> None:
    for params in ({"temperature": 0.2}, {"over_params": {"style": "r1"}}, {"weights": "confidence"}):
        auto = Auto(params={"vote": {"n": 6, **params}})
        run = simulate(auto, TASK, saying("aaaa"), capabilities=Capabilities(logprobs=True))
        assert "auto/vote/vote/0" in run.started


def test_thresholds_are_parameters() -> None:
    assert chosen(simulate(Auto(hard=0.8, easy=1.0, among=("rsa", "vote")), TASK, saying("aaab"))) == "rsa"
    assert chosen(simulate(Auto(easy=0.2, hard=0.1, among=("rsa", "vote")), TASK, saying("abcd"))) == "vote"
    assert len(simulate(Auto(probe=6, among=("rsa",)), TASK, saying("abcd")).graph.threads("auto/vote")) == 6


def test_a_search_that_fails_fails_and_is_not_replaced() -> None:
    def reply(work: Work) -> Reply:
        if work.key in PROBES:
            return saying("abcd")(work)
        return Reply("", outcome=Outcome.FAILED, detail="out of memory")

    run = simulate(Auto(among=("refine",)), TASK, reply)
    assert run.answer is None
    assert run.failure is not None
    assert run.failure.startswith("1 of 4 probes agree (hard): refine; ")
    assert "out of memory" in run.failure


def test_a_budget_that_ends_after_the_probes_leaves_their_majority() -> None:
    def budget(run: Simulation):
        return UNLIMITED._replace(spendable=len(run.ended) < 4)

    run = simulate(Auto(among=("rsa",)), TASK, saying("aabc"), budget=budget)
    assert run.answer is not None
    assert (run.answer.text, run.answer.votes, run.answer.of) == ("a", 2, 4)
    assert "the budget was spent before rsa could begin" in run.answer.reason


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"among": ["vote", "beem"]}, "did you mean beam"),
        ({"params": {"vote": {"m": 3}}}, "no parameter 'm'"),
        ({"params": {"tree": {}}}, "not among"),
        ({"among": ["auto"]}, "cannot choose itself"),
        ({"probe": 1}, "parameter 'probe'"),
    ],
)
def test_a_wrong_choice_is_named_before_anything_runs(params: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_strategy("auto", params)


def test_its_scorers_are_all_that_its_strategies_can_name() -> None:
    auto = Auto(scorer="orm", step_scorer="prm", params={"best_of_n": {"scorer": "judge"}})
    assert set(auto.scorers) == {"orm", "prm", "judge"}
    assert Auto().scorers == ()
    assert Auto(step_scorer="prm").needs == frozenset()


def mixed(classes: int) -> Callable[[Work], Reply]:
    def reply(work: Work) -> Reply:
        rng = random.Random(work.sampling.seed)
        return Reply(f"<answer>{rng.randrange(classes)}</answer>", rng.random(), score=rng.random())

    return reply


@pytest.mark.parametrize("classes", [1, 3, 50])
@pytest.mark.parametrize(
    "params", [{}, {"scorer": "orm"}, {"among": ["refine", "vote"]}], ids=["plain", "scorer", "refine"]
)
def test_it_conforms(params: dict[str, object], classes: int) -> None:
    small = {"params": {"rsa": {"population": 3, "rounds": 2, "k": 2}}} if "among" not in params else {}
    check_strategy(Auto.model_validate({**params, **small}), TASK, mixed(classes))


def test_a_plan_reads_what_is_new() -> None:
    cost = plan_cost(Auto(params={"vote": {"n": 300, "stop": "full"}}), TASK, mixed(1), slots=20)
    assert cost.run is not None
    assert len(cost.run.started) == 300
    assert cost.reads <= (4 + 2 * 2 + 2) * 300  # the probes, and each change in the whole graph and in the scope
