"""`McpServer`: an MCP server the user wants to use, as a table of researcher.toml says it; checked, secrets unread.

    [mcp.files]
    command = "mcp-server-files"
    args = ["/srv/notes"]
    env = { API_KEY = "${FILES_KEY}" }
    tools = ["read_note"]

`${VAR}` stays as it is until the server is started: what is printed, recorded or raised never has its value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, PositiveFloat

from researcher.errors import UserError
from researcher_tools import tables
from researcher_tools.secrets import Scrubber

NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]|_(?!_)){0,22}[a-zA-Z0-9]|[a-zA-Z0-9]")
"""Names of servers: without `__` and without `_` at the end, so that `NAME__tool` says where the name ends."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TELLING = re.compile(r"key|token|secret|password|auth|cookie", re.IGNORECASE)
ORDINARY = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TMPDIR", "USER"})
"""Variables whose values are no secrets: hidden, a server's results would name no file that the model could ask for."""


class McpServer(BaseModel):
    """A server that is started (`command`) or called (`url`). `tools` is the grant; `["*"]` grants all it offers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    """What the server's process gets besides PATH, HOME and LANG."""
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    tools: list[str] = []
    seconds: PositiveFloat = 60.0
    """The deadline of one call, and of the start."""

    @property
    def everything(self) -> bool:
        """Whether all tools are granted."""
        return "*" in self.tools


@dataclass(frozen=True, slots=True)
class Opened:
    """The settings with the variables filled in; `hide(text)` takes out of a text what must never be shown."""

    server: McpServer = field(repr=False)
    hide: Scrubber = field(repr=False)


def check_servers(servers: Mapping[str, McpServer | Mapping[str, Any]]) -> dict[str, McpServer]:
    """The settings by name. Raises UserError for a name, a value or a combination that cannot be."""
    checked = {}
    for name, given in servers.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"[mcp.{name}]: the name of a server is letters, digits, - and single _ inside, 24 characters at most."
            )
        checked[name] = given if isinstance(given, McpServer) else tables.read(McpServer, f"mcp.{name}", given)
        _check(name, checked[name])
    return checked


def fill_in(name: str, server: McpServer, env: Mapping[str, str] | None = None) -> Opened:
    """The settings with each `${VAR}` replaced. Raises UserError that names a variable that is not set."""
    env = os.environ if env is None else env
    secrets: dict[str, str] = {}

    def fill(where: str, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            variable = match.group(1)
            if not (found := env.get(variable, "")):
                raise UserError(f"mcp.{name}.{where} needs the environment variable {variable}, which is not set.")
            if variable not in ORDINARY:
                secrets[variable] = found
            return found

        return _VARIABLE.sub(value, text)

    for where, key, text in [(part, *pair) for part in ("headers", "env") for pair in getattr(server, part).items()]:
        if _TELLING.search(key) and not _VARIABLE.search(text):
            secrets[f"{where}.{key}"] = text.split()[-1] if text.strip() else ""  # `Bearer KEY`: the key
    filled = server.model_copy(
        update={
            "args": [fill(f"args[{n}]", text) for n, text in enumerate(server.args)],
            "env": {key: fill(f"env.{key}", text) for key, text in server.env.items()},
            "headers": {key: fill(f"headers.{key}", text) for key, text in server.headers.items()},
            **{part: fill(part, getattr(server, part)) for part in ("command", "cwd", "url")},
        }
    )
    return Opened(filled, Scrubber(secrets))


def is_on_server(name: str) -> bool:
    """Whether this name of a tool, `SERVER__TOOL` or `SERVER__*`, is one of an MCP server."""
    server, parted, _ = name.partition("__")
    return bool(parted) and NAME.fullmatch(server) is not None


def _check(name: str, server: McpServer) -> None:
    if bool(server.command) == bool(server.url):
        raise UserError(f"[mcp.{name}] needs either a command, which is started, or a url, which is called.")
    if server.url and (server.args or server.env or server.cwd):
        raise UserError(f"[mcp.{name}] has a url: args, env and cwd are for a command.")
    if server.command and server.headers:
        raise UserError(f"[mcp.{name}] has a command: headers are for a url; a command takes its keys from env.")
    if server.url and not _VARIABLE.match(server.url) and urlsplit(server.url).scheme not in ("http", "https"):
        raise UserError(f"mcp.{name}.url must begin with http:// or https://.")
    if not server.tools:
        raise UserError(f'[mcp.{name}] grants nothing: name its tools, like tools = ["search"], or all with ["*"].')
