"""Replies from token ids, where a server takes them (vLLM, llama.cpp): the assistant's turn begun, or gone on with.

What is sent is the conversation as the server itself renders it, then the ids of what was said already: those that
were sampled, as they were sampled, and behind them the ids of words that were put into the assistant's mouth. So the
ids along a path of steps are the server's own, and text and ids of a step always say the same:

- a stop string that is kept is in both, together with what else the token says that completes it;
- llama.cpp, which takes it out of the text, gets it back into it from the ids;
- where llama.cpp leaves out ids (of tokens that end within a character), they are found again or none are claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from researcher.models.exchange import Exchange
from researcher.models.requests import RequestEncoder, ServerKind
from researcher.models.stream import StreamFold
from researcher.models.tokenizer import Ids, Tokenizer
from researcher.models.wire import completions_of, count, own_of
from researcher.protocols import Progress
from researcher.types import Completion, FinishReason, ModelRequest, Sampling


class Begun(NamedTuple):
    """The ids of a conversation and of a begun turn, which are those from `at` on."""

    ids: Ids
    at: int

    @property
    def before(self) -> int:
        """The id before the turn."""
        return self.ids[self.at - 1]

    @property
    def turn(self) -> Ids:
        """The ids of the turn."""
        return self.ids[self.at :]


class TokenRoute:
    """Completions of token ids on one server."""

    def __init__(
        self,
        exchange: Exchange,
        encoder: RequestEncoder,
        kind: ServerKind,
        model: str,
        context: int | None,
        *,
        versions: bool = False,
        plain: bool = False,
    ) -> None:
        """`versions`: by the route of vLLM (`--enable-scale-out`) that says which weights sampled which token.

        `plain`: what is not to stream does not. Else llama.cpp always streams: only then does it notice that its caller
        has gone.
        """
        self._exchange, self._encoder, self._kind = exchange, encoder, kind
        self._model, self._context, self._versions = model, context, versions
        self._streams = kind is ServerKind.LLAMA_CPP and not plain
        self._tokenizer = Tokenizer(exchange, encoder, kind, model)

    async def complete(self, request: ModelRequest, progress: Progress) -> Completion:
        """What comes next in the assistant's turn, as it was sampled, with all ids. Raises ModelError."""
        begun = await self.begun(request)
        done, ids = await self._sampled(begun, request, progress)
        stops = request.sampling.stop
        if request.sampling.keep_stop and stops and ids and done.finish is FinishReason.STOP:
            said = done.message.content
            text = await self._with_stop(said, ids, stops, begun.ids[-1])
            if progress.on_delta is not None and len(text) > len(said):
                progress.on_delta(text[len(said) :])
            done = msgspec.structs.replace(done, message=msgspec.structs.replace(done.message, content=text))
            if done.token_ids is not None and any(stop in text for stop in stops):
                self._tokenizer.learn(begun.turn + done.token_ids, begun.before, request.prefix + text)
        return msgspec.structs.replace(done, prompt_ids=begun.ids)

    async def begun(self, request: ModelRequest) -> Begun:
        """The ids to go on from: sampled ones as far as they say what `prefix` says, then those of its rest."""
        prompt = await self._tokenizer.prompt(request)
        at, given = len(prompt), request.prefix_ids
        if not request.prefix:
            return Begun(prompt, at)
        said = given[at:] if given[:at] == prompt else ()
        kept, text = await self._covered(said, request.prefix, prompt[-1])
        rest = request.prefix[len(text) :]
        return Begun(prompt + said[:kept] + (await self._tokenizer.ids(rest) if rest else ()), at)

    async def _covered(self, said: Ids, prefix: str, before: int) -> tuple[int, str]:
        """How many of the ids, from the first on, say a beginning of `prefix`, and which.

        Mostly all; all but the last where that one ended a turn which is now gone on with.
        """
        text = await self._tokenizer.text(said, before)
        if prefix.startswith(text):
            return len(said), text
        low, high, known = 0, len(said), ""  # `low` ids say a beginning, `high` ids do not
        middle = high - 1
        while high - low > 1:
            text = await self._tokenizer.text(said[:middle], before)
            if prefix.startswith(text):
                low, known = middle, text
            else:
                high = middle
            middle = (low + high) // 2
        return low, known

    async def _sampled(self, begun: Begun, request: ModelRequest, progress: Progress) -> tuple[Completion, Ids]:
        """The raw completion, and the ids that came with it, be they all or not."""
        top, stream = request.sampling.top_logprobs, request.stream or self._streams
        sampling = self._with_ids(request.sampling, len(begun.ids))
        path, encode = "/completions", self._encoder
        if self._versions:
            path = f"{self._exchange.root}/inference/v1/generate"
            body = encode.generation(begun.ids, self._model, sampling, stream=stream)
        else:
            body = encode.completion(begun.ids, self._model, sampling, self._kind, stream=stream)
        if stream:
            fold = StreamFold(progress, raw=True, top=top)
            # llama.cpp closes the connection after a stream, although it says that it keeps it.
            await self._exchange.stream(path, body, fold.add, last=self._kind is ServerKind.LLAMA_CPP)
            done, own = fold.completion(self._model), fold.own
        else:
            reply = await self._exchange.reply(path, body)
            done, own = completions_of(reply, self._model, raw=True, top=top)[0], own_of(reply)
            count(progress, done)
        if self._kind is ServerKind.LLAMA_CPP and done.token_ids is None and done.usage is not None:
            done = await self._found(done, own, done.usage.completion_tokens)
        return done, done.token_ids or tuple([token for token, _ in own])

    def _with_ids(self, sampling: Sampling, used: int) -> Sampling:
        """The sampling that gives ids: llama.cpp's come with logprobs. vLLM's default for max_tokens is 16 here."""
        if self._kind is ServerKind.LLAMA_CPP:
            return msgspec.structs.replace(sampling, logprobs=True)
        room = None if self._context is None else max(1, self._context - used)
        return msgspec.structs.replace(sampling, token_ids=True, max_tokens=sampling.max_tokens or room)

    async def _found(self, done: Completion, own: Sequence[tuple[int, str]], total: int) -> Completion:
        """The completion with the ids that were left out: those whose text came with the token after them.

        Their logprobs were left out too, so it has none.
        """
        whole: list[int] = []
        for token, text in own:
            parts = () if text.isascii() else await self._tokenizer.ids(text)
            whole += parts if parts and parts[-1] == token else (token,)
        return msgspec.structs.replace(done, token_ids=tuple(whole) if len(whole) == total else None, logprobs=None)

    async def _with_stop(self, content: str, ids: Ids, stops: Sequence[str], before: int) -> str:
        """The content with the stop string that ended it and what else its last token says; as it is after an EOS."""
        if len(stops) == 1 and len(stops[0]) == 1 and stops[0].isascii():  # it is in the last token, or nowhere
            last = await self._tokenizer.text(ids[-1:])
            at, bare = last.find(stops[0]), content.removesuffix(stops[0])
            if at < 0 or bare.endswith(last[:at]):
                return content if at < 0 else bare + last[at:]
        text = await self._tokenizer.text(ids, before)
        stopped = [at for stop in stops if (at := text.find(stop)) >= 0]
        if not stopped:  # the turn ended, or the last token is the end of a character whose beginning was left out
            wide = [stop for stop in stops if not stop.isascii()]
            return content + wide[0] if len(wide) == 1 and text.endswith("\ufffd") else content
        if self._kind is ServerKind.LLAMA_CPP:
            return content + text[min(stopped) :]
        at = text.find(content)
        return text if at < 0 else content + text[at + len(content) :]
