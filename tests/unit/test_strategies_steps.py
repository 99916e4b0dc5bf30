"""The tree of steps, the solutions of a search, and who of them wins."""

import math
from itertools import permutations

import pytest

from researcher.events import Event, EventBody, MessageAdded, RunStarted, ThreadFinished, ThreadStarted
from researcher.graph import ThoughtGraph
from researcher.strategies import load_strategy
from researcher.strategies.solutions import Choice, SearchParameters, Solutions, post_mortem
from researcher.strategies.steps import Node, StepTree, aggregate, child_key
from researcher.testing.simulate import UNLIMITED
from researcher.types import Message, Outcome, Task, Work
from researcher.views import ThreadInfo, View

TASK = Task(question="Make 24.")
SEARCH = SearchParameters(depth=3)


def info(key: str = "x/0", parent: str = "", order: int = 0, **fields: object) -> ThreadInfo:
    work = SEARCH.step(View(TASK, ThoughtGraph(), {}, 1, UNLIMITED), key, None)
    values: dict[str, object] = {
        "outcome": Outcome.ANSWERED, "answer": None, "canonical": None, "final": "a\n", "verdict": None, "claims": (),
        "detail": "", "score": 0.5, **fields,
    }  # fmt: skip
    values["canonical"] = values["answer"]
    return ThreadInfo(key=key, work=Work(**{**_fields(work), "parent": parent}), order=order, **values)  # type: ignore[arg-type]


def _fields(work: Work) -> dict[str, object]:
    return {name: getattr(work, name) for name in work.__struct_fields__}


def node(**fields: object) -> Node:
    return Node(info(**fields), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "params"), [("beam", {}), ("mcts", {}), ("best_of_n", {"scorer": "prm", "aggregate": "last"})]
)
def test_no_call_of_a_step_samples_more_than_any_call_may(name: str, params: dict[str, object]) -> None:
    view = View(TASK, ThoughtGraph(), {}, 1, UNLIMITED)
    for given, tokens in (
        ({}, 256),
        ({"max_tokens": 64}, 64),
        ({"max_tokens": 4096}, 256),
        ({"step_tokens": 2048}, 2048),
    ):
        (work,) = load_strategy(name, {**params, **given}).plan(view).start
        assert work.sampling.max_tokens == tokens
        view.memo.clear()


def test_the_aggregates_of_a_path() -> None:
    scores = [0.9, 0.5, 0.8]
    golden = {"last": 0.8, "min": 0.5, "prod": 0.36, "mean": 2.2 / 3}
    parent: Node | None = None
    for score in scores:
        parent = Node(info(score=score), parent)
    assert parent is not None
    for how, value in golden.items():
        assert aggregate(scores, how) == pytest.approx(value)  # type: ignore[arg-type]
        assert parent.value(how) == pytest.approx(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "complete", "alive"),
    [
        ({}, False, True),
        ({"final": "the end"}, True, False),
        ({"final": ""}, True, False),
        ({"final": "  \n"}, True, False),
        ({"final": "<answer>24</answer>\n", "answer": "24"}, True, False),
        ({"outcome": None}, False, False),
        ({"outcome": Outcome.FAILED}, False, False),
        ({"outcome": Outcome.EXHAUSTED, "final": "on and on"}, False, False),
    ],
)
def test_which_steps_are_complete_and_which_can_go_on(fields: dict[str, object], complete: bool, alive: bool) -> None:
    assert (node(**fields).complete, node(**fields).alive) == (complete, alive)


def test_a_good_step_has_a_score_above_the_floor_and_is_not_too_deep() -> None:
    assert SEARCH.good(node())
    assert not SEARCH.good(node(score=None))
    assert not SEARCH.good(node(score=0.0))
    assert not SEARCH.model_copy(update={"floor": 0.5}).good(node(score=0.5))
    second = Node(info(), node())
    assert SEARCH.good(second)
    assert not SEARCH.good(Node(info(), second))


def test_a_solution_has_an_answer_and_a_score_but_a_majority_needs_none() -> None:
    complete = {"final": "<answer>24</answer>", "answer": "24"}
    majority = SearchParameters(choose="majority")
    assert SEARCH.solved(node(**complete))
    assert not SEARCH.solved(node(final="I give up"))
    assert not SEARCH.solved(node(**complete, score=None))
    assert majority.solved(node(**complete, score=None))
    assert not majority.solved(node(**complete, score=0.0))
    assert not SEARCH.solved(node(**complete, outcome=None))


def test_keys_of_children_say_the_path_and_stay_short() -> None:
    key = "beam/3"
    for step in range(3):
        key = child_key(key, step)
    assert key == "beam/3.0.1.2"
    keys = {key}
    for _ in range(2_000):
        key = child_key(key, 1)
        keys.add(key)
    assert len(keys) == 2_001
    assert max(map(len, keys)) <= 120
    assert all(each.startswith("beam/") for each in keys)
    assert child_key(key, 0) != child_key(key, 1)


def log(*bodies: tuple[str | None, EventBody]) -> list[Event]:
    return [Event(seq, thread, float(seq), body) for seq, (thread, body) in enumerate(bodies, start=1)]


