"""An answer in steps, through the engine, on the shipped model in llama.cpp and on vLLM."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from researcher import Orchestrator
from researcher.events import Event, MessageAdded
from researcher.strategies.prompts import answer_prompt
from researcher.types import (
    Budget,
    Completion,
    Confidence,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Sampling,
    Task,
    ThreadLimits,
    Work,
)
from researcher.views import Plan, ThreadInfo, View

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]


def asked(question: str) -> tuple[Message, ...]:
    prompt = answer_prompt(question)
    return Message(role="system", content=prompt.system), Message(role="user", content=prompt.user)


ASK = asked("Use 2, 3, 5 and 7 to make 15.")
LONG = asked("Use 25, 30, 45 and 55 to make 58.")
"""Its reply is hundreds of tokens: a short one may have come before the word to stop it."""
GREEDY = Sampling(temperature=0.0, max_tokens=400, token_ids=True, logprobs=True)
LINE = msgspec.structs.replace(GREEDY, stop=("\n",), keep_stop=True)
ONCE = ThreadLimits(turns=1)


class OneByOne:
    """A strategy that starts the next work when the last has ended, and fails when there is no next one."""

    needs = frozenset({"steps", "logprobs"})
    cancels = False

    def __init__(self, following: Callable[[list[ThreadInfo]], Work | None]) -> None:
        self._following = following

    def plan(self, view: View) -> Plan:
        ended = list(view.graph.threads())
        if ended and ended[-1].outcome is None:
            return Plan()
        work = self._following(ended)
        return Plan(failure="all is said") if work is None else Plan(start=(work,))


def line(key: int, parent: str = "", given: str = "", **options: Any) -> Work:
    messages = () if parent else ASK
    said = (Message(role="assistant", content=given),) if given else ()
    return Work(
        key=str(key), kind="step", parent=parent, messages=messages + said, sampling=LINE, limits=ONCE, **options
    )


def lines(ended: list[ThreadInfo]) -> Work | None:
    """The next line, until the model ends its turn."""
    if ended and not ended[-1].final.endswith("\n"):
        return None
    return line(len(ended), ended[-1].key if ended else "")


@pytest.fixture
def run(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs works on the served model: the run, its result, its events and the completions behind them."""

    async def start(following: Callable[[list[ThreadInfo]], Work | None], recording: Any, **options: Any) -> Any:
        name = "researcher.engine.orchestrator.load_strategy"
        monkeypatch.setattr(name, lambda *_: OneByOne(following))
        model = recording(served.endpoint)
        async with Orchestrator(model, home=tmp_path, tools=[]) as orchestrator:
            run = await orchestrator.start(Task(question="Make 15."), strategy="lines", **options)
            events = [event async for event in run.events()]
            return run, await run.result(), events, [completion for _, completion in model.calls]

    return start


def added(events: list[Event]) -> list[MessageAdded]:
    """What the model said."""
    return [event.body for event in events if isinstance(event.body, MessageAdded) and event.body.tokens is not None]


async def unbroken(served: Any) -> Completion:
    return await served.endpoint.complete(ModelRequest(messages=ASK, sampling=GREEDY, raw=True))


async def test_the_model_can_be_sampled_in_steps(served: Any) -> None:
    can = await served.endpoint.capabilities()
    assert can.steps
    assert can.prefill
    assert can.logprobs
    assert can.token_ids


async def test_a_chain_of_steps_is_one_unbroken_completion(served: Any, run: Any, recording: Any) -> None:
    whole = await unbroken(served)
    assert whole.finish is FinishReason.STOP
    done, _, events, completions = await run(lines, recording)
    said = added(events)
    assert len(said) > 2, "it was said in one line, which shows nothing"
    assert "".join(body.message.content for body in said) == whole.message.content
    assert all(body.message.content.endswith("\n") for body in said[:-1])
    assert all(body.finish is FinishReason.STOP for body in said)
    # Each message holds what it adds to the path: the prompt is in the first alone, then only sampled ids follow.
    assert said[0].tokens.sampled_from == len(whole.prompt_ids)
    assert all(body.tokens.sampled_from == 0 and not body.tokens.rebased for body in said[1:])
    path = tuple(token for body in said for token in body.tokens.ids)
    assert path == whole.prompt_ids + whole.token_ids
    assert done.graph.token_path(done.graph.threads()[-1].key) == path
    assert completions[-1].prompt_ids + completions[-1].token_ids == path
    assert whole.prompt_ids == await served.tokenized(ASK, ())
    logprobs = [value for body in said for value in body.tokens.logprobs]
    assert len(logprobs) == len(whole.logprobs)
    assert max(abs(a - b) for a, b in zip(logprobs, whole.logprobs, strict=True)) < 0.05  # bf16, other batches


