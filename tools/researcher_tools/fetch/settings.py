"""The table `[fetch]` of the settings: `fetcher_of({"allow": ["127.0.0.1:8080"]})`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from researcher.errors import UserError
from researcher_tools import tables
from researcher_tools.fetch.address import Allowed
from researcher_tools.fetch.client import Client
from researcher_tools.fetch.fetcher import Fetcher
from researcher_tools.fetch.politeness import INTERVAL, Politeness


class FetchSettings(BaseModel):
    """What a user may set: hosts of the own network, and how long to wait between two pages of one host."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    allow: list[str] = []
    """Pairs of host and port that may be fetched though they are not public."""
    interval: float = Field(default=INTERVAL, ge=0.0, le=60.0, strict=False)
    """Seconds between the beginnings of two requests to one host; hosts of `allow` are asked without a pause."""


def fetcher_of(options: Mapping[str, Any]) -> Fetcher:
    """A fetcher with these settings. Raises UserError where one is wrong, or the extra `web` is not installed."""
    if importlib.util.find_spec("protego") is None:
        raise UserError("The tool 'fetch' needs the extra: pip install 'researcher-orchestrator[web]'.")
    settings = tables.read(FetchSettings, "fetch", options)
    return Fetcher(Client(Allowed.parse(settings.allow)), politeness=Politeness(settings.interval))
