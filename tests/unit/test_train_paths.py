"""Paths of hand-written logs: one turn, tools, forks, rebased and continued conversations, and what gives no sample."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from researcher_tools import Documents

from researcher.events import (
    AnswerAccepted,
    AnswerProposed,
    ClaimAdded,
    ClaimJudged,
    Event,
    EventBody,
    MessageAdded,
    RunResumed,
    RunStarted,
    Scored,
    ThreadFinished,
    ThreadStarted,
    ToolCalled,
    ToolReturned,
)
from researcher.graph import ThoughtGraph
from researcher.graph.nodes import claim_id
from researcher.store import RunReader, run_path
from researcher.testing.events import logs
from researcher.testing.scripted_model import ScriptedModel
from researcher.train.batch import Batch
from researcher.train.paths import Paths, paths_of, task_id
from researcher.train.rollouts import Rollouts
from researcher.train.sample import Credit, NodeSpan, Sample, VersionSpan
from researcher.types import (
    Answer,
    Capabilities,
    Claim,
    Completion,
    Evidence,
    FinishReason,
    Message,
    Outcome,
    Sampling,
    Task,
    Tokens,
    ToolCall,
    Verdict,
    VerdictStatus,
    WeightSpan,
    Work,
)

TASK = Task(question="2 + 2?", gold="4", verifier="exact")
ASKED = (Message(role="system", content="s"), Message(role="user", content="2 + 2?"))
Q = Message(role="user", content="and again?")
RIGHT, WRONG = VerdictStatus.CORRECT, VerdictStatus.WRONG


class Log:
    """A log that is written event by event; times are the numbers of events."""

    def __init__(self, task: Task = TASK, **started: Any) -> None:
        self.events: list[Event] = []
        self.add(None, RunStarted(task=task, strategy="vote", **started))

    def add(self, key: str | None, *bodies: EventBody) -> Log:
        for body in bodies:
            seq = len(self.events) + 1
            self.events.append(Event(seq, key, float(seq), body))
        return self

    def start(self, key: str, messages: tuple[Message, ...] = ASKED, **work: Any) -> Log:
        return self.add(key, ThreadStarted(work=Work(key=key, messages=messages, **work)))

    def say(
        self,
        key: str,
        text: str,
        ids: tuple[int, ...] | None,
        given: int = 0,
        *,
        logprobs: tuple[float, ...] | None = None,
        rebased: bool = False,
        finish: FinishReason = FinishReason.STOP,
        weights: str | None = None,
        calls: tuple[ToolCall, ...] = (),
        reasoning: str = "",
    ) -> Log:
        said = () if ids is None else ids[given:]
        given_logprobs = tuple(-0.5 for _ in said) if logprobs is None else logprobs
        tokens = Tokens(ids=ids, sampled_from=given, logprobs=given_logprobs, rebased=rebased) if ids else None
        message = Message(role="assistant", content=text, tool_calls=calls, reasoning=reasoning)
        return self.add(key, MessageAdded(message=message, finish=finish, tokens=tokens, model="m", weights=weights))

    def end(self, key: str, answer: str | None = "4", verdict: VerdictStatus | None = RIGHT, **ending: Any) -> Log:
        if answer is not None:
            self.add(key, AnswerProposed(text=answer, canonical=answer))
        if verdict is not None:
            self.add(key, Scored(verdict=Verdict(status=verdict, by="exact", score=float(verdict is RIGHT))))
        return self.add(key, ThreadFinished(outcome=ending.pop("outcome", Outcome.ANSWERED), **ending))

    @property
    def paths(self) -> Paths:
        return paths_of(self.events, "run")


def only(paths: Paths) -> Sample:
    assert paths.skipped == Counter()
    assert len(paths.samples) == 1
    return paths.samples[0]


def spans(sample: Sample) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in sample.nodes]


def test_a_thread_of_one_turn() -> None:
    log = Log(settings={"tokenizer": "abc"}).start("a", sampling=Sampling(temperature=0.7))
    log.say("a", "It is 4.", (1, 2, 3, 7, 8), 3, logprobs=(-0.25, -1.0), weights="v1", reasoning="easy").end("a")
    sample = only(log.paths)
    assert (sample.ids, sample.mask) == ((1, 2, 3, 7, 8), (False, False, False, True, True))
    assert sample.logprobs == (0.0, 0.0, 0.0, -0.25, -1.0)
    assert (sample.run, sample.thread, sample.task, sample.temperature) == ("run", "a", task_id(TASK), 0.7)
    assert spans(sample) == [(0, 3), (3, 5)]
    assert sample.versions == (VersionSpan("v1", 3, 5),)
    assert (sample.outcome, sample.verdict, sample.verifier, sample.judged) == (Outcome.ANSWERED, RIGHT, "exact", 1.0)
    assert (sample.answer, sample.canonical, sample.thought, sample.text) == ("4", "4", "easy", "It is 4.")
    assert (sample.model, sample.at, sample.finish) == ("m", 3.0, FinishReason.STOP)
    assert (sample.strategy, sample.question, sample.gold, sample.tokenizer) == ("vote", "2 + 2?", "4", "abc")
    assert [message.role for message in sample.messages] == ["system", "user", "assistant"]
    assert (sample.replies, sample.part, sample.parts) == ((2,), 0, 1)


def test_results_of_tools_are_given_and_not_sampled() -> None:
    call = ToolCall(id="c1", name="search", arguments='{"query": "x"}')
    log = Log().start("a").say("a", "", (1, 2, 9), 2, calls=(call,), finish=FinishReason.TOOL_CALLS, weights="v1")
    log.add("a", ToolCalled(call_id="c1", name="search", arguments=call.arguments))
    log.add("a", ToolReturned(call_id="c1", name="search", status="ok", content="found"))
    sample = only(log.say("a", "4", (4, 5, 6, 8), 3, weights="v2").end("a").paths)
    assert sample.ids == (1, 2, 9, 4, 5, 6, 8)
    assert sample.mask == (False, False, True, False, False, False, True)
    assert spans(sample) == [(0, 2), (2, 3), (3, 6), (6, 7)]
    assert sample.versions == (VersionSpan("v1", 2, 3), VersionSpan("v2", 6, 7))
    assert [message.role for message in sample.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert (sample.replies, sample.sampled) == ((2, 4), 2)


def test_weights_that_came_in_the_middle_of_a_reply() -> None:
    spans = (WeightSpan("v1", 0, 1), WeightSpan("v2", 1, 3), WeightSpan("v3", 3, 9))
    tokens = Tokens(ids=(1, 2, 7, 8, 9), sampled_from=2, logprobs=(-1.0,) * 3, weights=spans)
    reply = Message(role="assistant", content="4")
    body = MessageAdded(message=reply, finish=FinishReason.STOP, tokens=tokens, weights="v2")
    sample = only(Log().start("a").add("a", body).end("a").paths)
    assert sample.versions == (VersionSpan("v1", 2, 3), VersionSpan("v2", 3, 5))


def forked() -> Log:
    """One step, and two that continue it: the left one is right."""
    log = Log().start("s", kind="step", sampling=Sampling(temperature=1.0))
    log.say("s", "First.\n", (1, 2, 5, 6), 2).add(
        "s", Scored(verdict=Verdict(status=RIGHT, by="p", score=0.5), guide=True)
    )
    log.add("s", ThreadFinished(outcome=Outcome.ANSWERED))
    for key, token, verdict, score in (("l", 7, RIGHT, 0.75), ("r", 8, WRONG, 0.25)):
        log.start(key, (), kind="step", parent="s", sampling=Sampling(temperature=1.0))
        log.say(key, f"Then {token}.", (token,), 0)
        log.add(key, Scored(verdict=Verdict(status=RIGHT, by="p", score=score), guide=True))
        log.end(key, str(token), verdict)
    return log


def test_steps_that_fork_share_the_nodes_before_the_fork() -> None:
    left, right = forked().paths.samples
    assert (left.ids, right.ids) == ((1, 2, 5, 6, 7), (1, 2, 5, 6, 8))
    assert left.nodes[:2] == right.nodes[:2]
    assert left.nodes[2].node != right.nodes[2].node
    assert (left.verdict, right.verdict) == (RIGHT, WRONG)
    assert (left.steps, right.steps) == ((0.5, 0.75), (0.5, 0.25))
    assert left.text == "First.\nThen 7."
    assert left.task == right.task


def test_what_was_put_into_the_mouth_between_steps_is_given_and_part_of_the_text() -> None:
    log = Log().start("0", kind="step").say("0", "Two.", (1, 2), 1).add("0", ThreadFinished(outcome=Outcome.ANSWERED))
    log.start("1", (Message(role="assistant", content=" Wait,"),), kind="step", parent="0")
    sample = only(log.say("1", " four.", (3, 4), 1).end("1").paths)
    assert (sample.mask, sample.text) == ((False, True, False, True), "Two. Wait, four.")


def test_a_conversation_that_was_rendered_anew_gives_two_samples() -> None:
    call = ToolCall(id="c1", name="search", arguments="{}")
    log = Log().start("a").say("a", "", (1, 2, 9), 2, calls=(call,), finish=FinishReason.TOOL_CALLS)
    log.add("a", ToolReturned(call_id="c1", name="search", status="ok", content="found"))
    log.say("a", "4", (1, 2, 3, 3, 8, 9), 4, rebased=True).end("a")
    first, second = log.paths.samples
    assert (first.ids, first.mask) == ((1, 2, 9), (False, False, True))
    assert (second.ids, second.mask) == ((1, 2, 3, 3, 8, 9), (False,) * 4 + (True,) * 2)
    # What became of the thread is what both were sampled for.
    assert [(s.part, s.parts, s.verdict, s.answer) for s in (first, second)] == [(0, 2, RIGHT, "4"), (1, 2, RIGHT, "4")]
    assert (first.text, second.text, first.finish) == ("4", "4", FinishReason.STOP)
    assert (len(first.messages), len(second.messages)) == (3, 5)


def test_a_context_that_forked_steps_left_is_a_sample_once() -> None:
    log = Log().start("s", kind="step").say("s", "First.", (1, 5), 1).add("s", ThreadFinished(outcome=Outcome.ANSWERED))
    for key, token in (("l", 7), ("r", 8)):
        log.start(key, (), kind="step", parent="s").say(key, str(token), (1, 6, token), 2, rebased=True).end(key)
    assert [sample.ids for sample in log.paths.samples] == [(1, 5), (1, 6, 7), (1, 6, 8)]


def test_a_thread_that_continues_an_answer_goes_on_from_its_tokens() -> None:
    log = Log().start("a").say("a", "5", (1, 2, 7), 2, logprobs=(-1.0,)).end("a", "5", WRONG)
    log.start("b", (Q,), parent="a").say("b", "4", (1, 2, 7, 3, 8), 4, logprobs=(-2.0,)).end("b")
    first, second = log.paths.samples
    assert (first.ids, first.verdict) == ((1, 2, 7), WRONG)
    assert (second.ids, second.mask) == ((1, 2, 7, 3, 8), (False, False, True, False, True))
    assert second.logprobs == (0.0, 0.0, -1.0, 0.0, -2.0)
    assert second.nodes[:2] == first.nodes


def test_a_thread_that_continues_an_answer_in_another_context_has_its_own_tokens_alone() -> None:
    log = Log().start("a").say("a", "5", (1, 2, 7), 2).end("a", "5", WRONG)
    log.start("b", (Q,), parent="a").say("b", "4", (1, 2, 6, 3, 8), 4).say("b", "4", (9, 9), 1).end("b")
    first, second = log.paths.samples
    assert (first.ids, first.parts) == ((1, 2, 7), 1)
    assert (second.ids, second.mask) == ((1, 2, 6, 3, 8, 9, 9), (False,) * 4 + (True, False, True))
    assert (second.replies, second.parts) == ((4, 5), 1)


@pytest.mark.parametrize(
    ("ids", "logprobs"), [((1, 2, 3), (-1.0,)), ((1, 2, 3), ()), ((1, 2, 3), (-1.0, float("-inf")))]
)
def test_logprobs_that_do_not_cover_what_was_sampled_are_unknown(ids: tuple[int, ...], logprobs: Any) -> None:
    sample = only(Log().start("a").say("a", "4", ids, 1, logprobs=logprobs).end("a").paths)
    assert (sample.logprobs, sample.sampled) == ((), 2)
    Batch.of([sample])


def test_a_reply_without_tokens_does_not_hide_the_logprobs_of_others() -> None:
    log = Log().start("a").say("a", "x", (1, 2), 1, finish=FinishReason.TOOL_CALLS).say("a", "", (3,), 1)
    sample = only(log.end("a").paths)
    assert sample.logprobs == (0.0, -0.5, 0.0)
    assert spans(sample) == [(0, 1), (1, 2), (2, 3)]
    assert sample.replies == (2,)


def test_equal_words_by_other_tokens_are_another_node() -> None:
    log = Log()
    for key, ids in (("a", (1, 7)), ("b", (1, 7)), ("c", (1, 8, 9))):
        log.start(key).say(key, "4", ids, 1).end(key)
    a, b, c = log.paths.samples
    assert a.nodes == b.nodes
    assert c.nodes[0] == a.nodes[0]
    assert c.nodes[1] == NodeSpan(f"{a.nodes[1].node}~2", 1, 3)


def test_a_reply_that_broke_off_is_no_part_of_the_path_once_it_was_asked_again() -> None:
    log = Log().start("a").say("a", "It is", (1, 2, 7), 2, finish=FinishReason.TRUNCATED)
    log.add("a", ThreadFinished(outcome=Outcome.FAILED, boundary="model"))
    broken = only(log.paths)
    assert (broken.outcome, broken.boundary, broken.verdict) == (Outcome.FAILED, "model", None)
    log.add(None, RunResumed(reopened=("a",))).say("a", "It is 4.", (1, 2, 7, 8), 2).end("a")
    sample = only(log.paths)
    assert (sample.ids, sample.mask) == ((1, 2, 7, 8), (False, False, True, True))
    assert (sample.outcome, sample.boundary) == (Outcome.ANSWERED, "")


def test_a_reply_that_broke_off_without_tokens_takes_none_of_an_earlier_reply_with_it() -> None:
    log = Log().start("a").say("a", "x", (1, 2, 7), 2, finish=FinishReason.TOOL_CALLS)
    log.say("a", "It", None, finish=FinishReason.TRUNCATED)
    log.add("a", ThreadFinished(outcome=Outcome.FAILED, boundary="model")).add(None, RunResumed(reopened=("a",)))
    assert ThoughtGraph.fold(log.events).token_path("a") == (1, 2, 7)
    sample = only(log.say("a", "It is 4.", (3, 8), 1).end("a").paths)
    assert (sample.ids, sample.mask) == ((1, 2, 7, 3, 8), (False, False, True, False, True))


def test_what_gives_no_sample_is_counted_by_reason() -> None:
    log = (
        Log()
        .start("silent")
        .start("cancelled")
        .start("bare")
        .start("odd")
        .start("hot", sampling=Sampling(temperature=1.0))
    )
    log.add("cancelled", ThreadFinished(outcome=Outcome.CANCELLED))
    log.say("bare", "4", None).end("bare")
    log.add(
        "odd",
        MessageAdded(
            message=Message(role="assistant"), finish=FinishReason.STOP, tokens=Tokens(ids=(1,), sampled_from=2)
        ),
    )
    log.say("hot", "4", (1, 2), 1).end("hot").start("cold", (Q,), parent="hot", sampling=Sampling(temperature=0.5))
    log.say("cold", "4", (1, 2, 3, 4), 3).end("cold")
    log.start("planner", role="planner").say("planner", "4", (1, 2), 1).end("planner")
    paths = log.paths
    assert [sample.thread for sample in paths.samples] == ["hot"]
    assert paths.skipped == Counter(
        {
            "no reply was recorded": 2,
            "the server gave no token ids, or they were not recorded": 1,
            "the recorded tokens do not fit together": 1,
            "its parts were sampled at different temperatures": 1,
        }
    )


def test_a_thread_that_was_cancelled_in_the_middle_is_a_sample_without_a_verdict() -> None:
    log = Log().start("a").say("a", "thinking", (1, 2), 1, finish=FinishReason.TOOL_CALLS)
    sample = only(log.add("a", ThreadFinished(outcome=Outcome.CANCELLED)).paths)
    assert (sample.outcome, sample.verdict, sample.answer) == (Outcome.CANCELLED, None, None)


def test_steps_that_are_said_to_continue_each_other_end() -> None:
    log = Log().start("a", kind="step", parent="b").start("b", kind="step", parent="a")
    log.start("c", kind="step", parent="b").say("c", "4", (1, 2), 1).end("c")
    assert [sample.ids for sample in log.paths.samples] == [(1, 2)]


def test_a_log_without_a_beginning_and_strays_are_lived_through() -> None:
    assert paths_of([], "run").skipped == Counter({"the log has no beginning": 1})
    log = Log().say("unknown", "4", (1, 2), 1)
    assert log.paths.samples == ()


@pytest.mark.slow
@given(logs())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_log_holds_the_samples_are_whole(events: list[Event]) -> None:
    paths = paths_of(events, "run")
    for sample in paths.samples:
        assert len(sample.ids) == len(sample.mask)
        assert len(sample.logprobs) in (0, len(sample.ids))
        ends = [(span.start, span.end) for span in sample.nodes]
        assert list(itertools.chain(*ends)) == sorted(itertools.chain(*ends))
        assert all(place < len(sample.messages) for place in sample.replies)


def claimed(verdict: str | None, *, by: str = "a", accepted: str = "4", supported: bool | None = None) -> Sample:
    """Thread `a` votes 4 and quotes a source, thread `b` votes 5; the credit of `by`."""
    log = Log()
    for key, answer in (("a", "4"), ("b", "5")):
        log.start(key).say(key, answer, (1, 2), 1)
    text = "Two and two are four."
    log.add("a", ClaimAdded(claim=Claim(text=text, evidence=(Evidence(sha256="aa" * 32, start=0, end=3),))))
    log.add("b", ClaimAdded(claim=Claim(text="Unquoted.")))
    for key, answer in (("a", "4"), ("b", "5")):
        log.end(key, answer, None)
    if verdict is not None:
        log.add(None, ClaimJudged(claim=claim_id(text), verdict=verdict, by="j"))
    log.add(None, AnswerAccepted(answer=Answer(text=accepted, canonical=accepted, supported=supported)))
    return next(sample for sample in log.paths.samples if sample.thread == by)


@pytest.mark.parametrize(
    ("sample", "credit"),
    [
        (claimed(None), Credit(voted=True, used=True, claims=1, cited=1, upheld=1)),
        (claimed("supported"), Credit(voted=True, used=True, claims=1, cited=1, upheld=1)),
        (claimed("contradicted"), Credit(voted=True, used=True, claims=1, cited=1, contradicted=1)),
        (claimed("qualified"), Credit(voted=True, used=True, claims=1, cited=1)),
        (claimed(None, by="b"), Credit()),
        (claimed(None, accepted="5"), Credit(claims=1)),
        (claimed(None, accepted="5", by="b", supported=False), Credit(voted=True, used=True, refuted=True)),
    ],
)
def test_credit_from_the_graph(sample: Sample, credit: Credit) -> None:
    assert sample.credit == credit


def test_a_thread_that_others_were_told_of_is_used_and_no_answer_is_no_credit() -> None:
    log = Log().start("a").say("a", "found", (1, 2), 1).end("a", None, None)
    log.start("w", uses=("a",)).say("w", "4", (1, 3), 1).end("w")
    assert [sample.credit for sample in log.paths.samples] == [None, None]
    log.add(None, AnswerAccepted(answer=Answer(text="4", canonical="4")))
    told, writer = log.paths.samples
    assert told.credit == Credit(used=True)
    assert writer.credit == Credit(voted=True, used=True)


def test_an_answer_that_was_found_wrong_refutes() -> None:
    log = Log().start("a").say("a", "5", (1, 2), 1).end("a", "5", WRONG)
    log.add(None, AnswerAccepted(answer=Answer(text="5", canonical="5")))
    assert only(log.paths).credit == Credit(voted=True, used=True, refuted=True)


def test_tasks_are_named_by_what_is_asked() -> None:
    assert task_id(TASK) == task_id(Task(question="2 + 2?", gold="4", verifier="numeric"))
    assert task_id(TASK) != task_id(Task(question="2 + 2?", gold="5"))
    assert task_id(Task(question="q", data={"a": 1, "b": 2})) == task_id(Task(question="q", data={"b": 2, "a": 1}))


@pytest.mark.slow
@pytest.mark.anyio
async def test_what_the_engine_records_comes_back(tmp_path: Path) -> None:
    completion = Completion(
        message=Message(role="assistant", content="<answer>4</answer>"),
        finish=FinishReason.STOP,
        model="m",
        prompt_ids=(1, 2),
        token_ids=(7, 8, 9),
        logprobs=(-0.5, -0.25, -1.0),
        weights="v2",
        weight_spans=(WeightSpan("v1", 0, 1), WeightSpan("v2", 1, 3)),
    )
    model = ScriptedModel([completion], capabilities=Capabilities(token_ids=True, logprobs=True))
    rollouts = Rollouts(model, tmp_path, "chain_of_thought", settings={"tokenizer": "abc"})
    (group,) = await rollouts.gather([TASK], seed=0)
    (sample,) = group.samples
    assert sample.ids == (1, 2, 7, 8, 9)
    assert sample.logprobs == (0.0, 0.0, -0.5, -0.25, -1.0)
    assert sample.versions == (VersionSpan("v1", 2, 3), VersionSpan("v2", 3, 5))
    assert (sample.tokenizer, sample.strategy, sample.verdict) == ("abc", "chain_of_thought", RIGHT)
    assert sample.credit == Credit(voted=True, used=True)


@pytest.mark.slow
@pytest.mark.anyio
async def test_each_question_is_asked_over_its_own_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ToolCall(id="1", name="search", arguments='{"query": "height"}')
    replies = [
        Completion(message=Message(role="assistant", tool_calls=(call,)), finish=FinishReason.TOOL_CALLS, model="m"),
        Completion(
            message=Message(role="assistant", content="<answer>1</answer>"), finish=FinishReason.STOP, model="m"
        ),
    ]
    asked = [Task(question=f"How high is {name}?", tools=("search", "read")) for name in ("Arak", "Bedo")]
    facts = {asked[0].question: "The height of Arak is 1 m.", asked[1].question: "The height of Bedo is 2 m."}
    texts = {question: {"a.txt": fact} for question, fact in facts.items()}
    closed, close = [], Documents.close

    def counted(documents: Documents) -> None:
        closed.append(set(documents.sources))
        close(documents)

    monkeypatch.setattr(Documents, "close", counted)
    rollouts = Rollouts(ScriptedModel([*replies, *replies]), tmp_path, "chain_of_thought", texts=texts, at_once=1)
    for task, group in zip(asked, await rollouts.gather(asked, seed=0), strict=True):
        with RunReader(run_path(tmp_path, group.run)) as reader:
            (found,) = [event.body.content for event in reader.read() if isinstance(event.body, ToolReturned)]
        assert {question for question, fact in facts.items() if fact in found} == {task.question}
    assert closed == [{"a.txt"}] * 2