async def test_words_put_into_its_mouth_are_gone_on_from(served: Any, run: Any, recording: Any) -> None:
    """Behind a line, and behind the end of its turn: budget forcing's "Wait"."""

    def following(ended: list[ThreadInfo]) -> Work | None:
        if len(ended) == 1:
            return line(1, "0", given="Wait, ")
        if len(ended) > 2 and ended[-2].finish is FinishReason.STOP and "Hmm" in str(ended[-1].work.messages):
            return None
        if ended and not ended[-1].final.endswith("\n"):
            return line(len(ended), ended[-1].key, given="Hmm, ")
        return lines(ended)

    done, _, events, completions = await run(following, recording)
    said = added(events)
    first, then = completions[0], completions[1]
    wait = then.prompt_ids[len(first.prompt_ids + first.token_ids) :]
    assert then.prompt_ids[: -len(wait)] == first.prompt_ids + first.token_ids
    assert await served.detokenized(wait) == "Wait, "
    assert said[1].tokens.ids[: said[1].tokens.sampled_from] == wait, "given words are not sampled"
    assert not said[1].tokens.rebased
    ended, hmm = completions[-2], completions[-1]
    text = await served.detokenized(hmm.prompt_ids[len(first.prompt_ids) :])
    turn = "".join(message.content for message in done.graph.messages(done.graph.threads()[-1].key)[2:-1])
    assert text == turn
    assert text.endswith(ended.message.content + "Hmm, ")
    assert hmm.prompt_ids[: len(ended.prompt_ids + ended.token_ids) - 1] == ended.prompt_ids + ended.token_ids[:-1]


async def test_steps_are_charged(served: Any, run: Any, recording: Any) -> None:
    _, result, events, completions = await run(lines, recording)
    assert result.usage.calls == len(completions)
    assert result.usage.completion_tokens == sum(len(completion.token_ids) for completion in completions)
    assert result.usage.prompt_tokens == sum(len(completion.prompt_ids) for completion in completions)
    assert [body.usage.completion_tokens for body in added(events)] == [len(c.token_ids) for c in completions]
    limit = completions[0].usage.tokens + completions[1].usage.tokens + 8
    _, limited, _, fewer = await run(lines, recording, budget=Budget(tokens=limit, reserve=0.0))
    assert limited.outcome is Outcome.EXHAUSTED
    assert limited.limit == "tokens"
    assert limited.usage.tokens <= limit
    assert len(fewer) < len(completions)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("raw", [False, True], ids=["chat", "raw"])
async def test_alternatives_hold_what_was_sampled(served: Any, stream: bool, raw: bool) -> None:
    sampling = msgspec.structs.replace(GREEDY, top_logprobs=5)
    done = await served.endpoint.complete(ModelRequest(messages=ASK, sampling=sampling, raw=raw, stream=stream))
    assert len(done.alternatives) == len(done.token_ids) == len(done.logprobs)
    assert done.finish is FinishReason.STOP
    # Without the last token, the end of the turn: it has no text in llama.cpp.
    for token, logprob, alternatives in list(zip(done.token_ids, done.logprobs, done.alternatives, strict=True))[:-1]:
        assert len(alternatives) == 5
        assert sum(math.exp(alternative.logprob) for alternative in alternatives) < 1.0 + 1e-4
        assert alternatives[0].logprob == pytest.approx(logprob, abs=1e-3)
        likeliest = {a.token for a in alternatives if a.logprob > logprob - 1e-3}
        assert await served.detokenized((token,)) in likeliest


async def test_a_thread_is_stopped_while_its_confidence_is_low(served: Any, run: Any, recording: Any) -> None:
    sampling = msgspec.structs.replace(GREEDY, top_logprobs=5, max_tokens=1_000)
    sure = Work(key="0", messages=LONG, sampling=sampling, confidence=Confidence(floor=0.0, window=8))
    unsure = Work(key="1", messages=LONG, sampling=sampling, confidence=Confidence(floor=1e6, window=8))
    done, result, _, _ = await run(lambda ended: [sure, unsure, None][len(ended)], recording)
    kept, cut = done.graph.threads()
    assert kept.outcome is not Outcome.CANCELLED
    assert "confidence" not in kept.detail
    assert len(kept.confidence) == kept.sampled > 8
    assert (cut.outcome, cut.detail) == (Outcome.EXHAUSTED, "its confidence fell below the floor")
    assert 8 <= cut.sampled < kept.sampled
    assert result.usage.completion_tokens == kept.sampled + cut.sampled
    await served.until_idle()
