"""One reasoner thread: model call, tool calls, results, again, until an answer, a limit or a loop.

Where it stands is read off its messages, so a thread that a crash cut short goes on with what was recorded:
the last message decides whether tools are to run, the model is to be asked, or the thread is to be concluded.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from researcher.engine.boundary import Ending, boundary
from researcher.engine.claims import claims_of
from researcher.engine.confidence import Watch, token_confidence
from researcher.engine.judging import record
from researcher.engine.loops import loop
from researcher.engine.shared import Shared
from researcher.engine.tool_calls import ToolCalls
from researcher.errors import BadResponse, LimitExceeded
from researcher.events import (
    AnswerProposed,
    BudgetCharged,
    CallStarted,
    ClaimAdded,
    MessageAdded,
    ThreadFinished,
)
from researcher.graph.canonical import canonical
from researcher.protocols import Ask, Progress
from researcher.strategies.prompts import parse_answer
from researcher.types import (
    Completion,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Sampling,
    Tokens,
    ToolSpec,
    Usage,
    VerdictStatus,
    Work,
)

CHARACTERS_PER_TOKEN = 3
"""For the estimate of a prompt nobody has counted yet; too low a figure holds too much budget, not too little."""
MARGIN, SMALLEST_ROOM = 16, 64
"""Tokens left free in the context window, and the least that a call asks for when the estimate leaves less."""


class Reasoner:
    """Runs one thread of `work` to its ending."""

    def __init__(self, shared: Shared, key: str, work: Work) -> None:
        self._shared = shared
        self._key = key
        self._work = work
        graph = shared.journal.graph
        self._messages: list[Message] = list(graph.messages(key))
        self._path: list[int] = list(graph.token_path(key))
        self._turns = sum(message.role == "assistant" for message in self._messages[graph.given(key) :])
        self._used = graph.usage_of(key).tokens
        self._context = graph.context_of(key)
        self._specs: tuple[ToolSpec, ...] = shared.toolbox.specs(work.tools)
        self._finish = graph.finish_of(key)
        self._watch: Watch | None = None
        self._calls = ToolCalls(shared, key, work)

    async def run(self) -> Ending | None:
        """The thread's ending, recorded; None when it was left open because the run drains."""
        ending = Ending()
        seconds = self._work.limits.seconds
        try:
            with boundary(ending), anyio.move_on_after(seconds) as scope:
                await self._go(ending)
        finally:
            await self._calls.release()
        if scope.cancelled_caught:
            ending.outcome, ending.detail = Outcome.EXHAUSTED, f"the thread's limit of {seconds:g} s was reached"
        if ending.outcome is None:
            return None
        detail = self._shared.toolbox.scrub(ending.detail)
        self._shared.journal.add(
            self._key, ThreadFinished(outcome=ending.outcome, detail=detail, boundary=ending.boundary)
        )
        return ending

    async def _go(self, ending: Ending) -> None:
        while True:
            last = self._messages[-1]
            if last.role == "assistant" and self._turns > 0:
                if self._finish is FinishReason.TRUNCATED:
                    raise BadResponse("the stream ended before the model had finished; the part that came is kept")
                if self._work.kind == "step":
                    await self._conclude_step(ending)
                    return
                if not last.tool_calls:
                    await self._conclude(last, ending)
                    return
                if why := loop(self._messages):
                    ending.outcome, ending.detail = Outcome.EXHAUSTED, why
                    return
            if pending := self._shared.journal.graph.pending_tools(self._key):
                if not await self._calls.run(pending, self._messages):
                    return
                self._messages = list(self._shared.journal.graph.messages(self._key))
                continue
            if self._shared.draining():
                return
            if self._turns >= self._work.limits.turns:
                raise LimitExceeded("turns", self._turns, self._work.limits.turns)
            await self._call_model()
            if self._watch is not None and self._watch.fell:
                ending.outcome, ending.detail = Outcome.EXHAUSTED, "its confidence fell below the floor"
                return

    async def _call_model(self) -> None:
        shared, limits = self._shared, self._work.limits
        max_tokens = self._work.sampling.max_tokens
        if limits.tokens is not None:
            if (left := limits.tokens - self._used) <= 0:
                raise LimitExceeded("thread tokens", self._used, limits.tokens)
            max_tokens = left if max_tokens is None else min(left, max_tokens)
        prompt = self._estimate()
        if shared.capabilities.context is not None:  # servers refuse a call that might not fit, rather than cut it
            room = max(SMALLEST_ROOM, shared.capabilities.context - prompt - MARGIN)
            max_tokens = room if max_tokens is None else min(room, max_tokens)
        hold = await shared.ledger.hold(prompt, max_tokens, reserved=self._work.reserved)
        if shared.draining():
            shared.ledger.settle(hold, Usage())
            return
        started = shared.journal.add(self._key, CallStarted())
        progress = shared.calling[self._key] = Progress()
        used: Usage | None = None
        try:
            await shared.journal.durable(started)  # so that a crash cannot leave a paid call uncounted
            with anyio.CancelScope() as scope:
                if self._work.confidence is not None:
                    self._watch = Watch(self._work.confidence, scope)
                    progress.on_confidence = self._watch.see
                completion = await shared.model.complete(self._request(hold.max_tokens), progress)
                used = self._record(completion) + self._unreported(completion, progress, prompt)
        finally:
            if used is None:  # failed or cancelled: what it cost is charged all the same
                used = Usage(
                    prompt_tokens=progress.prompt_tokens, completion_tokens=progress.completion_tokens, calls=1
                )
                used = shared.ledger.priced(used)
                shared.journal.add(
                    self._key, BudgetCharged(usage=used, reason="unfinished call", estimated=progress.estimated)
                )
            del shared.calling[self._key]
            shared.ledger.settle(hold, used)
        await self._shared.journal.store.durable(self._shared.journal.graph.seq)  # a paid reply is not paid again

    def _request(self, max_tokens: int) -> ModelRequest:
        sampling, can = self._work.sampling, self._shared.capabilities
        record = self._shared.record_tokens
        step = self._work.kind == "step"
        given, said = split_turn(self._messages) if step else (self._messages, [])
        return ModelRequest(
            messages=tuple(given),
            prefix="".join(message.content for message in said),
            prefix_ids=tuple(self._path) if step else (),
            raw=step,
            tools=self._specs,
            sampling=Sampling(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=max_tokens,
                seed=None if sampling.seed is None else sampling.seed + self._turns,
                stop=sampling.stop,
                keep_stop=sampling.keep_stop,
                top_logprobs=sampling.top_logprobs,
                logprobs=sampling.logprobs or (record and can.logprobs),
                token_ids=sampling.token_ids or (record and can.token_ids),
            ),
            affinity=f"{self._shared.run}/{self._work.group or self._first()}",
            stream=self._shared.streaming and can.streaming,
        )

    def _first(self) -> str:
        """The key of the thread that this one's conversation began with: its prefix is cached where that one ran."""
        key = self._key
        while (info := self._shared.journal.graph.thread(key)) is not None and info.work.parent:
            key = info.work.parent
        return key

    def _estimate(self) -> int:
        """Prompt tokens of the next call: the last call's context, plus what was added since in characters."""
        if self._context:
            new = 0
            for message in reversed(self._messages):
                if message.role == "assistant":
                    break
                new += len(message.content)
            return self._context + new // CHARACTERS_PER_TOKEN
        return sum(len(m.content) + len(m.reasoning) for m in self._messages) // CHARACTERS_PER_TOKEN + 64

    def _record(self, completion: Completion) -> Usage:
        """Append the reply to the log; what it used, with its price."""
        usage = completion.usage
        used = self._shared.ledger.priced(
            Usage(calls=1)
            if usage is None
            else Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cached_tokens=usage.cached_tokens,
                calls=1,
                cost=usage.cost,
            )
        )
        self._shared.journal.add(
            self._key,
            MessageAdded(
                message=completion.message,
                finish=completion.finish,
                tokens=self._tokens(completion),
                usage=used,
                model=completion.model,
                weights=completion.weights,
                confidence=tuple([token_confidence(each) for each in completion.alternatives or ()]),
            ),
        )
        self._messages.append(completion.message)
        self._finish = completion.finish
        self._turns += 1
        self._used += used.tokens
        self._context = used.tokens
        return used

    def _unreported(self, completion: Completion, progress: Progress, prompt: int) -> Usage:
        """What the reply's usage does not hold, charged on its own: failed attempts, or all of it, estimated."""
        if completion.usage is None:
            message = completion.message
            text = len(message.content) + len(message.reasoning) + sum(len(c.arguments) for c in message.tool_calls)
            sampled = progress.completion_tokens or 1 + text // CHARACTERS_PER_TOKEN
            usage, reason, estimated = Usage(prompt_tokens=prompt, completion_tokens=sampled), "no usage reported", True
        elif progress.completion_tokens > completion.usage.completion_tokens:
            wasted = progress.completion_tokens - completion.usage.completion_tokens
            usage, reason, estimated = Usage(completion_tokens=wasted), "failed attempts", progress.estimated
        else:
            return Usage()
        usage = self._shared.ledger.priced(usage)
        self._shared.journal.add(self._key, BudgetCharged(usage=usage, reason=reason, estimated=estimated))
        return usage

    def _tokens(self, completion: Completion) -> Tokens | None:
        """What the reply adds to the token path; the whole prompt again where the server's did not continue it."""
        if completion.token_ids is None:
            return None
        prompt, sampled = completion.prompt_ids or (), completion.token_ids
        known = len(self._path)
        rebased = bool(known) and prompt[:known] != tuple(self._path)
        given = prompt if rebased else prompt[known:]
        if rebased:
            self._path.clear()
        self._path.extend(given)
        self._path.extend(sampled)
        return Tokens(
            ids=given + sampled,
            sampled_from=len(given),
            logprobs=completion.logprobs or (),
            rebased=rebased,
            weights=completion.weight_spans,
        )

    async def _conclude(self, final: Message, ending: Ending) -> None:
        """Read the final message: claims with their evidence, the proposed answer, the verifier's word."""
        journal, shared = self._shared.journal, self._shared
        if self._finish is FinishReason.CONTENT_FILTER:
            ending.outcome, ending.detail = Outcome.REFUSED, "the server filtered the reply"
            return
        info = journal.graph.thread(self._key)
        answer = parse_answer(final.content)
        if info is not None and info.answer is None:
            for claim in claims_of(final.content, self._calls.passages, shared.texts):
                journal.add(self._key, ClaimAdded(claim=claim))
            if answer is not None:
                journal.add(self._key, AnswerProposed(text=answer, canonical=canonical(answer)))
        length = self._finish is FinishReason.LENGTH
        if answer is None and (length or self._work.role == "reasoner"):
            ending.outcome = Outcome.EXHAUSTED
            ending.detail = "the reply reached its token limit" if length else "the final message has no <answer>"
            return
        if answer is not None:
            whole = f"{final.reasoning}\n{final.content}" if final.reasoning else final.content
            ending.detail = await self._judge([whole], answer)
        ending.outcome = Outcome.ANSWERED

    async def _conclude_step(self, ending: Ending) -> None:
        """Read what the turn has come to: the state of the task, the answer if it is complete, and the scores."""
        journal = self._shared.journal
        steps = [message.content for message in split_turn(self._messages)[1]]
        info = journal.graph.thread(self._key)
        answer = parse_answer("".join(steps))
        if answer is not None and info is not None and info.answer is None:
            journal.add(self._key, AnswerProposed(text=answer, canonical=canonical(answer)))
        if answer is None and self._finish is FinishReason.LENGTH:
            ending.outcome, ending.detail = Outcome.EXHAUSTED, "the step reached its token limit"
            return
        if info is not None and info.state is None:
            record(journal, self._key, state=self._shared.bench.state(steps), verdict=None)
        ending.detail = await self._judge(steps, answer)
        ending.outcome = Outcome.ANSWERED

    async def _judge(self, steps: list[str], answer: str | None) -> str:
        """Have the answer judged and the work scored, as far as that was not done before a crash; why it could not be
        scored, if so."""
        journal, bench, work = self._shared.journal, self._shared.bench, self._work
        info = journal.graph.thread(self._key)
        ask: Ask = bench.asking(self._key, journal, self._shared.ledger, reserved=work.reserved)
        if answer is not None and work.verify and (info is None or info.verdict is None):
            record(journal, self._key, state=None, verdict=await bench.judge(answer, "".join(steps), ask))
        if work.scorer and (info is None or info.score is None):
            verdict = await bench.score(work.scorer, steps, answer, ask, step=work.kind == "step")
            record(journal, self._key, state=None, verdict=verdict, guide=True)
            if verdict.status is VerdictStatus.UNVERIFIED:
                return f"{verdict.by} could not score it: {verdict.reason or 'it does not say why'}"
        return ""


def split_turn(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """The conversation before the assistant's last turn, and the pieces of that turn."""
    at = len(messages)
    while at and messages[at - 1].role == "assistant":
        at -= 1
    return messages[:at], messages[at:]
