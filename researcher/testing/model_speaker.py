"""A script for the test server: a model that goes on with a text, wherever one stands in it, as real servers do.

    speaker = Speaker("one\\ntwo\\n", kind="vllm", words=["one", "two"])
    with ModelServer(speaker, pages=speaker.pages) as server:
        endpoint = Endpoint(server.url)

It renders and tokenises conversations, takes prompts of ids and begun turns, ends at stop strings, and gives ids,
logprobs and alternatives in the way of vLLM, SGLang or llama.cpp, with their peculiarities: llama.cpp takes the stop
string out of the text and gives no id for a token that ends within a character; vLLM cuts the text behind the stop
string, whatever else the token says, and its alternatives hold the sampled token on top of the most likely ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from researcher.testing.model_replies import HANG, STREAM_HEAD, Raw, Wire, chunked, event
from researcher.testing.model_vocabulary import ASSISTANT, END, Vocabulary

if TYPE_CHECKING:
    from researcher.testing.model_server import Received

Kind = Literal["vllm", "sglang", "llama.cpp"]
SAMPLED, OTHER, UNLIKELY = math.log(0.6), math.log(0.2), math.log(0.001)
"""Logprobs of what is sampled, and of the most likely of the others; each of these is half as likely as the last."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A sampled token: what the server shows for it. `reported`: its id and logprobs are given."""

    id: int
    text: str
    reported: bool = True


