"""The options of a backend, checked where they come in: `read(BraveOptions, opening)`; what it is opened with."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
)

from researcher.errors import UserError
from researcher_tools import tables
from researcher_tools.documents import Documents
from researcher_tools.lookup import Lookup
from researcher_tools.web_search.http import AGENT
from researcher_tools.web_search.limits import Limits

_DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Opening:
    """What a backend's factory is given: its name, its table of the settings, the environment, the run's documents."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    documents: Documents | Lookup | None = None


class NoOptions(BaseModel):
    """The table of a backend that takes none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpOptions(BaseModel):
    """What every service that is asked over HTTP takes; None is the service's own default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: str | None = None
    agent: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,200}$")] = AGENT
    """The User-Agent; Wikimedia asks for an address where its sender can be found."""
    seconds: PositiveFloat = _DEFAULT.seconds
    tries: PositiveInt = Field(default=_DEFAULT.tries, le=10)
    interval: NonNegativeFloat = _DEFAULT.interval
    in_flight: PositiveInt = _DEFAULT.in_flight
    backoff: NonNegativeFloat = _DEFAULT.backoff
    body: PositiveInt = _DEFAULT.body

    def limits(self) -> Limits:
        """The part that bounds a look-up."""
        return Limits(self.seconds, self.body, self.tries, self.interval, self.in_flight, self.backoff)

    def signature(self) -> str:
        """The part that decides what is found: all but the bounds, as one string."""
        return self.model_dump_json(
            exclude={"url", "agent", "seconds", "tries", "interval", "in_flight", "backoff", "body"}
        )


T = TypeVar("T", bound=BaseModel)


def read(kind: type[T], opening: Opening) -> T:
    """The options of a backend's table. Raises UserError that names the table and the option."""
    return tables.read(kind, f"search.{opening.name}", opening.options)


def address(given: str, where: str, *, secret: bool) -> str:
    """The address of a service, without a slash at its end. Raises UserError where nothing can be sent there.

    `secret`: a key goes with each request, which plain HTTP would show to everyone between here and there.
    """
    try:
        url = httpx.URL(given.strip())
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{where} must be an address that begins with https:// or http://.")
    if url.userinfo:
        raise UserError(f"{where} holds a user or a password; an address is shown in messages, so it may hold none.")
    if secret and url.scheme == "http" and not _loopback(url.host):
        raise UserError(f"{where} is plain http, which would show the key; use https.")
    return str(url).rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
