"""Asks a reward server for the values that it pools: `await RewardServer(url, model).rows({"input": ...})`.

vLLM's `/pooling` (`vllm serve MODEL`, for reward models such as Qwen2.5-Math-PRM): one row of values for each step tag
of a process reward model, one row in all for an outcome reward model.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import anyio

from researcher.errors import (
    BadResponse,
    ConnectFault,
    DeadlineExceeded,
    ModelError,
    RateLimited,
    RequestRejected,
    ServerFault,
)

if TYPE_CHECKING:
    import httpx

SECONDS = 120.0
BODY = 8 * 2**20
"""Bytes of a reply."""
ATTEMPTS = 3
PAUSE = 0.5
"""Seconds before another attempt; twice as many each time."""

Row = tuple[float, ...]


class RewardServer:
    """A server under `url` (its root, without `/v1`), whose replies have `seconds` in all."""

    def __init__(self, url: str, model: str, *, seconds: float = SECONDS, pause: float = PAUSE) -> None:
        self._url, self._model, self._seconds, self._pause = f"{url}/pooling", model, seconds, pause
        self._shown = url.rpartition("@")[2]  # whatever stands before is a key
        self._client: httpx.AsyncClient | None = None

    async def rows(self, prompt: dict[str, Any]) -> list[Row]:
        """The rows of values. Raises ModelError; what may pass is tried again."""
        body = {**({"model": self._model} if self._model else {}), **prompt}
        data = json.dumps(body).encode("ascii")
        for attempt in range(ATTEMPTS):
            try:
                with anyio.fail_after(self._seconds):
                    return rows_of(await self._post(data))
            except TimeoutError:
                raise DeadlineExceeded(f"no reply of the reward server within {self._seconds:g} s") from None
            except ModelError as error:
                if not error.retryable or attempt == ATTEMPTS - 1:
                    raise
            await anyio.sleep(self._pause * 2**attempt)
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _post(self, data: bytes) -> bytes:
        import httpx

        if self._client is None:
            # No proxy and no .netrc of the environment: the server is one that the user named.
            self._client = httpx.AsyncClient(timeout=None, trust_env=False)
        headers = {"content-type": "application/json"}
        try:
            async with self._client.stream("POST", self._url, content=data, headers=headers) as response:
                parts, size = [], 0
                async for part in response.aiter_bytes():
                    parts.append(part)
                    if (size := size + len(part)) > BODY:
                        raise BadResponse(f"the reward server's reply has more than {BODY} bytes")
                body = b"".join(parts)
                if response.status_code != 200:
                    raise _fault(response.status_code, body)
                return body
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise ConnectFault(f"the reward server at {self._shown} cannot be reached: {error}") from None
        except httpx.HTTPError as error:
            raise ServerFault(f"the reward server's reply broke off: {type(error).__name__}") from error


def _fault(status: int, body: bytes) -> ModelError:
    said = f"the reward server answered {status}: {body[:200].decode('utf-8', 'replace').strip()}"
    if status == 429:
        return RateLimited(said)
    return ServerFault(said, status) if status >= 500 else RequestRejected(said, status)


def rows_of(body: bytes) -> list[Row]:
    """The rows of a reply: of `[[.1, .9], ...]` as they are, of `[.9, ...]` one value each. Raises BadResponse."""
    try:
        data = json.loads(body)["data"][0]["data"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadResponse("the reward server's reply is not that of /pooling") from error
    if not isinstance(data, list) or not data:
        raise BadResponse("the reward server's reply holds no values")
    rows = [tuple(row) if isinstance(row, list) else (row,) for row in data]
    for row in rows:
        if not row or not all(type(value) in (int, float) and math.isfinite(value) for value in row):
            raise BadResponse("the reward server's reply holds something that is no number")
    return rows
