"""Opens the tools of a run by name: `async with open_tools(["search", "read"], documents=folder) as tools`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio.to_thread

from researcher.errors import UserError
from researcher.protocols import Sandbox, Tool
from researcher_tools import discovery, tables
from researcher_tools.documents import Documents, open_documents
from researcher_tools.lookup import Lookup
from researcher_tools.mcp import is_on_server, open_named
from researcher_tools.python import PythonSettings, open_python
from researcher_tools.read import open_read
from researcher_tools.search import open_search

GROUP = "researcher.tools"
BUILT_IN = {
    "code": "researcher_tools.registry:code",
    "fetch": "researcher_tools.registry:fetch",
    "python": "researcher_tools.registry:python",
    "read": "researcher_tools.registry:read",
    "search": "researcher_tools.registry:search",
    "web_search": "researcher_tools.registry:web_search",
}


@dataclass(slots=True)
class Resources:
    """What a tool may be built on; each part is opened when the first tool asks for it, and closed with the run."""

    documents: Path | Documents | None
    sandbox: Sandbox | None
    stack: AsyncExitStack
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The tables `python`, `search`, `fetch` and `mcp` of the settings; a tool reads and checks its own."""
    home: Path | None = None
    """The folder of the runs, where a tool may keep what outlives one."""
    _lookup: Lookup | None = field(default=None)

    async def lookup(self, tool: str) -> Lookup:
        """The documents of the run. Raises UserError where it has none."""
        if self._lookup is None:
            if self.documents is None:
                raise UserError(f"The tool {tool!r} needs documents; give a folder with --docs FOLDER.")
            documents = self.documents
            if not isinstance(documents, Documents):
                documents = await anyio.to_thread.run_sync(open_documents, documents)
                self.stack.callback(documents.close)
            self._lookup = Lookup(documents)
        return self._lookup

    async def python_sandbox(self) -> Sandbox:
        """The sandbox of the run; the embedded one where none was given."""
        if self.sandbox is None:
            from researcher_sandbox.monty import MontySandbox

            self.sandbox = MontySandbox()
            self.stack.push_async_callback(self.sandbox.aclose)
        return self.sandbox


Factory = Callable[[Resources], Awaitable[Tool]]


async def search(resources: Resources) -> Tool:
    """The search tool over the documents of the run."""
    return open_search(await resources.lookup("search"))


async def read(resources: Resources) -> Tool:
    """The read tool over the documents of the run."""
    return open_read(await resources.lookup("read"))


async def python(resources: Resources) -> Tool:
    """The python tool on the sandbox of the run."""
    settings = tables.read(PythonSettings, "python", resources.options.get("python", {}))
    sandbox = await resources.python_sandbox()
    return open_python(sandbox, session=settings.session, sessions=settings.sessions)


async def code(resources: Resources) -> Tool:
    """The code tool on the sandbox of the run, which must know more languages than Python."""
    from researcher_tools.code import open_code

    return open_code(await resources.python_sandbox())


async def web_search(resources: Resources) -> Tool:
    """The web search over the backends that `[search]` names."""
    from researcher_tools.web_search import configured, open_web_search, wants_documents

    options = resources.options.get("search", {})
    documents = await resources.lookup("web_search") if wants_documents(options) else None
    search, settings = configured(options, home=resources.home, documents=documents)
    resources.stack.push_async_callback(search.aclose)
    return open_web_search(search, settings.results)


async def fetch(resources: Resources) -> Tool:
    """The fetch tool, with the hosts that the user allows besides the public ones."""
    from researcher_tools.fetch import fetcher_of, open_fetch

    fetcher = fetcher_of(resources.options.get("fetch", {}))
    resources.stack.callback(fetcher.close)
    return open_fetch(fetcher)


def tool_names() -> list[str]:
    """The names of all tools that can be opened, sorted."""
    return discovery.names(GROUP, BUILT_IN)


@asynccontextmanager
async def open_tools(
    names: Iterable[str],
    *,
    documents: Path | Documents | None = None,
    sandbox: Sandbox | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    home: Path | None = None,
) -> AsyncGenerator[dict[str, Tool], None]:
    """These tools by name, closed at the end. Raises UserError for an unknown one or one that lacks what it needs.

    An entry point of the group `researcher.tools` is a tool (what `@tool` makes) or a factory of one: an async
    function of `Resources`. `SERVER__TOOL` is a tool of an MCP server, and `SERVER__*` all that are granted of it.
    A sandbox and `Documents` that are given stay their owner's to close. `options` are the tables of the settings
    that tools read, `home` is where they may keep what outlives a run.
    """
    async with AsyncExitStack() as stack:
        resources = Resources(documents, sandbox, stack, options or {}, home)
        tools: dict[str, Tool] = {}
        names = list(dict.fromkeys(names))
        if on_servers := [name for name in names if is_on_server(name)]:
            servers = resources.options.get("mcp", {})
            tools |= await stack.enter_async_context(open_named(on_servers, servers))
        for name in (name for name in names if name not in on_servers):
            found = discovery.load(GROUP, name, what="tool", built_in=BUILT_IN)
            made = await cast(Factory, found)(resources) if inspect.iscoroutinefunction(found) else cast(Tool, found)
            stack.push_async_callback(made.aclose)
            tools[name] = made
        yield tools