@dataclass(slots=True)
class Speaker:
    """Says `text`: what follows the begun turn in it, or what `goes_on` says; then the end of the turn.

    `only_chat`: nothing but the chat route is there, as behind some gateways. `unlikely`: what is sampled is not among
    the most likely. `stall_after` that many tokens a stream stays silent for ever.
    """

    text: str = ""
    kind: Kind = "vllm"
    words: Sequence[str] = ()
    goes_on: Callable[[str], str] | None = None
    only_chat: bool = False
    unlikely: bool = False
    stall_after: int | None = None
    vocabulary: Vocabulary = field(init=False)

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary(self.words)

    @property
    def pages(self) -> dict[str, Raw]:
        """By which a client knows the kind of server."""
        owner = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp"}[self.kind]
        listed = {"id": "test", "owned_by": owner, "max_model_len": 4096}
        pages = {"/v1/models": Raw(body=msgspec.json.encode({"data": [listed]}))}
        if self.kind == "llama.cpp":
            settings = {"default_generation_settings": {"n_ctx": 4096}, "chat_template": "<|im_start|> <tool_call>"}
            pages["/props"] = Raw(body=msgspec.json.encode(settings))
        return pages

    def __call__(self, request: Received) -> Raw | Wire:
        """What the server does with this request."""
        body, vocabulary = request.body, self.vocabulary
        if request.path == "/v1/chat/completions":
            return self._reply(request, *self._chat(body))
        if self.kind == "sglang" or self.only_chat:
            return Raw(404, body=b'{"detail": "Not Found"}')
        if request.path == "/v1/completions":
            return self._reply(request, body["prompt"], [])
        if request.path == "/apply-template":
            answer: dict[str, Any] = {"prompt": vocabulary.text(vocabulary.conversation(body["messages"]))}
        elif request.path == "/tokenize":
            whole = "messages" in body
            text = body.get("prompt", body.get("content", ""))
            answer = {"tokens": vocabulary.conversation(body["messages"]) if whole else vocabulary.ids(text)}
        else:
            answer = {"prompt" if self.kind == "vllm" else "content": vocabulary.text(body["tokens"])}
        return Raw(body=msgspec.json.encode(answer))

    def _chat(self, body: dict[str, Any]) -> tuple[list[int], list[int]]:
        """The prompt's ids and those of the begun turn."""
        messages = list(body["messages"])
        begun = messages.pop()["content"] if body.get("continue_final_message") else ""
        return self.vocabulary.conversation(messages), self.vocabulary.ids(begun)

    def _reply(self, request: Received, prompt: list[int], begun: list[int]) -> Raw | Wire:
        ids = [*prompt, *begun]
        tokens, finish = self._sampled(ids, request.body)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(tokens), "total_tokens": len(ids) + len(tokens)}
        reply: dict[str, Any] = {"model": "test", "usage": usage}
        chat = request.path == "/v1/chat/completions"
        given = {"prompt_token_ids": ids} if request.body.get("return_token_ids") and self.kind == "vllm" else {}
        if not request.body.get("stream"):
            choice = self._choice(tokens, request.body, chat, "message") | {"finish_reason": finish}
            return Raw(body=msgspec.json.encode(reply | given | {"choices": [choice]}))
        chunks = [self._choice([token], request.body, chat, "delta") for token in tokens if token.reported]
        chunks.append(self._choice([], request.body, chat, "delta") | {"finish_reason": finish})
        steps: list[dict[str, Any]] = [{"choices": [choice]} for choice in chunks]
        sent = [chunked(event(step)) for step in (steps[0] | given, *steps[1:], reply)]
        if self.stall_after is not None and self.stall_after < len(chunks):
            return Wire([STREAM_HEAD, *sent[: self.stall_after], HANG])
        return Wire([STREAM_HEAD, *sent, chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n"])

    def _sampled(self, ids: list[int], body: dict[str, Any]) -> tuple[list[_Token], str]:
        """The tokens up to a stop string, the end of the turn or the last one allowed, and why it ends."""
        at = len(ids) - ids[::-1].index(ASSISTANT)
        rest = self._rest(self.vocabulary.text(ids[at:]))
        new: list[int] = []
        shown = ""
        for token in [*self.vocabulary.ids(rest), END]:
            new.append(token)
            shown = self.vocabulary.text(new if token != END else new[:-1])
            stops = [(shown.find(stop), stop) for stop in body.get("stop") or () if stop in shown]
            if stops:
                cut, stop = min(stops)
                kept = body.get("include_stop_str_in_output") or body.get("no_stop_trim")
                return list(self._shown(new, shown[: cut + len(stop) if kept else cut])), "stop"
            if token == END:
                return list(self._shown(new, shown)), "stop"
            if len(new) >= body.get("max_tokens", 16):
                break
        return list(self._shown(new, shown)), "length"

    def _rest(self, turn: str) -> str:
        if self.goes_on is not None:
            return self.goes_on(turn)
        return self.text[len(turn) :] if self.text.startswith(turn) else ""

    def _shown(self, ids: list[int], text: str) -> Iterator[_Token]:
        """The tokens with the text that is shown with each; together it is `text`."""
        said = 0
        for n, token in enumerate(ids, 1):
            data = self.vocabulary.bytes_of(ids[:n])
            whole = data.decode("utf-8", "ignore")
            broken = whole.encode() != data
            end = said if broken else min(len(whole), len(text))
            yield _Token(token, text[said:end], reported=not (broken and self.kind == "llama.cpp"))
            said = max(said, end)

    def _choice(self, tokens: list[_Token], body: dict[str, Any], chat: bool, part: str) -> dict[str, Any]:
        text = "".join(token.text for token in tokens)
        choice: dict[str, Any] = {"index": 0, **({part: {"content": text}} if chat else {"text": text})}
        if body.get("return_token_ids") and self.kind == "vllm":
            choice["token_ids"] = [token.id for token in tokens]
        asked = body.get("logprobs")
        if asked is None or asked is False or not tokens:  # vLLM takes 0 for the sampled token alone
            return choice
        reported = [token for token in tokens if token.reported]
        if chat or self.kind == "llama.cpp":
            top = body.get("top_logprobs", 0) if chat else int(asked)
            choice["logprobs"] = {"content": [self._entry(token, top) for token in reported]}
        else:
            choice["logprobs"] = {
                "token_logprobs": [self._logprob for _ in reported],
                "top_logprobs": [dict(self._candidates(token, int(asked) + 1)) for token in reported],
            }
        return choice

    @property
    def _logprob(self) -> float:
        return UNLIKELY if self.unlikely else SAMPLED

    def _entry(self, token: _Token, top: int) -> dict[str, Any]:
        listed = [{"token": text, "logprob": value} for text, value in self._candidates(token, top)]
        entry = {"token": token.text, "logprob": self._logprob, "top_logprobs": listed}
        return entry | {"id": token.id} if self.kind == "llama.cpp" else entry

    def _candidates(self, token: _Token, top: int) -> list[tuple[str, float]]:
        """The alternatives a server lists; vLLM begins with the sampled one, however likely."""
        others = [(f"other {i}", OTHER - i * math.log(2)) for i in range(top)]
        if self.unlikely and self.kind == "llama.cpp":
            return others
        return [(self.vocabulary.text([token.id]), self._logprob), *others][:top]
