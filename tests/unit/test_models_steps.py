from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from researcher import Orchestrator
from researcher.errors import RequestRejected
from researcher.models.endpoint import Endpoint
from researcher.models.limiter import AdaptiveLimiter
from researcher.protocols import Progress
from researcher.testing.model_replies import Raw, Reply
from researcher.testing.model_server import ModelServer
from researcher.testing.model_speaker import Kind, Speaker
from researcher.testing.model_vocabulary import END
from researcher.testing.scripted_model import ScriptedModel
from researcher.types import Capabilities, Completion, FinishReason, Message, ModelRequest, Sampling, Task, Work
from researcher.views import Plan, View

pytestmark = pytest.mark.anyio
ASK = (Message(role="user", content="2 4 6 8"),)
LINE = Sampling(temperature=0.0, max_tokens=64, stop=("\n",), keep_stop=True, token_ids=True, logprobs=True)
IDS: list[Kind] = ["vllm", "llama.cpp"]
by_ids = pytest.mark.parametrize("kind", IDS)
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@asynccontextmanager
async def served(
    speaker: Speaker, *, plain: bool = False, **options: Any
) -> AsyncIterator[tuple[Endpoint, ModelServer]]:
    with ModelServer(speaker, pages=speaker.pages, **options) as server:
        endpoint = Endpoint(server.url, plain=plain)
        try:
            yield endpoint, server
        finally:
            await endpoint.aclose()


def step(
    sampling: Sampling = LINE, *, prefix: str = "", ids: tuple[int, ...] = (), stream: bool = False
) -> ModelRequest:
    return ModelRequest(messages=ASK, sampling=sampling, raw=True, prefix=prefix, prefix_ids=ids, stream=stream)


async def steps(endpoint: Endpoint, sampling: Sampling = LINE, *, stream: bool = False) -> list[Completion]:
    """The turn in steps; each must go on from the very ids of the one before."""
    done: list[Completion] = []
    prefix, ids = "", ()
    while not done or done[-1].message.content.endswith(sampling.stop):
        piece = await endpoint.complete(step(sampling, prefix=prefix, ids=ids, stream=stream))
        assert not done or piece.prompt_ids == ids
        assert piece.token_ids is not None
        prefix, ids = prefix + piece.message.content, piece.prompt_ids + piece.token_ids
        done.append(piece)
    return done


def said(done: list[Completion]) -> list[str]:
    return [piece.message.content for piece in done]


@by_ids
@streamed
async def test_steps_are_one_unbroken_reply_in_text_and_ids(kind: Kind, stream: bool) -> None:
    speaker = Speaker("<think>\n2+4=6\n\n6*8=48\n</think> done", kind=kind, words=["<think>", "\n\n", "48\n"])
    async with served(speaker) as (endpoint, _):
        done = await steps(endpoint, stream=stream)
        whole = await endpoint.complete(step(Sampling(max_tokens=64, token_ids=True)))
    assert said(done) == ["<think>\n", "2+4=6\n\n", "6*8=48\n", "</think> done"]
    assert "".join(said(done)) == whole.message.content
    assert sum((piece.token_ids for piece in done), ()) == whole.token_ids
    assert [piece.finish for piece in done] == [FinishReason.STOP] * 4
    for piece in done:
        assert speaker.vocabulary.text(piece.token_ids).removesuffix("<|end|>") == piece.message.content
        assert len(piece.logprobs or ()) == len(piece.token_ids)
        assert piece.usage is not None
        assert piece.usage.completion_tokens == len(piece.token_ids)


@by_ids
@pytest.mark.parametrize(
    ("text", "words", "stops", "expected"),
    [
        ("a## b", ["a#", "# b"], ("##",), "a## b"),  # the last token says more than the stop string
        ("a\n\n\nb", ["\n\n"], ("\n\n",), "a\n\n"),
        ("a\n\n\nb", ["\n", "\n\n\n"], ("\n\n",), "a\n\n\n"),
        ("a\nb;c", [], (";", "\n"), "a\n"),
        ("a。b", ["。"], ("。",), "a。"),
        ("abc", ["abc"], ("b",), "abc"),
        ("Step 1: x\n\nStep 2: y", ["\n\nStep", " 2"], ("\n\nStep 2",), "Step 1: x\n\nStep 2"),
    ],
)
async def test_a_kept_stop_is_in_the_text_and_in_the_ids(
    kind: Kind, text: str, words: list[str], stops: tuple[str, ...], expected: str
) -> None:
    speaker = Speaker(text, kind=kind, words=words)
    deltas: list[str] = []
    async with served(speaker) as (endpoint, _):
        sampling = msgspec.structs.replace(LINE, stop=stops)
        done = await endpoint.complete(step(sampling, stream=True), Progress(on_delta=deltas.append))
        assert done.message.content == "".join(deltas) == expected
        assert speaker.vocabulary.text(done.token_ids or ()) == expected
        after = await endpoint.complete(step(sampling, prefix=expected, ids=done.prompt_ids + done.token_ids))
        assert after.prompt_ids == done.prompt_ids + done.token_ids