def test_the_tree_takes_in_what_is_new_and_says_so() -> None:
    view = View(TASK, ThoughtGraph(), {}, 1, UNLIMITED)
    first = SEARCH.step(view, "x/0", None)
    events = log(
        (None, RunStarted(task=TASK, strategy="x")),
        ("x/0", ThreadStarted(work=first)),
        ("x/0", MessageAdded(message=Message(role="assistant", content="a\n"))),
        ("x/0", ThreadFinished(outcome=Outcome.ANSWERED)),
    )
    graph = view.graph
    assert isinstance(graph, ThoughtGraph)
    fresh: list[list[tuple[str, bool]]] = []
    for event in events:
        graph.apply(event)
        fresh.append([(n.key, n.running) for n in StepTree.of(view, "x").fresh])
    assert fresh == [[], [("x/0", True)], [], [("x/0", False)]]
    tree = StepTree.of(view, "x")
    assert tree.fresh == []
    work = SEARCH.step(view, child_key("x/0", 0), tree.nodes["x/0"], temperature=0.0)
    assert (work.parent, work.messages, work.sampling.temperature) == ("x/0", (), 0.0)
    graph.apply(Event(5, work.key, 5.0, ThreadStarted(work=work)))
    tree = StepTree.of(view, "x")
    assert tree.nodes["x/0"].children == [tree.nodes["x/0.0"]]
    assert list(tree.running) == ["x/0.0"]
    rebuilt = StepTree.of(View(TASK, graph, {}, 1, UNLIMITED), "x")
    assert [n.key for n in rebuilt] == [n.key for n in tree] == [n.key for n in rebuilt.fresh]


ANSWERS = [("a", 0.9), ("b", 0.5), ("b", 0.45), ("c", 0.3), ("c", 0.2), ("c", 0.1)]
WINNERS: dict[Choice, tuple[str, float]] = {"naive": ("a", 0.9), "weighted": ("b", 0.5), "majority": ("c", 0.3)}


@pytest.mark.parametrize("how", WINNERS)
def test_who_wins_by_each_choice_whatever_the_order(how: Choice) -> None:
    """Weighted best-of-N: a .9, b .95, c .6; the best sample is a's, the most samples are c's."""
    places = list(enumerate(ANSWERS))
    for order in list(permutations(places))[::41]:
        solutions = Solutions(how)
        for place, (answer, score) in order:
            solutions.add(place, node(answer=answer, score=score), score)
        winners = solutions.winners
        assert (winners[0].node.info.answer, winners[0].score) == WINNERS[how]
        assert {w.node.info.answer for w in winners} == {WINNERS[how][0]}
        assert [w.score for w in winners] == sorted((w.score for w in winners), reverse=True)


def test_equal_scores_go_to_the_first_place() -> None:
    solutions = Solutions("naive")
    for place, answer in [(5, "late"), (2, "early"), (9, "later")]:
        solutions.add(place, node(answer=answer), 0.7)
    assert solutions.winners[0].node.info.answer == "early"


@pytest.mark.parametrize("how", WINNERS)
def test_decided_is_never_wrong(how: Choice) -> None:
    """Once it says so, no answers and scores of those to come change who wins; it says so when none are to come."""
    come = [(answer, score) for answer in "xyz" for score in (0.1, 1.0)]
    for first in come:
        for second in come:
            solutions = Solutions(how)
            solutions.add(0, node(answer=first[0]), first[1])
            solutions.add(1, node(answer=second[0]), second[1])
            before = solutions.winners[0].node.info.answer
            assert solutions.decided(0, 2)
            if solutions.decided(1, 2):
                for third in come:
                    after = Solutions(how)
                    for place, (answer, score) in enumerate((first, second, third)):
                        after.add(place, node(answer=answer), score)
                    assert after.winners[0].node.info.answer == before


def test_decided_by_a_lead_that_cannot_be_caught_up() -> None:
    weighted, naive = Solutions("weighted"), Solutions("naive")
    for place, score in enumerate((0.9, 0.8)):
        weighted.add(place, node(answer="a"), score)
    assert not weighted.decided(2, 2)
    assert weighted.decided(1, 2)
    naive.add(3, node(answer="a"), 1.0)
    assert not naive.decided(5, 2)  # one at place 2 could be as good, and comes first
    assert naive.decided(5, 4)
    assert not Solutions("majority").decided(0, 0)


def test_the_post_mortem_counts_the_ends() -> None:
    root = node()
    dead = [Node(info(score=score), root) for score in (0.0, 0.0, 0.4)]
    lost = [Node(info(outcome=Outcome.FAILED, score=None, detail="the server is down"), root)]
    lost.append(Node(info(outcome=Outcome.CANCELLED, score=None, detail="no longer needed"), root))
    unscored = [Node(info(score=None, detail="no logprobs"), root), Node(info(final="I give up", score=0.2), root)]
    deep = Node(info(), Node(info(), root))
    root.children += [*dead, *lost, *unscored]
    root.children.append(deep.parent or deep)
    (deep.parent or deep).children.append(deep)
    said = post_mortem([root, *root.children, deep], "prm", floor=0.0, depth=3)
    assert said == (
        "no solution among 10 steps; of 8 ends 2 scored no more than 0, 1 were not kept, 1 failed, 1 cancelled, "
        "1 could not be scored, 1 had no answer, 1 reached the depth of 3; the server is down; no logprobs"
    )
    assert post_mortem([], "prm", floor=0.0, depth=3) == "no solution; no step could be started"


def test_prod_of_many_scores_is_the_product() -> None:
    assert aggregate([0.5] * 10, "prod") == math.pow(2, -10)
