"""What every Model must do, as checks a third party runs against theirs.

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
    async def test_my_model(check):
        async with open_my_model() as model:
            await check(model)

Each check raises AssertionError with the promise that was broken. They need a model that answers short questions.
"""

from __future__ import annotations

import math

import anyio

from researcher.protocols import Model, Progress
from researcher.types import Completion, FinishReason, Message, ModelRequest, Sampling

SHORT = Sampling(temperature=0.0, max_tokens=16)
ASK = ModelRequest(messages=(Message(role="user", content="What is 6 times 7?"),), sampling=SHORT)
STREAMED = ModelRequest(messages=ASK.messages, sampling=SHORT, stream=True)
PATIENCE = 60.0  # seconds for one check


async def check_uri(model: Model) -> None:
    """The URI names the model and, once it was probed, stays the same."""
    await model.capabilities()
    assert model.uri, "uri is empty"
    before = model.uri
    await model.complete(ASK)
    assert model.uri == before, "uri changed after a call"


async def check_capabilities_are_kept(model: Model) -> None:
    """Capabilities are probed once and then the same."""
    assert await model.capabilities() == await model.capabilities(), "capabilities changed between two looks"


async def check_completion(model: Model) -> None:
    """A completion is a message of the assistant with its finish reason and, where the server counts, its usage."""
    progress = Progress()
    with anyio.fail_after(PATIENCE):
        done = await model.complete(ASK, progress)
    _is_whole(done)
    if done.usage is not None:
        assert done.usage.calls == 1, "one call counts as one"
        assert done.usage.completion_tokens > 0, "a reply without tokens"
        assert progress.completion_tokens == done.usage.completion_tokens, "progress is not the usage"
        assert progress.prompt_tokens == done.usage.prompt_tokens, "progress is not the usage"


async def check_stream(model: Model) -> None:
    """A streamed completion arrives in pieces that make up the whole, and progress counts its tokens."""
    if not (await model.capabilities()).streaming:
        return
    pieces: list[str] = []
    progress = Progress(on_delta=pieces.append)
    with anyio.fail_after(PATIENCE):
        done = await model.complete(STREAMED, progress)
    _is_whole(done)
    said = "".join(pieces)
    assert done.message.content.strip() in said, "the pieces do not make up the content"
    assert done.message.reasoning.strip() in said, "the pieces do not make up the reasoning"
    assert progress.completion_tokens > 0, "progress counted nothing"
    if done.usage is not None:
        assert progress.completion_tokens == done.usage.completion_tokens, "progress is not the usage"
        assert not progress.estimated, "progress says estimated although the server counted"


async def check_cancel(model: Model) -> None:
    """Cancelled calls leave nothing behind: the next one works."""
    for request in (ASK, STREAMED):
        with anyio.move_on_after(0):
            await model.complete(request)
        async with anyio.create_task_group() as group:
            group.start_soon(model.complete, request)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    with anyio.fail_after(PATIENCE):
        _is_whole(await model.complete(ASK))


async def check_concurrent_calls(model: Model) -> None:
    """Many calls at once, each with its own reply."""
    done: list[Completion] = []

    async def one() -> None:
        done.append(await model.complete(ASK))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(one)
    assert len(done) == 16
    for completion in done:
        _is_whole(completion)


async def check_token_ids(model: Model) -> None:
    """Where the model says it gives token ids and logprobs, they are there and belong together."""
    can = await model.capabilities()
    sampling = Sampling(temperature=0.0, max_tokens=16, token_ids=can.token_ids, logprobs=can.logprobs)
    for stream in (False, True) if can.streaming else (False,):
        request = ModelRequest(messages=ASK.messages, sampling=sampling, stream=stream)
        with anyio.fail_after(PATIENCE):
            done = await model.complete(request)
        if can.token_ids:
            assert done.prompt_ids, "no prompt ids"
            assert done.token_ids, "no token ids"
        if can.logprobs:
            assert done.logprobs, "no logprobs"
            assert all(value <= 1e-6 for value in done.logprobs), "a logprob above zero"
        if done.token_ids and done.logprobs:
            assert len(done.token_ids) == len(done.logprobs), "not one logprob for each token"


async def check_alternatives(model: Model) -> None:
    """Where the model gives logprobs, alternatives come for each token, and while it streams its confidence too."""
    can = await model.capabilities()
    if not can.logprobs:
        return
    sampling = Sampling(temperature=0.0, max_tokens=16, logprobs=True, top_logprobs=3)
    for stream in (False, True) if can.streaming else (False,):
        seen: list[float] = []
        request = ModelRequest(messages=ASK.messages, sampling=sampling, stream=stream)
        with anyio.fail_after(PATIENCE):
            done = await model.complete(request, Progress(on_confidence=seen.extend if stream else None))
        assert done.alternatives, "no alternatives"
        if done.logprobs:
            assert len(done.alternatives) == len(done.logprobs), "not alternatives for each token"
        for each in done.alternatives:
            values = [alternative.logprob for alternative in each]
            assert 1 <= len(each) <= 3, f"{len(each)} alternatives where 3 were asked for"
            assert values == sorted(values, reverse=True), "the most likely is not the first"
            assert sum(math.exp(value) for value in values) <= 1.0 + 1e-3, "together likelier than certain"
        if stream:
            assert len(seen) == len(done.alternatives), "not the confidence of each token"


async def check_steps(model: Model) -> None:
    """Where the model can sample steps, they join to what it would have said at once, in text and in ids."""
    if not (await model.capabilities()).steps:
        return
    whole = await _piece(model, 12)
    text = ""
    ids: tuple[int, ...] = ()
    for _ in range(3):
        piece = await _piece(model, 4, text, ids)
        assert not piece.message.reasoning, "a step was parsed"
        if ids:
            assert piece.prompt_ids == ids, "the ids of a step do not continue those of the step before"
        text += piece.message.content
        ids = (*piece.prompt_ids, *piece.token_ids) if piece.prompt_ids and piece.token_ids else ()
        if piece.finish is FinishReason.STOP:
            break
    assert text == whole.message.content, f"the steps say {text!r}, at once it said {whole.message.content!r}"


async def _piece(model: Model, tokens: int, prefix: str = "", ids: tuple[int, ...] = ()) -> Completion:
    """The next tokens of the turn."""
    sampling = Sampling(temperature=0.0, max_tokens=tokens, token_ids=(await model.capabilities()).token_ids)
    request = ModelRequest(messages=ASK.messages, sampling=sampling, raw=True, prefix=prefix, prefix_ids=ids)
    with anyio.fail_after(PATIENCE):
        return await model.complete(request)


async def check_close(model: Model) -> None:
    """It can be closed twice."""
    await model.complete(ASK)
    await model.aclose()
    await model.aclose()


def _is_whole(done: Completion) -> None:
    message = done.message
    assert message.role == "assistant", "the message is not the assistant's"
    assert message.content or message.reasoning or message.tool_calls, "the message is empty"
    assert done.finish not in (FinishReason.TRUNCATED, FinishReason.CANCELLED), f"it ended as {done.finish}"
    assert done.model, "the model has no name"
    assert done.attempts >= 1, "it was never sent"


MODEL_CHECKS = (
    check_uri,
    check_capabilities_are_kept,
    check_completion,
    check_stream,
    check_cancel,
    check_concurrent_calls,
    check_token_ids,
    check_alternatives,
    check_steps,
    check_close,
)