@by_ids
async def test_without_keeping_it_the_stop_string_is_not_in_the_text(kind: Kind) -> None:
    async with served(Speaker("one\ntwo", kind=kind)) as (endpoint, _):
        done = await endpoint.complete(step(msgspec.structs.replace(LINE, keep_stop=False)))
        assert done.message.content == "one"
        after = await endpoint.complete(step(prefix="one", ids=done.prompt_ids + done.token_ids))
        assert after.prompt_ids == (done.prompt_ids + done.token_ids)[:-1], (
            "what is not in the text is not gone on from"
        )
        assert after.message.content == "\n"


@by_ids
async def test_given_words_are_put_behind_the_sampled_ids(kind: Kind) -> None:
    speaker = Speaker(kind=kind, words=["Wait", "one"], goes_on=lambda turn: "two\n" if "Wait" in turn else "one\n")
    async with served(speaker) as (endpoint, _):
        first = await endpoint.complete(step())
        path = first.prompt_ids + first.token_ids
        then = await endpoint.complete(step(prefix="one\nWait", ids=path))
        assert then.prompt_ids == path + tuple(speaker.vocabulary.ids("Wait"))
        assert then.message.content == "two\n"
        last = await endpoint.complete(step(prefix="one\nWaittwo\n", ids=then.prompt_ids + then.token_ids))
        assert last.prompt_ids == then.prompt_ids + then.token_ids


@by_ids
async def test_an_ended_turn_is_gone_on_with_before_its_end(kind: Kind) -> None:
    speaker = Speaker(kind=kind, goes_on=lambda turn: " no" if turn else "yes")
    async with served(speaker) as (endpoint, _):
        first = await endpoint.complete(step())
        assert (first.token_ids or ())[-1] == END
        assert first.message.content == "yes"
        again = await endpoint.complete(step(prefix="yesWait", ids=first.prompt_ids + first.token_ids))
        assert again.prompt_ids == first.prompt_ids + first.token_ids[:-1] + tuple(speaker.vocabulary.ids("Wait"))
        assert again.message.content == " no"


@by_ids
async def test_ids_that_say_something_else_are_not_gone_on_from(kind: Kind) -> None:
    speaker = Speaker("one\ntwo\n", kind=kind, words=["one", "two"])
    async with served(speaker) as (endpoint, _):
        first = await endpoint.complete(step())
        path = first.prompt_ids + tuple(speaker.vocabulary.ids("one\n"))
        for ids in ((), (1, 2), (*first.prompt_ids, 7, 7, 7), path[:-1], (*path, END), (*path, 99, 98, 97)):
            then = await endpoint.complete(step(prefix="one\n", ids=ids))
            assert then.prompt_ids == path
            assert then.message.content == "two\n"


@by_ids
async def test_the_server_is_asked_for_text_and_ids_no_more_than_needed(kind: Kind) -> None:
    async with served(Speaker("one\ntwo\nthree\n", kind=kind)) as (endpoint, server):
        await steps(endpoint)
        first = len(server.requests)
        await steps(endpoint)
    asked = [request.path for request in server.requests]
    assert asked.count("/v1/completions") == 8
    assert asked.count("/tokenize") == 1
    assert asked.count("/detokenize") == 2, "what the last tokens say: a line end, and the end of the turn"
    assert asked[first:] == ["/v1/completions"] * 4


