import io
from dataclasses import replace

import anyio
import pytest
from rich.console import Console

from researcher.cli import live
from researcher.cli.drive import exit_code
from researcher.cli.exits import Exit
from researcher.cli.live import summary
from researcher.cli.output import Output, counted, safe, spent
from researcher.engine.run import RunResult, RunStats
from researcher.types import Answer, Outcome, Usage
from researcher.views import BudgetLeft

LEFT = BudgetLeft(4000, None, 20.4, None, spendable=True, exhausted=False)
STATS = RunStats(
    seconds=12.3,
    threads={"running": 1500, "answered": 2, "failed": 0},
    usage=Usage(prompt_tokens=10_000, completion_tokens=2_000, calls=88),
    tokens_per_second=1234.5,
    budget=LEFT,
    leading=[("40 m\x1b[2J", 9), ("41 m", 2)],
)


def test_the_summary_has_threads_tokens_speed_budget_and_leaders() -> None:
    assert summary(STATS) == [
        "12 s, 1,502 threads: 1,500 running, 2 answered",
        "12,000 tokens (1,234 sampled/s), 88 calls; left: 4,000 tokens, 20 s",
        "leading: 40 m[2J (9), 41 m (2)",
    ]


def test_an_unlimited_budget_and_no_leader_are_not_shown() -> None:
    free = BudgetLeft(None, None, None, None, spendable=True, exhausted=False)
    assert summary(replace(STATS, budget=free, leading=[]))[1:] == ["12,000 tokens (1,234 sampled/s), 88 calls"]


async def watched(*, terminal: bool, rounds: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[float]]:
    """What the view wrote in so many rounds of a clock that does not wait, and how long it would have slept."""
    stream, slept = io.StringIO(), list[float]()
    console = Console(file=stream, force_terminal=terminal, width=100)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > rounds:
            scope.cancel()
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(live.anyio, "sleep", sleep)
    with anyio.CancelScope() as scope:
        await live.watch(lambda: STATS, console)
    return stream.getvalue(), slept


@pytest.mark.anyio
async def test_without_a_terminal_a_plain_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    written, slept = await watched(terminal=False, rounds=2, monkeypatch=monkeypatch)
    assert written.count("12 s, 1,502 threads") == 2
    assert "\x1b" not in written
    assert set(slept) == {5.0}


@pytest.mark.anyio
async def test_on_a_terminal_at_most_eight_frames_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    written, slept = await watched(terminal=True, rounds=3, monkeypatch=monkeypatch)
    assert "1,500 running" in written
    assert min(slept) >= 1 / 8


def result(outcome: Outcome = Outcome.ANSWERED, *, supported: bool | None = True, **more: object) -> RunResult:
    answer = Answer(text="a", canonical="a", supported=supported) if outcome is Outcome.ANSWERED else None
    return RunResult("r", outcome, answer, Usage(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (result(), Exit.ANSWERED),
        (result(supported=None), Exit.ANSWERED),
        (result(supported=False), Exit.UNVERIFIED),
        (result(limit="tokens"), Exit.LIMIT),
        (result(Outcome.EXHAUSTED, limit="tokens"), Exit.LIMIT),
        (result(Outcome.REFUSED), Exit.UNVERIFIED),
        (result(Outcome.FAILED), Exit.ERROR),
        (result(Outcome.CANCELLED, interrupted=True), Exit.INTERRUPTED),
    ],
)
def test_the_exit_code_is_the_verdict(ended: RunResult, code: Exit) -> None:
    assert exit_code(ended) is code


def test_small_words() -> None:
    assert counted({"running": 0, "answered": 1}) == "1 thread: 1 answered"
    assert counted({}) == "0 threads"
    assert spent(Usage(prompt_tokens=1200, calls=3)) == "1,200 tokens in 3 calls"
    assert spent(Usage(calls=1, cost=0.0)) == "0 tokens in 1 calls, $0.0000"
    assert safe("a\x1b[31mb\n\tc\x07") == "a[31mb\n\tc"


def test_output_keeps_data_and_narration_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for json in (False, True):
        output = Output(json=json)
        output.data("[bold]data[/bold]")
        output.line({"a": 1})
        output.note("note")
    said = capsys.readouterr()
    assert said.out == '[bold]data[/bold]\n{"a":1}\n'
    assert said.err == "note\nnote\n"
