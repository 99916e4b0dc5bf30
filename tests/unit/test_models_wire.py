import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from researcher.errors import BadResponse
from researcher.models.requests import RequestEncoder, ServerKind
from researcher.models.sse import EventParser
from researcher.models.stream import StreamFold
from researcher.models.wire import WireReply, completions_of, decode_reply, split_thought
from researcher.protocols import Progress
from researcher.types import FinishReason, Message, ModelRequest, Sampling, ToolCall, ToolSpec

ASK = (Message(role="user", content="hi"),)


def fold(*chunks: dict[str, Any], progress: Progress | None = None) -> StreamFold:
    folded = StreamFold(progress or Progress())
    for chunk in chunks:
        folded.add(msgspec.convert(chunk, WireReply))
    return folded


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta, **more}]}


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"))), st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    wire = "".join(f": a comment{end}event: x{end}data: {text}{end}{end}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    parser = EventParser()
    got: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += parser.feed(wire[start:stop])
    got += parser.close()
    assert [event.decode() for event in got] == texts


def test_an_event_of_several_data_lines_is_one() -> None:
    assert EventParser().feed(b"data: {\ndata:1}\n\n") == [b"{\n1}"]


@pytest.mark.parametrize(
    ("content", "reasoning", "expected"),
    [
        ("<think>\n6*7\n</think>\n\n42", "", ("42", "6*7")),
        ("  <think>6*7</think>42", "", ("42", "6*7")),
        ("<think>never closed", "", ("", "never closed")),
        ("I <think>not</think> so", "", ("I <think>not</think> so", "")),
        ("<think>x</think>42", "already split", ("<think>x</think>42", "already split")),
        ("42", "", ("42", "")),
    ],
)
def test_only_a_leading_thought_is_moved(content: str, reasoning: str, expected: tuple[str, str]) -> None:
    assert split_thought(content, reasoning) == expected


def test_what_vllm_says_of_tokens_is_kept() -> None:
    reply = decode_reply(
        b'{"model": "m", "prompt_token_ids": [1, 2], "choices": [{"message": {"content": "a b"}, "finish_reason":'
        b'"stop", "token_ids": [3, 4], "logprobs": {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []},'
        b'{"token": " b", "logprob": -1}]}}],'
        b'"usage": {"prompt_tokens": 2, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}}'
    )
    [done] = completions_of(reply, "asked")
    assert (done.model, done.prompt_ids, done.token_ids, done.logprobs) == ("m", (1, 2), (3, 4), (-0.5, -1.0))
    assert done.usage is not None
    assert done.usage.cached_tokens == 1


def test_what_llama_cpp_says_of_tokens_is_kept() -> None:
    reply = decode_reply(
        b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop",'
        b'"logprobs": {"content": [{"id": 7, "token": "a", "logprob": -0.5}]}}]}'
    )
    [done] = completions_of(reply, "asked")
    assert (done.model, done.token_ids, done.logprobs, done.usage) == ("asked", (7,), (-0.5,), None)


def test_several_choices_carry_their_usage_once() -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    reply = msgspec.convert(
        {"choices": [choice, choice], "usage": {"prompt_tokens": 5, "completion_tokens": 8}}, WireReply
    )
    one, two = completions_of(reply, "m")
    assert one.usage is not None
    assert two.usage is not None
    assert (one.usage + two.usage).tokens == 13
    assert (one.usage + two.usage).calls == 1


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", FinishReason.STOP), ("length", FinishReason.LENGTH), ("abort", FinishReason.TRUNCATED),
     (None, FinishReason.TRUNCATED), ("content_filter", FinishReason.CONTENT_FILTER)],
)  # fmt: skip
def test_a_stop_is_never_made_up(reason: str | None, finish: FinishReason) -> None:
    reply = msgspec.convert({"choices": [{"message": {"content": "x"}, "finish_reason": reason}]}, WireReply)
    assert completions_of(reply, "m")[0].finish is finish


def test_a_refusal_is_the_content_of_a_filtered_reply() -> None:
    message = {"content": None, "refusal": "I will not."}
    reply = msgspec.convert({"choices": [{"message": message, "finish_reason": "stop"}]}, WireReply)
    [done] = completions_of(reply, "m")
    assert (done.message.content, done.finish) == ("I will not.", FinishReason.CONTENT_FILTER)


