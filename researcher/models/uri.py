"""Model URIs: what they mean, which one is used when none was given, and how one is opened."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from researcher.errors import ModelError, UserError
from researcher.models.endpoint import CallLimits, Endpoint
from researcher.models.pool import Pool
from researcher.models.retry import RetryPolicy
from researcher.protocols import Model

LOCAL = "http://127.0.0.1:8000/v1"
OPENAI = "https://api.openai.com/v1"
KEY, OPENAI_KEY, CONFIGURED = "RESEARCHER_API_KEY", "OPENAI_API_KEY", "RESEARCHER_MODEL"
LOOK = 1.0  # seconds to look for a local server
FORMS = "embedded, gguf:PATH, vllm:NAME, http://host:8000/v1#name (several with commas), openai:name"
_SCHEMES = ("embedded", "gguf", "vllm", "http", "https", "openai")


class Served(NamedTuple):
    """A base URL and the model's name there; None: the only one it serves."""

    base_url: str
    name: str | None


@dataclass(frozen=True, slots=True)
class ModelURI:
    """A parsed URI: `target` is the path of `gguf` or the name of `vllm` and `openai`, `served` the URLs of `http`."""

    kind: Literal["embedded", "gguf", "vllm", "http", "openai"]
    target: str = ""
    served: tuple[Served, ...] = ()

    def __str__(self) -> str:
        if self.kind == "http":
            return ",".join(f"{base}#{name}" if name else base for base, name in self.served)
        return f"{self.kind}:{self.target}" if self.target else self.kind


class ModelChoice(NamedTuple):
    """The URI to use, and a sentence that says which it is and why."""

    uri: str
    reason: str


def parse_model_uri(text: str) -> ModelURI:
    """What a model URI names. Raises UserError with the closest form."""
    text = text.strip()
    scheme, _, rest = text.partition(":")
    match scheme.lower():
        case "embedded" if not rest:
            return ModelURI("embedded")
        case "gguf" | "vllm" | "openai" as kind if rest:
            return ModelURI(kind, rest)
        case "http" | "https":
            return ModelURI("http", served=_served(text))
        case "gguf" | "vllm" | "openai" as kind:
            raise UserError(f"the model URI {text!r} lacks its {'path' if kind == 'gguf' else 'name'}; forms: {FORMS}")
    raise UserError(f"unknown model URI {text!r}; {_hint(text, scheme)}forms: {FORMS}")


def _served(text: str) -> tuple[Served, ...]:
    served = [_one(part.strip()) for part in text.split(",") if part.strip()]
    names = {name for _, name in served if name}
    only = names.pop() if len(names) == 1 else None  # one name is meant for all
    return tuple(Served(base, name or only) for base, name in served)


def _one(text: str) -> Served:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"the model URL {text!r} is not valid; write it as http://host:8000/v1#name") from None
    if parts.username or parts.password:
        raise UserError(f"put the key of {host} in {KEY}, not in its URL")
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"the model URL {text!r} has no host; write it as http://host:8000/v1#name")
    if parts.query:
        raise UserError(
            f"the model URL {text!r} has a query, which cannot be used; write it as http://host:8000/v1#name"
        )
    path = parts.path.rstrip("/") or "/v1"
    return Served(f"{parts.scheme}://{parts.netloc}{path}", parts.fragment or None)


def _hint(text: str, scheme: str) -> str:
    if text.endswith(".gguf"):
        return f"did you mean gguf:{text}? "
    if text.startswith(("gpt-", "o1", "o3", "o4")):
        return f"did you mean openai:{text}? "
    close = difflib.get_close_matches(scheme.lower(), _SCHEMES, n=1)
    if close:
        return f"did you mean {close[0]}{text[len(scheme) :]}? "
    if ":" in text and text.partition(":")[2][:1].isdigit():
        return f"did you mean http://{text}? "
    if "/" in text and "://" not in text and not text.startswith((".", "/")):
        return f"did you mean vllm:{text}? "
    return ""


async def choose_model(configured: str | None, *, env: Mapping[str, str] | None = None) -> ModelChoice:
    """The given URI, else the one in RESEARCHER_MODEL, else a server found on this machine, else the embedded model."""
    env = os.environ if env is None else env
    if configured:
        return ModelChoice(str(parse_model_uri(configured)), f"model {configured}, as asked")
    if env.get(CONFIGURED):
        return ModelChoice(str(parse_model_uri(env[CONFIGURED])), f"model {env[CONFIGURED]}, from {CONFIGURED}")
    found = Endpoint(LOCAL, api_key=env.get(KEY) or None)
    try:
        async with asyncio.timeout(LOOK):
            await found.probe()
        return ModelChoice(found.uri, f"model {found.model} of the server found at {LOCAL}")
    except (ModelError, TimeoutError) as error:
        why = "none answers" if not str(error) or "no answer" in str(error) else f"it cannot be used: {error}"
        return ModelChoice("embedded", f"the embedded model, as no model was named and of a server at {LOCAL} {why}")
    finally:
        await found.aclose()


@asynccontextmanager
async def open_model(
    uri: str, *, env: Mapping[str, str] | None = None, limits: CallLimits | None = None
) -> AsyncIterator[Model]:
    """The model of a URI, closed at the end, with the server where it is ours. Raises UserError or ModelError."""
    env = os.environ if env is None else env
    parsed = parse_model_uri(uri)
    match parsed.kind:
        case "embedded" | "gguf":
            from researcher.models.embedded import open_embedded

            async with open_embedded(_gguf(parsed.target)) as model:
                yield model
        case "vllm":
            from researcher.models.vllm import open_vllm

            async with open_vllm(parsed.target) as model:
                yield model
        case "openai" | "http":
            remote = _remote(parsed, env, limits)
            try:
                yield remote
            finally:
                await remote.aclose()


def _gguf(target: str) -> Path | None:
    if not target:
        return None
    path = Path(target).expanduser()
    if not path.is_file():
        raise UserError(f"there is no model file {path}; gguf: takes the path of a GGUF file")
    return path


def _remote(parsed: ModelURI, env: Mapping[str, str], limits: CallLimits | None) -> Endpoint | Pool:
    if parsed.kind == "openai":
        key = env.get(OPENAI_KEY)
        if not key:
            raise UserError(f"openai:{parsed.target} needs an API key; set {OPENAI_KEY}")
        return Endpoint(OPENAI, parsed.target, api_key=key, limits=limits)
    key = env.get(KEY) or None
    if len(parsed.served) == 1:
        [(base, name)] = parsed.served
        return Endpoint(base, name, api_key=key, limits=limits)
    # A replica that fails is left quickly: the pool has others.
    limits = limits or CallLimits(retry=RetryPolicy(faults=2))
    return Pool([Endpoint(base, name, api_key=key, limits=limits) for base, name in parsed.served])
