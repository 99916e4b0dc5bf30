"""Figures of thoughts and of groups, against values computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from researcher.charts import Series, Spot, chart
from researcher.errors import UserError
from researcher.intervals import Interval, Ratio, T, over_clusters
from researcher.train.analyse.breakdown import breakdown, iteration, keys, natural, row
from researcher.train.analyse.contrast import contrasts
from researcher.train.analyse.figures import Figures, figures_of
from researcher.train.analyse.report import table
from researcher.train.analyse.searches import searches
from researcher.train.analyse.structure import Structure
from researcher.train.analyse.table import Behaviour
from researcher.train.analyse.thoughts import Thought
from researcher.types import Outcome, VerdictStatus

E, B, V, S, G = Behaviour
NOTHING = dict.fromkeys(Behaviour, 0)


def thought(text: str, **more: Any) -> Thought:
    fields: dict[str, Any] = {"tokens": 50, "outcome": Outcome.ANSWERED, "answer": "4", **more}
    return Thought(run="r", thread="t", task="q", strategy="vote", question="?", text=text, **fields)


def figures(task: str, right: bool | None, tokens: int | None = 100, **more: Any) -> Figures:
    shown = {**NOTHING, **more.pop("shown", {})}
    return Figures(run="r", thread="t", task=task, strategy="vote", right=right, tokens=tokens, shown=shown, **more)


def test_the_figures_of_a_thought() -> None:
    text = "Let me try 7.\nThat doesn't work.\nTry 8 instead.\nSo 8."
    found = figures_of(thought(text, verdict=VerdictStatus.CORRECT), source="home")
    assert (found.units, found.words, found.tokens, found.right, found.source) == (4, 12, 50, True, "home")
    assert found.shown == {E: 2, B: 1, V: 0, S: 1, G: 0}
    assert (found.looped, found.loopable, found.again, found.grams) == (0, 12, 0, 9)


def test_repetition_is_of_tokens_where_they_are_known_and_else_of_words() -> None:
    words = " ".join(f"w{i}" for i in range(40))
    twice = figures_of(thought(f"{words} {words}"))
    assert (twice.looped, twice.loopable) == (40, 80)  # the second forty lie in a 40-gram that came before
    assert (twice.again, twice.grams) == (37, 77)  # of 77 4-grams of words 40 are different
    once = figures_of(thought(f"{words} {words}", ids=tuple(range(60))))
    assert (once.looped, once.loopable) == (0, 60)


@pytest.mark.parametrize(
    ("ended", "right"),
    [
        ({"verdict": VerdictStatus.CORRECT}, True),
        ({"verdict": VerdictStatus.WRONG}, False),
        ({"verdict": VerdictStatus.UNVERIFIED}, None),
        ({"outcome": Outcome.EXHAUSTED, "answer": None}, False),  # it ran into its own limit
        ({"outcome": Outcome.EXHAUSTED, "answer": None, "boundary": "budget"}, None),
        ({"outcome": Outcome.CANCELLED, "answer": None}, None),
        ({"outcome": None, "answer": None}, None),
    ],
)
def test_right_wrong_and_unknown(ended: dict[str, Any], right: bool | None) -> None:
    assert figures_of(thought("So 4.", **ended)).right is right


def test_a_ratio_over_clusters_by_hand() -> None:
    found = over_clusters([(2.0, 1.0), (6.0, 2.0), (1.0, 1.0)])
    assert found is not None
    assert found.value == 2.25  # 9 / 4
    # residuals -0.25, 1.5, -1.25: squares 0.0625 + 2.25 + 1.5625 = 3.875; times 3/2; root; over 4; times t of 2
    half = T[1] * (1.5 * 3.875) ** 0.5 / 4
    assert found.interval == Interval(pytest.approx(max(0.0, 2.25 - half)), pytest.approx(2.25 + half))
    assert over_clusters([(9.0, 4.0)]) == Ratio(2.25, None)  # one cluster shows no spread
    assert over_clusters([(2.0, 1.0), (4.0, 2.0)]) == Ratio(2.0, None)  # nor do equal ones
    assert over_clusters([(0.0, 0.0)]) is None
    capped = over_clusters([(1.0, 1.0), (1.0, 2.0)], most=1.0)
    assert capped is not None
    assert capped.interval == Interval(0.0, 1.0)


def test_a_row_adds_up() -> None:
    found = row(
        ("all",),
        [
            figures("a", True, 100, units=4, shown={E: 2}, loopable=100, looped=50, cut=False),
            figures("a", False, 300, units=8, shown={E: 6}, loopable=300, looped=50, cut=True),
            figures("b", None, None, units=3, shown={E: 9}, loopable=0, looped=0),
        ],
    )
    assert (found.threads, found.tasks, found.judged) == (3, 2, 2)
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert found.tokens == Ratio(200.0, None)  # the thread that nobody counted is in no figure of tokens
    assert found.rates[E] == Ratio(2.0, None)  # 8 units of 400 tokens
    assert found.rates[B] == Ratio(0.0, None)
    assert found.units is not None
    assert found.units.value == 5.0
    assert found.cut is not None
    assert found.cut.value == pytest.approx(1 / 3)
    assert found.looped is not None
    assert found.looped.value == 0.25
    assert found.shown[E] is not None


def test_threads_of_one_task_count_for_fewer_than_those_of_many() -> None:
    alike = [figures("a", True) for _ in range(8)] + [figures("b", False) for _ in range(8)]
    apart = [figures(str(i), i < 8) for i in range(16)]
    wide, narrow = row((), alike).accuracy, row((), apart).accuracy
    assert wide is not None
    assert narrow is not None
    assert wide.interval is not None
    assert narrow.interval is not None
    assert wide.interval.high - wide.interval.low > 1.5 * (narrow.interval.high - narrow.interval.low)


def test_iterations_are_in_the_order_of_their_numbers() -> None:
    versions = [figures("a", True, source="01-rl/rollouts", version=f"v{n}") for n in (10, 2, 1)]
    held_out = figures("a", True, source="01-rl/evaluation", version="v1")
    rows = breakdown([*versions, held_out], ("iteration",))
    assert [r.name for r in rows] == ["01-rl v1", "01-rl v2", "01-rl v10", "01-rl/evaluation v1"]
    assert iteration(figures("a", True, source="home")) == "home"
    assert sorted(["v10", "v9", "", "v"], key=natural) == ["", "v", "v9", "v10"]


def test_of_many_rows_a_page_shows_some_and_each_whole() -> None:
    many = [figures("a", right, source="s", version=f"v{n}") for n in range(40) for right in (True, False)]
    rows = breakdown(many, ("iteration", "correctness"))
    lines = table(rows, "what")
    assert lines[-1] == "22 of 80 rows; all are in analysis.json."
    shown = [line for line in lines if line.startswith("| s v")]
    assert len(shown) == 2 * 22  # two tables
    names = {line.split(" |")[0].rstrip() for line in shown}
    assert {"| s v0, right", "| s v0, wrong", "| s v36, right", "| s v39, wrong"} <= names


def test_keys_that_go_together_are_crossed() -> None:
    assert keys("correctness, iteration+correctness,correctness") == [("correctness",), ("iteration", "correctness")]
    rows = breakdown([figures("a", True), figures("a", False, version="v1", source="x")], ("iteration", "correctness"))
    assert [r.name for r in rows] == [", right", "x v1, wrong"]
    with pytest.raises(UserError, match=r"nothing called 'corectness' .* did you mean correctness\?"):
        keys("corectness")
    with pytest.raises(UserError, match="there are correctness, iteration"):
        keys("")


def test_right_and_wrong_are_compared_on_the_same_tasks() -> None:
    found = contrasts(
        [
            figures("a", True, 100, shown={V: 2}),
            figures("a", False, 200),
            figures("b", True, 300, shown={V: 3}),
            figures("b", False, 500),
            figures("b", False, 300),
            figures("easy", True, 1),  # no wrong one: it says nothing
            figures("b", None, 9_999),
            figures("b", True, None),
        ]
    )
    tokens = next(each for each in found if each.figure == "tokens")
    assert (tokens.tasks, tokens.right, tokens.wrong, tokens.difference) == (2, 200.0, 300.0, -100.0)
    assert tokens.interval == Interval(-100.0, -100.0)
    checks = next(each for each in found if each.figure == "verification")
    assert (checks.right, checks.wrong, checks.difference) == (1.5, 0.0, 1.5)  # (2 + 1) / 2 for 100 tokens
    assert checks.interval is not None
    assert checks.interval.high == pytest.approx(1.5 + T[0] * 0.5)
    assert contrasts([figures("a", True), figures("b", False)]) == []


def test_searches_are_means_of_a_run() -> None:
    common: dict[str, Any] = {"strategy": "beam", "right": True}
    (found,) = searches(
        [
            Structure(run="1", task="a", branches=4, **common),
            Structure(run="2", task="a", branches=2, **common),
            Structure(run="3", task="b", branches=0, **common),
        ]
    )
    assert (found.strategy, found.right, found.runs, found.tasks) == ("beam", "right", 3, 2)
    assert found.means["branches"] is not None
    assert found.means["branches"].value == 2.0


def test_a_chart_over_numbers_and_one_over_names() -> None:
    line = Series("s", [Spot(0.0, 120.0, 100.0, 140.0), Spot(5.0, 130.0, 110.0, 150.0)])
    over = chart([line], title="t", x_label="x", y_label="y", across="linear")
    assert over.count("<circle") == 2
    assert ">150<" in over  # y goes as far as the values do
    named = chart([line, line], title="t", x_label="", y_label="y", names=["a", "b", "c", "d", "e", "f"])
    assert named.count("<circle") == 4
    assert 'fill="none" stroke="#0072b2" stroke-width="1.8"' not in named  # no line joins categories
    assert ">f<" in named
