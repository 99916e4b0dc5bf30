"""With which sandbox, tables and approvals a run's tools are opened: those of the settings, or those it began with."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from researcher.cli.output import Output
from researcher.config import Settings
from researcher.engine.approval import Approvals
from researcher.engine.opening import RUN_CODE
from researcher.errors import UserError
from researcher.events import RunStarted
from researcher.models.uri import KEY, parse_model_uri

_TAKEN = {
    "python": ("session", "sessions"),
    "search": ("backends", "results", "ttl"),
    "fetch": ("interval",),
    "docker": ("runtime", "containers", "memory", "pids", "cpus"),
}
"""What of a run's own tables holds again at its resume."""


class Equipment(NamedTuple):
    """What `Orchestrator` takes under these names."""

    sandbox: str | None
    options: dict[str, dict[str, Any]]
    approval: dict[str, str]


def equipment(settings: Settings, tools: Collection[str], *, named: bool = False) -> Equipment:
    """For a new run. A sandbox is opened where something runs code in it, or where it was `named` in a flag."""
    sandbox = settings.sandbox if named or _runs_code(tools, settings.verifier) else None
    return Equipment(sandbox, settings.options(), dict(settings.approval))


def again(settings: Settings, began: RunStarted, *, named: bool = False) -> Equipment:
    """For a run that goes on: as it began, where nothing else is chosen.

    A run's file may be somebody else's, so what gives power over this machine is never taken from it: which commands
    are started for MCP servers, which addresses of the own network may be fetched, to which address a key is sent,
    where files are written, in which image code runs, what a sandbox need not hold, and which calls are made without
    asking, say the settings alone.
    """
    stored, options = began.settings, settings.options()
    sandbox = _table(stored, "sandbox")
    for name, taken in _TAKEN.items():
        table = _table(sandbox, "options") if name == "docker" else _table(stored, name)
        kept = {key: value for key, value in table.items() if key in taken}
        if kept and name not in options:
            options[name] = kept
    missing = [name for name in stored.get("mcp") or () if name not in settings.mcp]
    wanted = [name for name in missing if any(tool.startswith(f"{name}__") for tool in began.task.tools)]
    if wanted:
        raise UserError(
            f"the run uses the MCP server {wanted[0]}: configure [mcp.{wanted[0]}] in researcher.toml again"
        )
    chosen: str | None = settings.sandbox or sandbox.get("name")
    use = named or _runs_code(began.task.tools, began.task.verifier)
    return Equipment(chosen if use else None, options, {**_policies(began), **settings.approval})


def model_again(settings: Settings, began: RunStarted, env: Mapping[str, str]) -> str:
    """The model of a run that goes on. Raises UserError where its file alone would say where the user's key goes."""
    if settings.model is None and began.model and env.get(KEY):
        for server in parse_model_uri(began.model).served:
            host = urlsplit(server.base_url).hostname or ""
            if not _is_own(host):
                raise UserError(
                    f"the run began on the model server {host}, to which the key in {KEY} would be sent; "
                    f"if that is meant, say --model {began.model}"
                )
    return settings.model or began.model


def warn(tools: Collection[str], equipped: Equipment, output: Output, *, can_ask: bool) -> None:
    """Say which calls will be refused because there is nobody to ask."""
    if can_ask:
        return
    said = Approvals(equipped.approval).policy
    for tool in tools:
        server = tool.partition("__")[0] if "__" in tool else ""
        policy = said.get(tool) or said.get(server) or ("ask" if server else "always")
        if policy == "ask":
            output.note(
                f"calls of {tool} need approval and there is no terminal to ask on, so they will be refused; "
                f"--approve {tool.removesuffix('__*')}=always allows them"
            )


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _runs_code(tools: Collection[str], verifier: str | None) -> bool:
    return verifier == "unit_tests" or not RUN_CODE.isdisjoint(tools)


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _policies(began: RunStarted) -> dict[str, str]:
    """What the run forbade its own tools and the servers they are on, or had a person asked for; never what it allowed:
    whoever wrote the file would have answered the question."""
    own = {name for tool in began.task.tools for name in (tool, tool.partition("__")[0])}
    said = _table(began.settings, "approval").items()
    return {str(tool): str(policy) for tool, policy in said if tool in own and policy != "always"}