@pytest.mark.parametrize("plain", [False, True])
async def test_ids_that_llama_cpp_leaves_out_are_found_again(plain: bool) -> None:
    speaker = Speaker("né 🙂\nend", kind="llama.cpp")
    async with served(speaker, plain=plain) as (endpoint, server):
        done = await steps(endpoint)
        assert said(done) == ["né 🙂\n", "end"]
        assert done[0].token_ids == tuple("né 🙂\n".encode())
        assert done[0].logprobs is None, "a logprob that was left out cannot be found"
        assert len(done[1].logprobs or ()) == 4
        chat = await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(token_ids=True, max_tokens=64)))
        assert chat.token_ids == (*"né 🙂\nend".encode(), END)
    sent = [request.body for request in server.requests if request.path == "/v1/completions"]
    assert [bool(body.get("stream")) for body in sent] == [not plain] * 3


@pytest.mark.parametrize("plain", [False, True])
async def test_no_ids_are_claimed_where_some_are_lost(plain: bool) -> None:
    """Half a character at the limit, a word whose text the tokenizer makes otherwise, a stop string in bytes."""
    speaker = Speaker("né\n", kind="llama.cpp")
    async with served(speaker, plain=plain) as (endpoint, _):
        cut = await endpoint.complete(step(msgspec.structs.replace(LINE, max_tokens=2)))
        assert (cut.message.content, cut.finish, cut.token_ids) == ("n", FinishReason.LENGTH, None)
        speaker.vocabulary.ids = lambda text: [0] if text == "é" else list(text.encode())  # type: ignore[method-assign]
        done = await endpoint.complete(step())
        assert (done.message.content, done.token_ids) == ("né\n", None), "the stop string is there all the same"
    async with served(Speaker("a。b", kind="llama.cpp"), plain=plain) as (endpoint, _):
        done = await endpoint.complete(step(msgspec.structs.replace(LINE, stop=("。",))))
        assert (done.message.content, done.token_ids) == ("a。", None)


@streamed
async def test_sglang_goes_on_by_chat(stream: bool) -> None:
    async with served(Speaker("<think>\none\ntwo", kind="sglang")) as (endpoint, server):
        can = await endpoint.capabilities()
        assert (can.steps, can.prefill, can.token_ids, can.context) == (True, True, False, 4096)
        first = await endpoint.complete(step(stream=stream))
        then = await endpoint.complete(step(prefix="<think>\n", stream=stream))
        last = await endpoint.complete(step(prefix="<think>\none\n", stream=stream))
    assert said([first, then, last]) == ["<think>\n", "one\n", "two"]
    body = server.requests[1].body
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\n"}
    assert (body["continue_final_message"], body["separate_reasoning"], body["no_stop_trim"]) == (True, False, True)
    assert "continue_final_message" not in server.requests[0].body


async def test_vllm_goes_on_by_chat_where_a_gateway_lets_nothing_else_through() -> None:
    async with served(Speaker("one\ntwo", only_chat=True)) as (endpoint, server):
        assert said(await steps(endpoint)) == ["one\n", "two"]
    assert [request.path for request in server.requests] == ["/tokenize", *["/v1/chat/completions"] * 2]
    body = server.requests[-1].body
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


async def test_a_reply_that_the_server_took_apart_is_refused() -> None:
    reply, pages = Reply("42", reasoning="6*7"), Speaker().pages

    def act(request: Any) -> Raw | Reply:
        return reply if request.path == "/v1/chat/completions" else Raw(404)

    with ModelServer(act, pages=pages) as server:
        endpoint = Endpoint(server.url)
        with pytest.raises(RequestRejected, match="let /tokenize and /v1/completions through"):
            await endpoint.complete(step())
        assert endpoint.limiter.in_flight == 0
        await endpoint.aclose()


async def test_a_server_that_cannot_go_on_is_named_with_those_that_can() -> None:
    with ModelServer(Reply("42")) as server:
        endpoint = Endpoint(server.url)
        assert not (await endpoint.capabilities()).steps
        for request in (step(), step(prefix="4")):
            with pytest.raises(
                RequestRejected, match=r"cannot continue a begun reply; vLLM, SGLang and llama\.cpp can"
            ):
                await endpoint.complete(request)
        await endpoint.aclose()


async def test_a_stop_string_is_kept_in_chat_or_refused() -> None:
    sampling = Sampling(stop=("\n",), keep_stop=True, max_tokens=64)
    for kind in ("vllm", "sglang", "llama.cpp"):
        async with served(Speaker("one\ntwo", kind=kind)) as (endpoint, _):
            assert (await endpoint.complete(ModelRequest(messages=ASK, sampling=sampling))).message.content == "one\n"
    with ModelServer(Reply("one")) as server:
        endpoint = Endpoint(server.url, "test")
        with pytest.raises(RequestRejected, match="cannot keep the stop string"):
            await endpoint.complete(ModelRequest(messages=ASK, sampling=sampling))
        await endpoint.aclose()


