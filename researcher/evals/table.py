"""The results as a table: in Markdown for a page, in columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from researcher.evals.curves import Curve
from researcher.evals.savings import Saving
from researcher.evals.summary import Row, Winner
from researcher.intervals import Interval


class Column(NamedTuple):
    """A heading and what it says of a row."""

    title: str
    cell: str


def cells(row: Row) -> list[Column]:
    """All there is to say of a row, in the order of the table."""
    last = row.passes[-1] if row.passes else None
    return [
        Column("strategy", row.strategy),
        Column("budget", amount(row.budget)),
        Column("runs", f"{row.runs:,}"),
        Column("accuracy", "-" if row.accuracy is None else f"{row.accuracy:.3f}"),
        Column("over seeds", interval(row.seeds)),
        Column("Wilson", interval(row.wilson)),
        Column("pass@k", "-" if last is None else f"{last.value:.3f} (k={last.k}, {last.runs:,} runs)"),
        Column("completion", f"{row.completion:,.0f}"),
        Column("prompt", f"{row.prompt:,.0f}"),
        Column("calls", f"{row.calls:.1f}"),
        Column("seconds", f"{row.seconds:.2f}"),
        Column("prefix hits", f"{row.hits:.0%}"),
        Column("cancelled", f"{row.cancelled:.0%}"),
        Column("merged", f"{row.merged:.1f}"),
        Column("unparsable", f"{row.unparsable:.2f}"),
        Column("no answer", f"{row.unanswered:,}"),
        Column("limited", f"{row.limited:,}"),
        Column("unverified", f"{row.unverified:,}"),
        Column("failures", failures(row)),
    ]


def markdown(rows: Sequence[Row], best: Iterable[Winner], *, about: str, budget_of: str = "total") -> str:
    """The table as a Markdown page; `about` says what was measured."""
    lines = [about, ""]
    for number, row in enumerate(rows):
        columns = cells(row)
        if number == 0:
            lines.append("| " + " | ".join(column.title for column in columns) + " |")
            lines.append("|" + "---|" * len(columns))
        lines.append("| " + " | ".join(column.cell.replace("|", "\\|") for column in columns) + " |")
    lines += ["", BUDGETS[budget_of], EXPLANATION, "", *[f"- {sentence(winner)}" for winner in best], ""]
    return "\n".join(lines)


BUDGETS = {
    "total": "`budget` bounds prompt and completion tokens together, which is what the engine charges;",
    "completion": "`budget` bounds completion tokens, as the literature compares; prompts come on top;",
}
EXPLANATION = """\
`completion` and `prompt` are what a run used on average. `over seeds`: Student's 95 % interval over the seeds' means;
`Wilson`: over the problems; runs of one problem under several seeds count for fewer.
`pass@k` is over the answers a run proposed, for the largest k that any run reached. `unverified` runs broke, or could
not be judged, and are in no accuracy; runs with `no answer` count as wrong. `limited`: ended by the budget.
`cancelled`: the share of tokens spent on threads that were stopped. `merged`: steps of a run that came to a state
another had come to. `unparsable`: replies of a run that were to hold an answer and did not. `seconds` are of runs
that share the model with others."""


def sentence(winner: Winner) -> str:
    """Which strategy wins at a budget, and whether that is more than chance."""
    head = f"At {budget_words(winner.budget)}, {winner.strategy} is the most accurate ({winner.accuracy:.3f})"
    if winner.second is None or winner.lead is None or winner.lead_interval is None:
        return f"{head}."
    low, high = winner.lead_interval
    sure = "" if low > 0 else ", which may be chance"
    return f"{head}, {winner.lead:+.3f} ({low:+.3f} to {high:+.3f}, paired) before {winner.second}{sure}."


def amount(budget: int | None) -> str:
    """A budget in a cell."""
    return "none" if budget is None else f"{budget:,}"


def budget_words(budget: int | None) -> str:
    """A budget in a sentence."""
    return "no budget" if budget is None else f"{budget:,} tokens"


def interval(bounds: Interval | None) -> str:
    """`0.812-0.861`."""
    return "-" if bounds is None else f"{bounds.low:.3f}-{bounds.high:.3f}"


def failures(row: Row) -> str:
    """`model 3, tool 1`: threads that something ended from outside."""
    return ", ".join(f"{name} {number:,}" for name, number in sorted(row.failures.items())) or "-"


def curve_table(drawn: Sequence[Curve]) -> str:
    """Accuracy with n samples, as a section of the page; nothing where there are no curves."""
    if not drawn:
        return ""
    lines = ["", "## Accuracy with n samples, subsampled", "", SUBSAMPLED]
    for strategy in dict.fromkeys(curve.strategy for curve in drawn):
        own = [curve for curve in drawn if curve.strategy == strategy]
        first = own[0]
        left = f", {first.left_out:,} left out that had fewer" if first.left_out else ""
        lines += ["", f"From {first.runs:,} runs of `{strategy}` with {first.samples} samples each{left}.", ""]
        lines.append("| n | completion | " + " | ".join(curve.method for curve in own) + " |")
        lines.append("|---|---|" + "---|" * len(own))
        for number, point in enumerate(first.points):
            shown = [f"{c.points[number].accuracy:.3f} ({interval(c.points[number].interval)})" for c in own]
            lines.append(f"| {point.n} | {point.completion:,.0f} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def saving_table(saved: Sequence[Saving]) -> str:
    """What early stops save, as a section of the page; nothing where none was replayed."""
    if not saved:
        return ""
    lines = ["", "## What early stops save, at identical samples", "", REPLAYED, ""]
    lines.append("| of | n | stop | at once | runs | tokens saved | samples begun | same answer | accuracy | full |")
    lines.append("|" + "---|" * 10)
    for each in saved:
        lines.append(
            f"| {each.strategy} | {each.n} | {each.stop} | {each.width} | {each.runs:,} | {each.saved:.1%} "
            f"| {each.begun:.1f} | {each.same:.1%} | {each.accuracy:.3f} | {each.full_accuracy:.3f} |"
        )
    return "\n".join([*lines, ""])


SUBSAMPLED = """\
Not runs of their own: each point is the mean over subsets of n of the samples that one set of runs took. `majority`:
the most frequent answer; `best`: the highest score; `weighted`: the largest sum of scores; `any`: pass@n."""

REPLAYED = """\
The vote, replayed over the very samples of the full votes: a sample takes as long as it has tokens, and a thread that
is stopped counts for what it had sampled by then. `tokens saved` are completion tokens."""
