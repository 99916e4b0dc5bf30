"""What a server can do, asked once and kept as data."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec

from researcher.errors import ConnectFault, ModelError, RequestRejected, ServerFault
from researcher.models.exchange import Answered, Exchange
from researcher.models.faults import refusal
from researcher.models.llamacpp import writes_qwen
from researcher.models.requests import RequestEncoder, ServerKind
from researcher.models.steering import read_load
from researcher.types import Capabilities, Frozen, Message, ModelRequest, Sampling

SECONDS = 5.0  # for all questions together


class Probe(Frozen, frozen=True, kw_only=True):
    """A server's kind, the model's name there, what it can do, and how many calls it runs at once (None: unknown)."""

    kind: ServerKind
    model: str
    capabilities: Capabilities
    slots: int | None = None


class _Model(msgspec.Struct, frozen=True):
    id: str = ""
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: dict[str, Any] | None = None
    aliases: list[str] | None = None


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


async def probe_server(exchange: Exchange, model: str | None) -> Probe:
    """A Probe, within five seconds. Raises ModelError with one sentence: down, wrong key, unknown model."""
    try:
        async with asyncio.timeout(SECONDS):
            return await _probe(exchange, model)
    except TimeoutError:
        silent = ConnectFault(f"{exchange.base_url} did not answer within {SECONDS:g} s; is that a model server?")
    raise silent


async def _probe(exchange: Exchange, model: str | None) -> Probe:
    where = exchange.base_url
    listed = await _listing(exchange)
    found = _choose(listed, model, where)
    if urlsplit(where).hostname == "api.openai.com":
        return Probe(kind=ServerKind.OPENAI, model=found.id, capabilities=_CAN[ServerKind.OPENAI])
    metrics = await exchange.get(f"{exchange.root}/metrics")
    if found.owned_by == "vllm" or b"vllm:" in metrics.body:
        can = msgspec.structs.replace(
            _CAN[ServerKind.VLLM], context=found.max_model_len, metrics=read_load(metrics.body) is not None
        )
        return Probe(kind=ServerKind.VLLM, model=found.id, capabilities=can)
    if found.owned_by == "sglang":
        can = msgspec.structs.replace(_CAN[ServerKind.SGLANG], context=found.max_model_len)
        return Probe(kind=ServerKind.SGLANG, model=found.id, capabilities=can)
    props = await _quiet(exchange, f"{exchange.root}/props")
    if isinstance(props, dict) and "default_generation_settings" in props:
        settings = props["default_generation_settings"]
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        slots = props.get("total_slots")
        can = msgspec.structs.replace(
            _CAN[ServerKind.LLAMA_CPP],
            context=context if isinstance(context, int) else None,
            token_ids=writes_qwen(props.get("chat_template")),
        )
        return Probe(
            kind=ServerKind.LLAMA_CPP, model=found.id, capabilities=can, slots=slots if isinstance(slots, int) else None
        )
    can = Capabilities(tools=True, logprobs=await _gives_logprobs(exchange, found.id), context=found.max_model_len)
    return Probe(kind=ServerKind.GENERIC, model=found.id, capabilities=can)


_CAN = {
    ServerKind.OPENAI: Capabilities(tools=True, n=True, logprobs=True),
    ServerKind.VLLM: Capabilities(tools=True, reasoning=True, token_ids=True, logprobs=True, n=True, prefill=True),
    ServerKind.SGLANG: Capabilities(tools=True, reasoning=True, logprobs=True, n=True, prefill=True),
    ServerKind.LLAMA_CPP: Capabilities(tools=True, reasoning=True, logprobs=True, prefill=True),
}


async def _listing(exchange: Exchange) -> list[_Model] | None:
    """The models the server lists; None where it has no list."""
    answered = await exchange.get(f"{exchange.base_url}/models")
    if answered.status in (404, 405, 501):
        return None
    if answered.status != 200:
        raise refusal(answered.status, {}, answered.body, where=exchange.base_url, key=exchange.key)
    try:
        return msgspec.json.decode(answered.body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ServerFault(
            f"{exchange.base_url}/models is not a list of models; the URL should end in the API's root, often /v1", 200
        ) from None


def _choose(listed: list[_Model] | None, model: str | None, where: str) -> _Model:
    if listed is None:
        if model is None:
            raise RequestRejected(f"{where} lists no models; name one: {where}#NAME", 404)
        return _Model(id=model)
    if model is None:
        if len(listed) == 1:
            return listed[0]
        names = _names(listed) or "none"
        raise RequestRejected(f"{where} serves {len(listed)} models ({names}); name one: {where}#NAME", 404)
    for entry in listed:
        if entry.id == model or model in (entry.aliases or ()):
            return msgspec.structs.replace(entry, id=model)
    raise RequestRejected(f"{where} does not serve {model!r}; it serves: {_names(listed) or 'nothing'}", 404)


def _names(listed: list[_Model]) -> str:
    names = [entry.id for entry in listed]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


async def _gives_logprobs(exchange: Exchange, model: str) -> bool:
    """An unknown server gives logprobs when asked for one token; a refusal, or none in time, says that it does not."""
    ask = ModelRequest(messages=(Message(role="user", content="1"),), sampling=Sampling(max_tokens=1, logprobs=True))
    try:
        async with asyncio.timeout(SECONDS / 2):
            reply = await exchange.reply("/chat/completions", RequestEncoder().chat(ask, model, ServerKind.GENERIC))
    except (ModelError, TimeoutError):
        return False
    return any(choice.logprobs is not None and choice.logprobs.values() for choice in reply.choices or ())


async def _quiet(exchange: Exchange, url: str) -> Any:
    """The JSON at a URL, or None; only a question of what kind of server it is, so any refusal is an answer."""
    try:
        answered: Answered = await exchange.get(url)
        return msgspec.json.decode(answered.body) if answered.status == 200 else None
    except (ModelError, msgspec.DecodeError, UnicodeDecodeError):
        return None
