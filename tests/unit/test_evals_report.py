"""Rows, winners, curves, replayed stops, tables and charts, from results made by hand."""

import json
import random
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from researcher.charts import Series, Spot, chart
from researcher.errors import UserError
from researcher.evals.curves import chosen_right, curves, sizes
from researcher.evals.folder import Folder
from researcher.evals.record import Result, Sample
from researcher.evals.report import write_report
from researcher.evals.savings import replay, savings
from researcher.evals.summary import summarise, winners
from researcher.evals.table import markdown
from researcher.intervals import pass_at_k
from researcher.strategies.vote import Vote
from researcher.types import Outcome, VerdictStatus

CORRECT, WRONG, UNVERIFIED = VerdictStatus.CORRECT, VerdictStatus.WRONG, VerdictStatus.UNVERIFIED


def sample(answer: str | None, *, right: str = "yes", completion: int = 10, score: float | None = None) -> Sample:
    status = CORRECT if answer == right else WRONG
    return Sample(answer=answer, canonical=answer or "", status=status, completion=completion, score=score)


def result(problem: str, *, right: bool = True, seed: int = 0, **more: Any) -> Result:
    fields: dict[str, Any] = {
        "strategy": "vote", "budget": 1000, "status": CORRECT if right else WRONG, "answer": "yes" if right else "no",
        "outcome": Outcome.ANSWERED, "prompt": 50, "completion": 100, "cached": 25, "calls": 2, "seconds": 1.0,
        "threads": {"answered": 2}, **more,
    }  # fmt: skip
    return Result(problem=problem, seed=seed, **fields)


def test_a_row_adds_up() -> None:
    (row,) = summarise(
        [
            result("a"),
            result("b", right=False, threads={"answered": 1, "cancelled": 1}, cancelled_tokens=30, merged=2),
            result("c", right=False, answer=None, outcome=Outcome.EXHAUSTED, limit="tokens", unparsable=2),
            result("d", status=UNVERIFIED, outcome=Outcome.FAILED, answer=None, failures={"model": 2}),
        ]
    )
    assert (row.runs, row.accuracy, row.unverified, row.unanswered, row.limited) == (4, 1 / 3, 1, 1, 1)
    assert (row.prompt, row.completion, row.calls, row.hits) == (50, 100, 2, 0.5)
    assert row.cancelled == pytest.approx(30 / 600)
    assert row.cancelled_threads == pytest.approx(1 / 8)
    assert (row.merged, row.unparsable, row.failures) == (0.5, 0.5, {"model": 2})


def test_an_interval_is_over_seeds_where_there_are_several() -> None:
    alone = summarise([result("a"), result("b", right=False)])[0]
    assert (alone.seeds, alone.interval) == (None, alone.wilson)
    several = summarise([result("a", seed=s, right=s != 1) for s in range(3)])[0]
    assert several.interval == several.seeds


def test_nothing_verified_has_no_accuracy() -> None:
    (row,) = summarise([result("a", status=UNVERIFIED)])
    assert row.accuracy is None
    assert "| - |" in markdown([row], winners([]), about="x")


def test_pass_at_k_is_over_the_runs_that_have_k_samples() -> None:
    three = tuple(sample(answer) for answer in ("yes", "no", None))
    (row,) = summarise([result("a", samples=three), result("b", samples=three[:1])])
    assert [(p.k, p.runs) for p in row.passes] == [(1, 2), (2, 1)]
    assert row.passes[0].value == pytest.approx((1 / 3 + 1) / 2)
    assert row.passes[1].value == pytest.approx(pass_at_k(3, 1, 2))


def test_the_winner_leads_on_the_same_problems() -> None:
    ours = [result(f"p{i}", right=i % 4 != 0, strategy="ours") for i in range(40)]
    theirs = [result(f"p{i}", right=i % 4 == 1, strategy="theirs") for i in range(40)]
    (winner,) = winners([*theirs, *ours])
    assert (winner.strategy, winner.second, winner.lead) == ("ours", "theirs", 0.5)
    assert winner.lead_interval
    assert winner.lead_interval.low > 0
    (even,) = winners([*ours, *(r for r in [result(f"p{i}", right=i % 4 != 1, strategy="b") for i in range(40)])])
    assert even.lead == 0.0
    assert "may be chance" in markdown([], [even], about="x")


