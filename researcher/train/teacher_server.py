"""A vLLM server as a teacher: `prompt_logprobs` of `/v1/completions`, token ids in, nothing sampled.

The server says log q at temperature 1 of its K most likely tokens at each place, and of the token itself where that is
none of them, which is left out. Without `--max-logprobs` it tells at most 20.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import numpy as np
from tokenizers import Tokenizer

from researcher.errors import BadResponse, ModelError, UserError
from researcher.models.exchange import Exchange
from researcher.models.transport import AiohttpTransport
from researcher.models.uri import parse_model_uri
from researcher.train.sample import Sample
from researcher.train.teacher import Target

SECONDS = 300.0
"""For one sample."""
WANTED = "the teacher must be a vLLM server"
ATTEMPTS = 3
PAUSE = 0.5
"""Seconds before another attempt; twice as many each time."""


class ServerTeacher:
    """Asks the server of an open exchange for the K most likely tokens of samples, several at once."""

    def __init__(
        self, exchange: Exchange, model: str, k: int, vocabulary: int, *, at_once: int = 8, pause: float = PAUSE
    ) -> None:
        self._exchange, self._model, self._k, self._vocabulary = exchange, model, k, vocabulary
        self._places, self._pause = at_once, pause

    async def targets(self, samples: Sequence[Sample]) -> list[Target]:
        """One for each sample. Raises ModelError."""
        found: list[Target | None] = [None] * len(samples)
        places = anyio.CapacityLimiter(self._places)

        async def one(index: int) -> None:
            async with places:
                found[index] = self._target(samples[index], await self._ask(samples[index].ids))

        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(samples)):
                    group.create_task(one(index))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [target for target in found if target is not None]

    async def check(self, tokenizer: Tokenizer, text: str) -> None:
        """Raises UserError where the server makes other tokens of a text than this tokenizer, ModelError."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        told = await self._post(f"{self._exchange.root}/tokenize", body)
        if told.get("tokens") != tokenizer.encode(text, add_special_tokens=False).ids:
            raise UserError(
                f"the teacher {self._exchange.base_url} has another tokenizer, so its word on the student's tokens "
                "means nothing."
            )

    async def _ask(self, ids: Sequence[int]) -> list[Any]:
        """What the server says of each token but the first, by token id."""
        body = {"model": self._model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0}
        try:
            reply = await self._post(f"{self._exchange.base_url}/completions", {**body, "prompt_logprobs": self._k})
            told: list[Any] = reply["choices"][0]["prompt_logprobs"]
            count = len(told)
        except (LookupError, TypeError):
            raise BadResponse(f"{self._exchange.base_url} gives no prompt_logprobs; {WANTED}") from None
        if count != len(ids):
            raise BadResponse(f"the teacher told of {count} tokens, and was asked about {len(ids)}")
        return told

    async def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply's object; what may pass, such as a connection that the server closed meanwhile, is tried again."""
        data = msgspec.json.encode(body)
        for attempt in range(ATTEMPTS):
            try:
                with anyio.fail_after(SECONDS):
                    return msgspec.json.decode(await self._exchange.ask(url, data), type=dict[str, Any])
            except msgspec.DecodeError:
                raise BadResponse(f"{url} does not answer with an object; {WANTED}") from None
            except ModelError as error:
                if not error.retryable or attempt == ATTEMPTS - 1:
                    raise
            except TimeoutError:
                raise BadResponse(f"{url} did not answer within {SECONDS:g} s") from None
            await anyio.sleep(self._pause * 2**attempt)
        raise AssertionError("unreachable")

    def _target(self, sample: Sample, told: Sequence[Any]) -> Target:
        wanted = [place for place, said in enumerate(sample.mask) if said and place]
        ids = np.full((len(wanted), self._k), -1, np.int32)
        logprobs = np.full((len(wanted), self._k), -np.inf, np.float32)
        for row, place in enumerate(wanted):
            for column, (token, logprob) in enumerate(most_likely(told[place] or {}, self._k, self._vocabulary)):
                ids[row, column], logprobs[row, column] = token, logprob
            if ids[row, 0] < 0:
                raise BadResponse(f"the teacher told nothing of the token at {place}")
        return Target(ids, logprobs)


def most_likely(told: dict[str, Any], k: int, vocabulary: int) -> list[tuple[int, float]]:
    """Of one place's `prompt_logprobs` the k best that the student's vocabulary has, the most likely first."""
    pairs = [(int(token), float(said["logprob"])) for token, said in told.items() if said["rank"] <= k]
    known = [(token, logprob) for token, logprob in pairs if token < vocabulary and math.isfinite(logprob)]
    return sorted(known, key=lambda pair: (-pair[1], pair[0]))


@asynccontextmanager
async def open_server(uri: str, k: int, tokenizer: Tokenizer, *, key: str | None) -> AsyncIterator[ServerTeacher]:
    """The teacher at `http://host:8000/v1#name`. Raises UserError, ModelError."""
    served = parse_model_uri(uri).served
    if len(served) != 1 or served[0].name is None:
        raise UserError(f"the teacher {uri} must be one server with the model's name, like http://host:8000/v1#name.")
    exchange = Exchange(served[0].base_url, AiohttpTransport(), api_key=key, idle=SECONDS)
    try:
        yield ServerTeacher(exchange, served[0].name, k, tokenizer.get_vocab_size(with_added_tokens=True))
    finally:
        with anyio.CancelScope(shield=True):
            await exchange.aclose()
