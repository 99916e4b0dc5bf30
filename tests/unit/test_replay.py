import json
from collections.abc import Iterator

import pytest

from researcher.errors import UserError
from researcher.events import (
    AnswerAccepted,
    AnswerProposed,
    BudgetCharged,
    CallStarted,
    ClaimAdded,
    Event,
    EventBody,
    MessageAdded,
    RunFinished,
    RunStarted,
    ThreadFinished,
    ThreadStarted,
    ToolCalled,
    ToolReturned,
)
from researcher.replay.frames import Frame, clip, describe, frame_json, frames
from researcher.replay.player import play
from researcher.types import Answer, Claim, Message, Outcome, Task, Usage, Work


def log(*entries: tuple[float, str | None, EventBody]) -> Iterator[Event]:
    return (Event(seq, thread, at, body) for seq, (at, thread, body) in enumerate(entries, 1))


def work(key: str) -> Work:
    return Work(key=key, messages=(Message(role="user", content="How high?"),))


USED = Usage(prompt_tokens=7, completion_tokens=3, calls=1)
RUN = (
    (0.0, None, RunStarted(task=Task(question="How high?"), strategy="vote", model="embedded")),
    (0.1, "a", ThreadStarted(work=work("a"))),
    (0.1, "b", ThreadStarted(work=work("b"))),
    (0.2, "a", CallStarted()),
    (9.0, "a", MessageAdded(message=Message(role="assistant", content="40 m"), usage=USED)),
    (8.0, "a", AnswerProposed(text="40 m", canonical="40")),
    (8.1, "a", ThreadFinished(outcome=Outcome.ANSWERED)),
    (8.2, "b", BudgetCharged(usage=Usage(completion_tokens=5, calls=1), reason="cancelled")),
    (8.2, "b", ThreadFinished(outcome=Outcome.FAILED, boundary="model", detail="refused")),
    (8.3, None, AnswerAccepted(answer=Answer(text="40 m", canonical="40", votes=1, of=2))),
    (8.3, None, RunFinished(outcome=Outcome.ANSWERED)),
)  # fmt: skip


def test_frames_tell_the_run_and_count_it() -> None:
    shown = list(frames(log(*RUN)))
    assert [frame.seq for frame in shown] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert shown[0].text == "How high? [vote on embedded]"
    assert shown[-3].text == "ends failed (model: refused)"
    assert shown[-1].tally.threads == {"answered": 1, "failed": 1}
    assert (shown[-1].tally.tokens, shown[-1].tally.calls) == (15, 2)
    assert shown[-1].tally.leading == (("40 m", 1),)


def test_frames_stop_at_a_sequence_number() -> None:
    shown = list(frames(log(*RUN), until=5))
    assert shown[-1].seq == 5
    assert shown[-1].tally.threads == {"running": 2}
    assert shown[-1].tally.leading == ()


def test_frames_up_to_n_are_the_first_frames_of_the_whole() -> None:
    whole = list(frames(log(*RUN)))
    for until in range(12):
        assert list(frames(log(*RUN), until=until)) == [frame for frame in whole if frame.seq <= until]


def test_a_clock_that_jumps_back_is_no_pause() -> None:
    assert all(frame.after >= 0 for frame in frames(log(*RUN)))


def test_tools_and_claims_have_lines_and_unquoted_claims_say_so() -> None:
    events = log(
        (0.0, "a", ToolCalled(call_id="1", name="search", arguments='{"query": "x"}')),
        (0.0, "a", ToolReturned(call_id="1", name="search", status="failed", content="no index")),
        (0.0, "a", ClaimAdded(claim=Claim(text="It is so."))),
    )
    assert [describe(event) for event in events] == [
        'calls search {"query": "x"}',
        "search gives failed: no index",
        "claims without evidence: It is so.",
    ]


def test_a_line_stays_one_line_without_control_characters() -> None:
    assert clip("a\n\n b\x1b[31m\tc") == "a b [31m c"
    assert clip("x" * 300, 10) == "x" * 9 + "…"


def played(speed: float | None) -> tuple[list[float], list[Frame]]:
    slept: list[float] = []
    shown: list[Frame] = []
    play(frames(log(*RUN)), shown.append, speed=speed, sleep=slept.append)
    return slept, shown


def test_pauses_are_scaled_and_capped() -> None:
    slept, shown = played(2.0)
    assert len(shown) == 9
    assert slept[0] == pytest.approx(0.05)
    assert max(slept) == 2.0
    assert played(100.0)[0][1] == pytest.approx(0.089)


def test_instant_never_sleeps_and_shows_the_same() -> None:
    slept, shown = played(None)
    assert slept == []
    assert shown == played(1.0)[1]


def test_a_speed_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="--speed must be greater than 0"):
        played(0.0)


def test_a_frame_is_json() -> None:
    fields = json.loads(json.dumps(frame_json(list(frames(log(*RUN)))[-1])))
    assert fields["seq"] == 11
    assert fields["kind"] == "run_finished"
    assert fields["tally"]["leading"] == [["40 m", 1]]