def test_an_unverified_run_is_no_difference() -> None:
    (winner,) = winners(
        [result("a", strategy="x"), result("a", strategy="y", status=UNVERIFIED), result("b", strategy="y")]
    )
    assert winner.lead is None


# Curves.


def votes(seed: int, *, n: int = 6, problems: int = 30) -> list[Result]:
    rng = random.Random(seed)
    runs = []
    for i in range(problems):
        samples = tuple(
            sample(rng.choices(["yes", "no", "maybe", None], [4, 3, 2, 1])[0], completion=rng.randrange(20, 200),
                   score=rng.random())
            for _ in range(n)
        )  # fmt: skip
        right = chosen_right(samples, "majority")
        runs.append(result(f"p{i}", seed=seed, right=right, samples=samples))
    return runs


def test_curves_begin_at_one_sample_and_end_at_the_runs_themselves() -> None:
    runs = [*votes(1), *votes(2)]
    by_method = {curve.method: curve for curve in curves("vote", runs)}
    assert set(by_method) == {"majority", "weighted", "best", "any"}
    single = fmean(s.status is CORRECT for run in runs for s in run.samples)
    for curve in by_method.values():
        assert [point.n for point in curve.points] == [1, 2, 4, 6]
        assert curve.points[0].accuracy == pytest.approx(single, abs=0.03)
        assert curve.points[-1].completion == pytest.approx(6 * curve.points[0].completion)
    assert by_method["majority"].points[-1].accuracy == fmean(run.status is CORRECT for run in runs)
    for point in by_method["any"].points:
        exact = fmean(
            fmean(any(s.status is CORRECT for s in subset) for subset in combinations(run.samples, point.n))
            for run in runs
        )
        assert point.accuracy == pytest.approx(exact)


def test_curves_are_the_same_each_time() -> None:
    assert curves("vote", votes(1)) == curves("vote", votes(1))


def test_without_scores_there_is_no_curve_of_scores() -> None:
    runs = [result("a", samples=(sample("yes"), sample("no")))]
    assert [curve.method for curve in curves("vote", runs)] == ["majority", "any"]


@pytest.mark.parametrize(
    ("answers", "scores", "majority", "best", "weighted"),
    [
        (["no", "yes"], [0.1, 0.9], False, True, True),
        (["no", "yes", "yes"], [0.9, 0.5, 0.3], True, False, False),
        (["no", "yes", "yes"], [0.7, 0.5, 0.3], True, False, True),
        ([None, "yes"], [None, 0.0], True, True, True),
        ([None, None], [None, None], False, False, False),
    ],
)
def test_ways_to_choose(
    answers: list[str | None], scores: list[float | None], majority: bool, best: bool, weighted: bool
) -> None:
    samples = [sample(answer, score=score) for answer, score in zip(answers, scores, strict=True)]
    assert chosen_right(samples, "majority") is majority
    assert chosen_right(samples, "best") is best
    assert chosen_right(samples, "weighted") is weighted
    assert chosen_right(samples, "any") is any(answer == "yes" for answer in answers)


def test_a_curve_of_runs_that_were_cut_short_is_refused() -> None:
    runs = [*votes(1), *votes(2, n=3)]
    with pytest.raises(UserError, match="only 30 of 60 runs took all 6 samples; give it stop=full"):
        curves("vote", runs)
    with pytest.raises(UserError, match="no samples"):
        curves("cot", [result("a", samples=(sample("yes"),))])


def test_sizes_are_powers_of_two_and_the_most() -> None:
    assert (sizes(1), sizes(6), sizes(8)) == ([1], [1, 2, 4, 6], [1, 2, 4, 8])


# Early stops.


def test_the_lossless_stop_saves_and_changes_no_answer() -> None:
    runs = [*votes(1, n=16, problems=20)]
    by_key = {(s.stop, s.width): s for s in savings("vote", runs, widths=(1, 4, 16))}
    for width in (1, 4, 16):
        assert by_key["lossless", width].same == 1.0
        assert by_key["lossless", width].accuracy == by_key["lossless", width].full_accuracy
    assert by_key["lossless", 1].saved >= by_key["lossless", 4].saved >= by_key["lossless", 16].saved >= 0.0
    assert by_key["beta", 1].saved > by_key["lossless", 1].saved > 0.0
    assert by_key["lossless", 1].full_accuracy == fmean(run.status is CORRECT for run in runs)


