"""What a server's refusal means: a typed error with the server's own words, capped and without the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from researcher.errors import ContextTooLong, ModelError, RateLimited, RequestRejected, ServerFault
from researcher.models.retry import retry_after

QUOTE = 300  # characters of a server's own words in our errors
_CONTEXT = re.compile(
    r"context[_ ]length|maximum context|exceed\w* (the |available )*context"
    r"|context[_ ](window|size)|prompt (is )?too long",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"insufficient_quota|billing", re.IGNORECASE)


class ErrorText(msgspec.Struct):
    """What an error body says, whatever its shape."""

    message: str
    code: str
    status: int | None


def read_error(body: bytes) -> ErrorText | None:
    """The error in a body of JSON, or None where it has none."""
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return error_text(data)


def error_text(data: Any) -> ErrorText | None:
    """The error in a decoded body, in any of the shapes servers use: `error`, `object: error`, `detail`."""
    if not isinstance(data, dict):
        return None
    inner = data.get("error") or (data if data.get("object") == "error" else None) or data.get("detail")
    if not inner:
        return None
    if not isinstance(inner, dict):
        return ErrorText(str(inner), "", None)
    code = inner.get("code")
    words = " ".join(str(w) for w in (code, inner.get("type")) if w)
    status = code if isinstance(code, int) else int(code) if isinstance(code, str) and code.isdigit() else None
    return ErrorText(str(inner.get("message") or words or inner), words, status)


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, where: str, key: str | None) -> ModelError:
    """The error for a status that is not 200."""
    found = read_error(body)
    text = found or ErrorText(body.decode("utf-8", "replace"), "", None)
    if 300 <= status < 400:
        text = ErrorText("it redirects; use the final address as the model's URL", "", None)
    return typed(status, text, where=where, key=key, wait=retry_after(headers))


def refusal_in_body(found: ErrorText, *, where: str, key: str | None) -> ModelError:
    """The error that came with status 200, in a body or in the middle of a stream: typed by its code."""
    status = found.status or next((s for words, s in _CODES if words in found.code.lower()), 500)
    return typed(status, found, where=where, key=key)


_CODES = (
    ("rate_limit", 429), ("insufficient_quota", 429), ("overloaded", 503), ("server_error", 500),
    ("internal", 500), ("invalid_api_key", 401), ("authentication", 401), ("permission", 403),
    ("not_found", 404), ("notfound", 404), ("context_length", 400), ("exceed_context", 400),
    ("invalid_request", 400), ("badrequest", 400), ("bad_request", 400),
)  # fmt: skip


def typed(status: int, found: ErrorText, *, where: str, key: str | None, wait: float | None = None) -> ModelError:
    """The error class that says what a caller can do."""
    words = quote(found.message, key)
    says = f"{where} answered {status}: {words}" if words else f"{where} answered {status}"
    if status < 500 and (_CONTEXT.search(found.code) or _CONTEXT.search(found.message)):
        return ContextTooLong(f"the conversation does not fit the model's context ({says})", status, "context_length")
    if status == 429 and _QUOTA.search(found.code):
        return RequestRejected(says, status, found.code)
    if status == 429:
        return RateLimited(says, wait)
    if status in (408, 409, 425) or status >= 500:
        return ServerFault(says, status, wait)
    if status in (401, 403):
        return RequestRejected(f"{says}; check the API key", status, found.code or None)
    return RequestRejected(says, status, found.code or None)


def quote(text: str, key: str | None) -> str:
    """A server's words on one line, without the key, at most 300 characters."""
    if key:
        text = text.replace(key, "[key]")
    line = " ".join(text.split())
    return line if len(line) <= QUOTE else line[: QUOTE - 1] + "…"
