"""Opens search backends by name: `open_backends(["arxiv", "brave"], settings["search"])`.

An entry point of the group `researcher.search` is a factory, `Callable[[Opening], SearchBackend]`.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from researcher.errors import UserError
from researcher.protocols import SearchBackend
from researcher_tools import discovery, tables
from researcher_tools.documents import Documents
from researcher_tools.lookup import Lookup
from researcher_tools.web_search import brave, exa, searxng, tavily
from researcher_tools.web_search.cache import TTL, Cache
from researcher_tools.web_search.federated import Federated
from researcher_tools.web_search.options import Opening

GROUP = "researcher.search"
_HERE = "researcher_tools.web_search"
BUILT_IN = {
    "arxiv": f"{_HERE}.arxiv:open_arxiv",
    "brave": f"{_HERE}.brave:open_brave",
    "ddgs": f"{_HERE}.ddgs:open_ddgs",
    "documents": f"{_HERE}.documents:open_documents_backend",
    "exa": f"{_HERE}.exa:open_exa",
    "searxng": f"{_HERE}.searxng:open_searxng",
    "tavily": f"{_HERE}.tavily:open_tavily",
    "wikipedia": f"{_HERE}.wikipedia:open_wikipedia",
}

Factory = Callable[[Opening], SearchBackend]


class SearchOptions(BaseModel):
    """What `[search]` says of all backends; the tables in it are the backends' own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    backends: list[str] | None = None
    results: PositiveInt = 8
    """Results of a search of the tool `web_search`."""
    ttl: PositiveFloat = TTL
    """Seconds for which a result is given again."""
    cache: str | None = None
    """A file; None: the run's home, or memory where it has none."""


def backend_names() -> list[str]:
    """The names of all backends that can be opened, sorted."""
    return discovery.names(GROUP, BUILT_IN)


def open_backends(
    names: Iterable[str],
    options: Mapping[str, Any] | None = None,
    documents: Documents | Lookup | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> list[SearchBackend]:
    """These backends, each with its table of `options`. Raises UserError for a key, an address or a package that is
    missing, before anything is sent."""
    env = os.environ if env is None else env
    opened: list[SearchBackend] = []
    for name in dict.fromkeys(names):
        factory = cast(Factory, discovery.load(GROUP, name, what="search backend", built_in=BUILT_IN))
        table = (options or {}).get(name, {})
        if not isinstance(table, Mapping):
            raise UserError(f"[search] {name} must be a table: [search.{name}].")
        opened.append(factory(Opening(name, table, env, documents)))
    return opened


def federated(
    backends: Iterable[str | SearchBackend],
    options: Mapping[str, Any] | None = None,
    *,
    documents: Documents | Lookup | None = None,
    cache: Cache | None = None,
    env: Mapping[str, str] | None = None,
) -> Federated:
    """Backends, by name or ready made, as one search; `async with` closes them. Raises UserError as `open_backends`."""
    ready: list[SearchBackend] = []
    for each in backends:
        ready += open_backends([each], options, documents, env=env) if isinstance(each, str) else [each]
    return Federated(ready, cache=cache)


def settings_of(options: Mapping[str, Any]) -> SearchOptions:
    """What `[search]` says of all backends. Raises UserError for a name that is neither an option nor a backend."""
    own = {name: value for name, value in options.items() if not isinstance(value, Mapping)}
    known = [*SearchOptions.model_fields, *backend_names()]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}."
            raise UserError(f"[search] has no option {name!r}; {hint}")
    return tables.read(SearchOptions, "search", own)


def wants_documents(options: Mapping[str, Any]) -> bool:
    """Whether the run's documents are among the backends, so that they must be opened."""
    return "documents" in (settings_of(options).backends or ())


def configured(
    options: Mapping[str, Any],
    *,
    home: Path | None = None,
    documents: Documents | Lookup | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[Federated, SearchOptions]:
    """The search that the table `[search]` describes, with its cache, and the table. Raises UserError."""
    env = os.environ if env is None else env
    settings = settings_of(options)
    names = chosen(env) if settings.backends is None else settings.backends
    if not names:
        raise UserError("The tool web_search has no backend; name some in [search] backends.")
    opened = open_backends(names, options, documents, env=env)
    file = Path(settings.cache).expanduser() if settings.cache else home and home / "search-cache.sqlite"
    return Federated(opened, cache=Cache(file, ttl=settings.ttl)), settings


def chosen(env: Mapping[str, str]) -> list[str]:
    """The one backend that the environment is ready for, where the settings name none: no two services are told what
    is searched for without having been named. Raises UserError where it is ready for none."""
    variables = {"searxng": searxng.VARIABLE, "brave": brave.VARIABLE, "tavily": tavily.VARIABLE, "exa": exa.VARIABLE}
    ready = [name for name, variable in variables.items() if env.get(variable, "").strip()]
    if not ready and importlib.util.find_spec("ddgs") is not None:
        ready = ["ddgs"]
    if not ready:
        raise UserError(
            "The tool web_search needs a search backend: name some in [search] backends (arxiv and wikipedia need no"
            f" key), set one of {', '.join(variables.values())}, or pip install 'researcher-orchestrator[web]'."
        )
    return ready[:1]