def test_sure_samples_need_nine_of_sixteen() -> None:
    samples = tuple(sample("yes", completion=100) for _ in range(16))
    (lossless, beta) = savings("vote", [result("a", samples=samples)], widths=(1,))
    assert (lossless.begun, lossless.saved) == (9, pytest.approx(7 / 16))
    assert (beta.begun, beta.saved) == (4, pytest.approx(12 / 16))


def test_a_stopped_sample_counts_for_what_it_had_sampled() -> None:
    samples = [sample("yes", completion=10), sample("yes", completion=10), sample("no", completion=100)]
    early = replay(samples, Vote(n=3, stop="lossless"), 3)
    assert (early.tokens, early.right) == (30, True)


def test_a_vote_without_any_answer_is_replayed_too() -> None:
    nothing = replay([sample(None), sample(None)], Vote(n=2, stop="lossless"), 1)
    assert (nothing.answer, nothing.right, nothing.tokens) == (None, False, 20)


def test_of_many_samples_the_first_sixteen_are_replayed_as_well() -> None:
    found = savings("vote", votes(3, n=20, problems=3), widths=(1,))
    assert {each.n for each in found} == {16, 20}


# Charts and pages.


def test_a_chart_is_well_formed_and_shows_every_line() -> None:
    series = [
        Series("a < b & c", [Spot(100, 0.5, 0.4, 0.6), Spot(1000, 0.8, 0.7, 0.9)]),
        Series("free", [Spot(0, 0.5, 0.4, 0.6)]),
    ]
    svg = chart(series, title="t", x_label="x", y_label="y")
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a < b & c" in texts
    assert "free" not in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    assert svg == chart(series, title="t", x_label="x", y_label="y")


def test_more_points_are_further_right_and_more_accurate_ones_higher() -> None:
    svg = chart([Series("a", [Spot(10, 0.2, 0.1, 0.3), Spot(100, 0.9, 0.8, 1.0)])], title="", x_label="", y_label="")
    first, second = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    assert float(first.attrib["cx"]) < float(second.attrib["cx"])
    assert float(first.attrib["cy"]) > float(second.attrib["cy"])


def test_an_empty_chart_is_a_chart() -> None:
    ElementTree.fromstring(chart([], title="", x_label="", y_label=""))


def config(**more: Any) -> dict[str, Any]:
    return {
        "suite": "countdown", "model": "m", "count": 30, "seeds": 2, "width": 4, "blind": False,
        "strategies": {"vote": {"strategy": "vote", "params": {}}}, **more,
    }  # fmt: skip


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    report = write_report(Folder(tmp_path), [*votes(1), *votes(2)], config(), subsampled=["vote"])
    assert {path.name for path in report.files} == {"summary.json", "table.md", "accuracy.svg", "samples.svg"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"][0]["accuracy"] == report.rows[0].accuracy
    assert {curve["method"] for curve in summary["curves"]} == {"majority", "weighted", "best", "any"}
    assert {saving["stop"] for saving in summary["savings"]} == {"lossless", "beta"}
    page = (tmp_path / "table.md").read_text()
    assert page == report.text
    assert "subsampled" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("| vote | 1,000")}
    assert widths == {page.splitlines()[2].count("|")}


def test_a_report_without_curves_has_none(tmp_path: Path) -> None:
    report = write_report(Folder(tmp_path), votes(1), config(blind=True))
    assert (report.curves, report.savings, report.notes) == ([], [], [])
    assert "kept from the runs" in report.text
    assert not (tmp_path / "samples.svg").exists()


def test_a_curve_that_cannot_be_drawn_is_said_and_the_rest_written(tmp_path: Path) -> None:
    report = write_report(Folder(tmp_path), [result("a")], config(), subsampled=["vote"])
    assert "no samples" in report.notes[0]
    assert (tmp_path / "table.md").exists()