def test_tool_calls_of_a_stream_are_put_together() -> None:
    def call(index: int | None, **fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, **fields}]})

    by_index = fold(
        call(1, id="a", function={"name": "search", "arguments": ""}),
        call(1, function={"arguments": '{"q": '}),
        call(2, id="b", function={"name": "read", "arguments": {"n": 1}}),
        call(1, function={"arguments": "1}"}),
        chunk({}, finish_reason="stop"),
    ).completion("m")
    assert by_index.message.tool_calls == (
        ToolCall(id="a", name="search", arguments='{"q": 1}'),
        ToolCall(id="b", name="read", arguments='{"n":1}'),
    )
    assert by_index.finish is FinishReason.TOOL_CALLS
    without = fold(
        call(None, id="a", function={"name": "f", "arguments": "{"}),
        call(None, function={"arguments": "}"}),
        call(None, id="b", function={"name": "g", "arguments": "{}"}),
    ).completion("m")
    assert [(c.id, c.arguments) for c in without.message.tool_calls] == [("a", "{}"), ("b", "{}")]


def test_progress_is_counted_by_usage_else_by_ids_else_estimated() -> None:
    progress = Progress()
    fold(chunk({"content": "a"}), chunk({"reasoning": "b"}), chunk({"role": "assistant"}), progress=progress)
    assert (progress.completion_tokens, progress.estimated) == (2, True)
    progress = Progress()
    fold(chunk({"content": "ab"}, token_ids=[1, 2]), progress=progress)
    assert (progress.completion_tokens, progress.estimated) == (2, False)
    progress = Progress(completion_tokens=10)  # of an earlier attempt
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    fold(chunk({"content": "a"}), chunk({"content": "b"}) | {"usage": usage}, progress=progress)
    assert (progress.completion_tokens, progress.prompt_tokens, progress.estimated) == (15, 3, False)


def test_a_stream_without_a_chunk_is_no_reply() -> None:
    with pytest.raises(BadResponse, match="before its first chunk"):
        fold().completion("m")


def encoded(request: ModelRequest, kind: ServerKind, **options: Any) -> dict[str, Any]:
    return msgspec.json.decode(RequestEncoder().chat(request, "m", kind, **options))  # type: ignore[no-any-return]


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    assert encoded(ModelRequest(messages=ASK), ServerKind.GENERIC) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_each_kind_of_server_gets_its_dialect() -> None:
    sampling = Sampling(temperature=0.5, max_tokens=9, seed=1, stop=("x",), token_ids=True, logprobs=True)
    request = ModelRequest(messages=ASK, sampling=sampling, stream=True)
    vllm = encoded(request, ServerKind.VLLM, n=3)
    assert vllm["return_token_ids"] is True
    assert vllm["logprobs"] is True
    assert (vllm["max_tokens"], vllm["n"], vllm["stop"], vllm["temperature"], vllm["seed"]) == (9, 3, ["x"], 0.5, 1)
    assert vllm["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    openai = encoded(request, ServerKind.OPENAI)
    assert openai["max_completion_tokens"] == 9
    assert "return_token_ids" not in openai
    assert openai["stream_options"] == {"include_usage": True}
    only_ids = ModelRequest(messages=ASK, sampling=Sampling(token_ids=True))
    assert encoded(only_ids, ServerKind.LLAMA_CPP)["logprobs"] is True
    thought = ModelRequest(messages=(Message(role="assistant", content="42", reasoning="6*7"),))
    assert encoded(thought, ServerKind.VLLM)["messages"][0]["reasoning_content"] == "6*7"
    assert "reasoning_content" not in encoded(thought, ServerKind.GENERIC)["messages"][0]


def test_text_that_is_no_unicode_is_sent_with_a_replacement() -> None:
    call = ToolCall(id="c", name="f", arguments='{"q": "\ud800"}')
    request = ModelRequest(messages=(Message(role="assistant", content="a\udfffb", tool_calls=(call,)),))
    [message] = encoded(request, ServerKind.GENERIC)["messages"]
    assert message["content"] == "a?b"


def test_tools_are_encoded_once_and_right() -> None:
    encoder = RequestEncoder()
    lists = [(ToolSpec(name=f"t{i}", description="d", parameters={"type": "object"}),) for i in range(100)]
    for _ in range(2):
        for i, tools in enumerate(lists):
            body = msgspec.json.decode(encoder.chat(ModelRequest(messages=ASK, tools=tools), "m", ServerKind.GENERIC))
            assert body["tools"][0]["function"]["name"] == f"t{i}"


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_any_json_is_a_reply_or_a_typed_error(data: dict[str, Any]) -> None:
    for shape in (data, {"choices": [data]}, {"choices": [{"message": data, "delta": data}]}, [data]):
        raw = msgspec.json.encode(shape)
        with contextlib.suppress(BadResponse):
            completions_of(decode_reply(raw), "m")
