"""A server's own tokenizer and chat template, asked over HTTP: vLLM's and llama.cpp's. What was asked is kept."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

import msgspec

from researcher.errors import ServerFault
from researcher.models.exchange import Exchange
from researcher.models.requests import RequestEncoder, ServerKind, encodable
from researcher.types import ModelRequest, Sampling

Ids = tuple[int, ...]
S = TypeVar("S", bound=msgspec.Struct)
V = TypeVar("V")


class _Rendered(msgspec.Struct, frozen=True):
    """llama.cpp's rendering of a conversation; vLLM's text of tokens."""

    prompt: str


class _Tokens(msgspec.Struct, frozen=True):
    tokens: list[int]


class _Content(msgspec.Struct, frozen=True):
    """llama.cpp's text of tokens."""

    content: str


class Tokenizer:
    """Ids of a conversation, ids of a text, text of ids. Each raises ModelError."""

    def __init__(self, exchange: Exchange, encoder: RequestEncoder, kind: ServerKind, model: str) -> None:
        self._exchange, self._encoder, self._kind, self._model = exchange, encoder, kind, model
        self._prompts: _Kept[Ids] = _Kept(256)
        self._ids: _Kept[Ids] = _Kept(1024)
        self._texts: _Kept[str] = _Kept(4096)

    async def prompt(self, request: ModelRequest) -> Ids:
        """The conversation up to the assistant's reply, rendered with the model's own template."""
        plain = msgspec.structs.replace(request, stream=False, sampling=Sampling(), prefix="", raw=False)
        body = self._encoder.chat(plain, self._model, self._kind)
        key = _digest(body)
        if (known := self._prompts.get(key)) is not None:
            return known
        if self._kind is ServerKind.VLLM:
            return self._prompts.keep(key, tuple((await self._ask("tokenize", body, _Tokens)).tokens))
        text = (await self._ask("apply-template", body, _Rendered)).prompt
        wanted = {"content": text, "add_special": True, "parse_special": True}
        return self._prompts.keep(key, tuple((await self._ask("tokenize", encodable(wanted), _Tokens)).tokens))

    async def ids(self, text: str) -> Ids:
        """The ids of a text in the middle of a turn."""
        if self._kind is ServerKind.VLLM:
            body = encodable({"model": self._model, "prompt": text, "add_special_tokens": False})
        else:
            body = encodable({"content": text, "add_special": False, "parse_special": True})
        key = _digest(body)
        known = self._ids.get(key)
        return (
            self._ids.keep(key, tuple((await self._ask("tokenize", body, _Tokens)).tokens)) if known is None else known
        )

    async def text(self, ids: Sequence[int], after: int | None = None) -> str:
        """The text of these ids, with special tokens; `after`: the id before them, which may decide on a space."""
        key = _key(ids, after)
        if (known := self._texts.get(key)) is not None:
            return known
        if not ids:
            return ""
        if after is None:
            return self._texts.keep(key, await self._detokenized(ids))
        lead = await self.text((after,))
        whole = await self._detokenized((after, *ids))
        return self._texts.keep(key, whole[len(lead) :] if whole.startswith(lead) else await self.text(ids))

    def learn(self, ids: Sequence[int], after: int, text: str) -> None:
        """Remember the text of ids, as `text` would find it."""
        self._texts.keep(_key(ids, after), text)

    async def _detokenized(self, ids: Sequence[int]) -> str:
        if self._kind is ServerKind.VLLM:
            body = encodable({"model": self._model, "tokens": ids})
            return (await self._ask("detokenize", body, _Rendered)).prompt
        return (await self._ask("detokenize", encodable({"tokens": ids}), _Content)).content

    async def _ask(self, route: str, body: bytes, kind: type[S]) -> S:
        reply = await self._exchange.ask(f"{self._exchange.root}/{route}", body)
        try:
            return msgspec.json.decode(reply, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            where, who = self._exchange.root, self._kind.value
        raise ServerFault(f"{where}/{route} did not answer as {who} does; is it a newer version?", 200)


class _Kept(Generic[V]):
    """The values that were used last, by digest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[bytes, V] = {}

    def get(self, key: bytes) -> V | None:
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value  # now the youngest
        return value

    def keep(self, key: bytes, value: V) -> V:
        self._values[key] = value
        if len(self._values) > self._most:
            del self._values[next(iter(self._values))]
        return value


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _key(ids: Sequence[int], after: int | None) -> bytes:
    return _digest(array("q", [-1 if after is None else after, *ids]).tobytes())