async def test_max_tokens_of_ids_are_what_the_window_leaves() -> None:
    async with served(Speaker("x" * 40)) as (endpoint, server):
        done = await endpoint.complete(step(Sampling()))
        assert done.message.content == "x" * 40
        assert server.requests[-1].body["max_tokens"] == 4096 - len(done.prompt_ids or ())


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
@pytest.mark.parametrize("raw", [False, True], ids=["chat", "raw"])
@streamed
@pytest.mark.parametrize("unlikely", [False, True], ids=["likely", "unlikely"])
async def test_alternatives_are_the_most_likely_tokens(kind: Kind, raw: bool, stream: bool, unlikely: bool) -> None:
    speaker = Speaker("ab", kind=kind, unlikely=unlikely)
    seen: list[float] = []
    async with served(speaker) as (endpoint, _):
        sampling = Sampling(top_logprobs=3, max_tokens=2)
        request = ModelRequest(messages=ASK, sampling=sampling, raw=raw, stream=stream)
        done = await endpoint.complete(request, Progress(on_confidence=seen.extend) if stream else None)
    assert done.alternatives is not None
    names = [[alternative.token for alternative in each] for each in done.alternatives]
    if not unlikely:
        assert names == [["a", "other 0", "other 1"], ["b", "other 0", "other 1"]]
    elif kind == "sglang":  # which counts the sampled one as one of them, and says so nowhere
        assert names == [["other 0", "other 1", "a"], ["other 0", "other 1", "b"]]
    else:
        assert names == [["other 0", "other 1", "other 2"]] * 2
    values = [alternative.logprob for alternative in done.alternatives[0]]
    assert seen == ([pytest.approx(-sum(values) / 3)] * 2 if stream else [])


@pytest.mark.parametrize(("asked", "sent"), [(1, 2), (19, 20), (20, 20), (25, 25)])
async def test_vllm_is_asked_for_one_more_up_to_its_limit(asked: int, sent: int) -> None:
    async with served(Speaker("ab")) as (endpoint, server):
        await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(top_logprobs=asked)))
        assert (server.requests[-1].body["top_logprobs"], server.requests[-1].body["logprobs"]) == (sent, True)


@pytest.mark.parametrize("logprobs", [{"content": []}, {"top_logprobs": [[1], None]}, {"top_logprobs": {"a": 1}}, None])
async def test_odd_alternatives_are_none(logprobs: Any) -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "logprobs": logprobs}
    with ModelServer(Raw(body=msgspec.json.encode({"choices": [choice]})), pages=Speaker().pages) as server:
        endpoint = Endpoint(server.url)
        done = await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(top_logprobs=2)))
        assert done.alternatives is None
        await endpoint.aclose()


async def test_a_server_without_logprobs_is_not_asked_for_alternatives() -> None:
    with ModelServer(Reply("42")) as server:
        endpoint = Endpoint(server.url)
        done = await endpoint.complete(ModelRequest(messages=ASK, sampling=Sampling(top_logprobs=2)))
        assert done.alternatives is None
        assert not {"logprobs", "top_logprobs"} & server.requests[-1].body.keys()
        await endpoint.aclose()


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
@pytest.mark.parametrize("raw", [False, True], ids=["chat", "raw"])
async def test_a_call_can_be_stopped_by_its_confidence(kind: Kind, raw: bool) -> None:
    """Also one that was not to be streamed: there is nothing to see else."""
    async with served(Speaker("x" * 100, kind=kind, stall_after=20)) as (endpoint, server):
        seen: list[float] = []
        with anyio.CancelScope() as scope:
            sampling = Sampling(top_logprobs=2, max_tokens=100)

            def see(values: Any) -> None:
                seen.extend(values)
                if len(seen) >= 10:
                    scope.cancel()

            await endpoint.complete(ModelRequest(messages=ASK, sampling=sampling, raw=raw), Progress(on_confidence=see))
        assert scope.cancelled_caught
        assert 10 <= len(seen) <= 20
        assert endpoint.limiter.in_flight == 0
        await server.until(lambda counts: counts.aborted == 1 and counts.in_flight == 0)


