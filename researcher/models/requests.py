"""The bodies of requests: what a server of this kind understands, and no more than was asked for."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from researcher.types import Message, ModelRequest, Sampling, ToolSpec

_encode = msgspec.json.Encoder().encode
_KEPT = 32  # encoded tool lists that are kept
MOST_ALTERNATIVES = 20  # of a token: the protocol's limit, and vLLM's unless it was started with another


class ServerKind(enum.StrEnum):
    """Whose server it is, as far as the protocol's dialect depends on it."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_CPP = "llama.cpp"
    OPENAI = "openai"
    GENERIC = "generic"

    @property
    def takes_reasoning(self) -> bool:
        """Earlier reasoning may be sent back; some hosted servers refuse the field."""
        return self in (ServerKind.VLLM, ServerKind.SGLANG, ServerKind.LLAMA_CPP)

    @property
    def keeps_stop(self) -> bool:
        """It can leave the stop string in the text."""
        return self in (ServerKind.VLLM, ServerKind.SGLANG)


class RequestEncoder:
    """Encodes requests; keeps the encoding of tool lists, which are the same call after call."""

    def __init__(self) -> None:
        self._tools: dict[int, tuple[Sequence[ToolSpec], msgspec.Raw]] = {}

    def chat(self, request: ModelRequest, model: str, kind: ServerKind, *, n: int = 1) -> bytes:
        """The body for /chat/completions. What the assistant has said already is its last message, to be continued."""
        body: dict[str, Any] = {"model": model, "messages": [_message(m, kind) for m in request.messages]}
        if request.prefix:
            body["messages"].append({"role": "assistant", "content": request.prefix})
            body["continue_final_message"] = True
            if kind is ServerKind.VLLM:
                body["add_generation_prompt"] = False
        if request.raw and kind is ServerKind.SGLANG:
            body["separate_reasoning"] = False
        if request.tools:
            body["tools"] = self._tool_list(request.tools)
        if n > 1:
            body["n"] = n
        _sampling(body, request.sampling, kind)
        top = request.sampling.top_logprobs
        if request.sampling.logprobs or top or (request.sampling.token_ids and kind is ServerKind.LLAMA_CPP):
            body["logprobs"] = True  # llama.cpp gives token ids only there
        if top:  # vLLM counts the sampled token as one of them, also where it is not among the most likely
            body["top_logprobs"] = top + 1 if kind is ServerKind.VLLM and top < MOST_ALTERNATIVES else top
        if request.stream:
            _streaming(body, kind)
        return encodable(body)

    def completion(
        self, prompt_ids: Sequence[int], model: str, sampling: Sampling, kind: ServerKind, *, stream: bool = False
    ) -> bytes:
        """The body for /completions with a prompt of token ids."""
        body: dict[str, Any] = {"model": model, "prompt": list(prompt_ids)}
        _sampling(body, sampling, kind)
        if sampling.logprobs or sampling.top_logprobs:
            body["logprobs"] = sampling.top_logprobs or (0 if kind is ServerKind.VLLM else 1)
        if stream:
            _streaming(body, kind)
        return _encode(body)

    def generation(self, prompt_ids: Sequence[int], model: str, sampling: Sampling, *, stream: bool = False) -> bytes:
        """The body for vLLM's /inference/v1/generate, whose replies say which version of the weights sampled what.

        The route knows no defaults of the model's `generation_config.json`: what is not asked for is neutral.
        """
        wanted: dict[str, Any] = {}
        _sampling(wanted, sampling, ServerKind.VLLM)
        wanted.pop("return_token_ids", None)
        if sampling.logprobs or sampling.top_logprobs:
            wanted["logprobs"] = sampling.top_logprobs
        body: dict[str, Any] = {"model": model, "token_ids": list(prompt_ids), "sampling_params": wanted}
        body["output_mode"] = "text"
        if stream:
            _streaming(body, ServerKind.VLLM)
        return _encode(body)

    def _tool_list(self, tools: Sequence[ToolSpec]) -> msgspec.Raw:
        kept = self._tools.get(id(tools))
        if kept is not None:
            return kept[1]
        if len(self._tools) >= _KEPT:
            del self._tools[next(iter(self._tools))]
        raw = msgspec.Raw(_encode([{"type": "function", "function": _tool(tool)} for tool in tools]))
        self._tools[id(tools)] = (tools, raw)  # the tools are held, so their id stays theirs
        return raw


def encodable(body: dict[str, Any]) -> bytes:
    """The body as JSON, with `?` for what is no Unicode."""
    try:
        return _encode(body)
    except UnicodeEncodeError:  # lone surrogates, from a tool's output or a model's
        return _encode(_unicode(body))


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _message(message: Message, kind: ServerKind) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning and kind.takes_reasoning:
        wire["reasoning_content"] = message.reasoning
        if kind is ServerKind.VLLM:
            wire["reasoning"] = message.reasoning  # the newer name of the same field
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _unicode(value: Any) -> Any:
    """The value with `?` for what cannot be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return [_unicode(item) for item in value] if isinstance(value, list | tuple) else value


def _arguments(text: str) -> str:
    """The arguments, or malformed ones as the value of one key: servers refuse a history that does not parse."""
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return text
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass
    return _encode({"malformed": _unicode(text)}).decode()


def _sampling(body: dict[str, Any], sampling: Sampling, kind: ServerKind) -> None:
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.max_tokens is not None:
        body["max_completion_tokens" if kind is ServerKind.OPENAI else "max_tokens"] = sampling.max_tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = sampling.stop
        if sampling.keep_stop and kind.keeps_stop:
            body["include_stop_str_in_output" if kind is ServerKind.VLLM else "no_stop_trim"] = True
    if sampling.token_ids and kind is ServerKind.VLLM:
        body["return_token_ids"] = True


def _streaming(body: dict[str, Any], kind: ServerKind) -> None:
    body["stream"] = True
    options: dict[str, bool] = {"include_usage": True}
    if kind is ServerKind.VLLM:
        options["continuous_usage_stats"] = True
    body["stream_options"] = options