def failing_once(route: str, speaker: Speaker) -> Callable[[Any], Any]:
    failed: set[str] = set()

    def act(request: Any) -> Any:
        if request.path == route and route not in failed:
            failed.add(route)
            return Raw(503, body=b"busy")
        return speaker(request)

    return act


@pytest.mark.parametrize("route", ["/tokenize", "/detokenize", "/v1/completions"])
@by_ids
async def test_a_fault_on_the_way_is_tried_again(kind: Kind, route: str) -> None:
    speaker = Speaker("one\ntwo", kind=kind)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with ModelServer(failing_once(route, speaker), pages=speaker.pages) as server:
        endpoint = Endpoint(server.url, sleep=sleep)
        done = await steps(endpoint)
        assert said(done) == ["one\n", "two"]
        assert done[0].attempts == 2
        assert waits
        assert endpoint.limiter.in_flight == 0
        await endpoint.aclose()


@by_ids
async def test_a_tokenizer_that_answers_something_else_is_a_fault(kind: Kind) -> None:
    def act(request: Any) -> Raw:
        return Raw(body=b'{"tokens": "no"}')

    with ModelServer(act, pages=Speaker(kind=kind).pages) as server:

        async def sleep(_: float) -> None:
            pass

        endpoint = Endpoint(server.url, sleep=sleep)
        with pytest.raises(Exception, match="did not answer as"):
            await endpoint.complete(step())
        await endpoint.aclose()


class Siblings:
    """A strategy that starts four first steps in each of three groups, and is done when they are."""

    needs = frozenset({"steps"})
    cancels = False

    def plan(self, view: View) -> Plan:
        if view.in_flight:
            return Plan()
        if view.graph.threads():
            return Plan(failure="done")
        asked = [Message(role="user", content=f"{group} " * 50) for group in "ABC"]
        return Plan(
            start=tuple(
                Work(key=f"{n}{i}", kind="step", messages=(message,), sampling=LINE)
                for n, message in enumerate(asked)
                for i in range(4)
            )
        )


@by_ids
async def test_siblings_reach_the_server_one_behind_the_other(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they have to wait: what one has brought into the server's cache is not driven out by other groups."""
    monkeypatch.setattr("researcher.engine.orchestrator.load_strategy", lambda *_: Siblings())
    speaker = Speaker("one\n", kind=kind)
    with ModelServer(speaker, pages=speaker.pages) as server:
        endpoint = Endpoint(server.url, limiter=AdaptiveLimiter(2, maximum=2))
        async with Orchestrator(endpoint, home=tmp_path, tools=[]) as orchestrator:
            await orchestrator.answer(Task(question="?"), strategy="siblings")
        await endpoint.aclose()
    prompts = [speaker.vocabulary.text(r.body["prompt"]) for r in server.requests if r.path == "/v1/completions"]
    groups = [next(group for group in "ABC" if group in prompt) for prompt in prompts]
    # Two calls are under way at once, so the last of a group and the first of the next may change places.
    for place, group in enumerate(groups):
        first = 4 * "ABC".index(group)
        assert first - 1 <= place <= first + 4, groups
    assert len(groups) == 12


async def test_a_step_goes_where_its_conversation_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Chains(Siblings):
        def plan(self, view: View) -> Plan:
            ended = list(view.graph.threads())
            if view.in_flight:
                return Plan()
            if len(ended) == 6:
                return Plan(failure="done")
            if not ended:
                return Plan(start=tuple(Work(key=k, kind="step", messages=ASK, sampling=LINE) for k in ("a", "b")))
            works = [(info.key + "x", info.key) for info in ended[-2:]]
            return Plan(start=tuple(Work(key=k, kind="step", parent=p, messages=(), sampling=LINE) for k, p in works))

    monkeypatch.setattr("researcher.engine.orchestrator.load_strategy", lambda *_: Chains())
    model = ScriptedModel(lambda request: "one\n", capabilities=Capabilities(prefill=True))
    async with Orchestrator(model, home=tmp_path, tools=[]) as orchestrator:
        await orchestrator.answer(Task(question="?"), strategy="chains")
        await orchestrator.answer(Task(question="?"), strategy="chains")
    homes = Counter(request.affinity for request in model.requests)
    assert sorted(homes.values()) == [3] * 4, "runs that go on at the same time do not crowd one replica"
    assert Counter(home.rpartition("/")[2] for home in homes) == {"a": 2, "b": 2}
