"""MCP both ways with real parts: the embedded model behind `researcher mcp`, and one researcher as another's tool."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from researcher.cli.demo import DOCUMENTS
from researcher.cli.demo import QUESTION as QUESTION_FILE
from researcher.events import ToolReturned
from researcher.store import RunReader, list_runs, run_path
from researcher.testing.model_server import ModelServer, Received, Reply
from researcher.types import ToolCall

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.anyio]

QUESTION = QUESTION_FILE.read_text("utf-8").strip()
START = [sys.executable, "-m", "researcher"]


def arguments(home: Path, *more: str) -> list[str]:
    return ["-m", "researcher", "mcp", "--home", str(home), "--model", "embedded", "--docs", str(DOCUMENTS), *more]


@pytest.fixture
def client_of(gguf: Path) -> Any:
    """The official client on `researcher mcp`, which has the embedded model and the demo's documents."""
    assert importlib.util.find_spec("mcp") is not None, "install the extra mcp"
    from mcp import Client, StdioServerParameters

    def connect(home: Path, *more: str) -> Any:
        return Client(StdioServerParameters(command=sys.executable, args=arguments(home, *more)))

    return connect


async def ask(client: Any, name: str, **given: Any) -> dict[str, Any]:
    result = await client.call_tool(name, given)
    assert not result.is_error, result.content[0]
    found: dict[str, Any] = result.structured_content
    return found


async def test_another_agent_has_a_question_researched(tmp_path: Path, client_of: Any) -> None:
    async with client_of(tmp_path) as client:
        record = await ask(client, "run", question=QUESTION, wait=240.0)
        run = record["run"]
        assert (record["state"], record["supported"]) == ("ended", True)
        assert record["citations"]
        assert all(not citation["problem"] for citation in record["citations"])
        claims = await ask(client, "claims", run=run)
        # A thread may claim what it cannot quote.
        quoted = next(claim for claim in claims["claims"] if claim["evidence"])
        one = await ask(client, "why", run=run, claim=quoted["id"])
        assert one["evidence"][0]["quote"] in one["text"] or one["text"] in one["evidence"][0]["quote"]
        why = await ask(client, "why", run=run)
        assert {"thread", "claim", "source", "tool_call"} <= set(why["ancestors"])
        found = await client.call_tool("search", {"query": "founder"})
        assert "founder" in found.content[0].text
        said = await client.call_tool("run", {"question": QUESTION, "tokens": 10**9})
        assert said.is_error
        assert "at most 200,000" in said.content[0].text


async def test_a_run_of_a_killed_server_is_resumed_by_the_next(tmp_path: Path, client_of: Any) -> None:
    options = ("--strategy", "vote", "--budget-tokens", "100000")
    first = subprocess.Popen(  # noqa: ASYNC220 - it is killed, which the client's own process is not
        [sys.executable, *arguments(tmp_path, *options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    meta = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    call = {"name": "run", "arguments": {"question": QUESTION, "threads": 16, "wait": 0}}
    for message in (
        {"id": 1, "method": "initialize", "params": meta},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": call},
    ):
        first.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        first.stdin.flush()
    replies = (json.loads(line) for line in first.stdout)
    run = next(each for each in replies if each.get("id") == 2)["result"]["structuredContent"]["run"]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    async with client_of(tmp_path, *options) as client:
        assert (await ask(client, "status", run=run))["state"] == "interrupted"
        record = await ask(client, "resume", run=run, wait=240.0)
        assert record["state"] == "ended"
        assert sum(record["threads"].values()) == 16


def test_one_researcher_searches_with_another(tmp_path: Path, gguf: Path) -> None:
    """`researcher run` with a table `[mcp.NAME]` for `researcher mcp`: both ends are ours, over real pipes."""
    (tmp_path / "researcher.toml").write_text(
        "[mcp.library]\n"
        f"command = {json.dumps(sys.executable)}\n"
        f"args = {json.dumps(arguments(tmp_path / 'library'))}\n"
        'env = { LIBRARY_KEY = "${LIBRARY_KEY}" }\n'
        'tools = ["search"]\n'
        "seconds = 120.0\n"
        "[approval]\n"
        'library = "always"\n'
    )
    key = "hunter2-hunter2-hunter2"
    query = ToolCall(id="c", name="library__search", arguments='{"query": "Duje Tower"}')

    def reply(asked: Received) -> Reply:
        if any(message["role"] == "tool" for message in asked.body["messages"]):
            return Reply("<answer>Tepe</answer>")
        return Reply("", tool_calls=(query,))

    with ModelServer(reply) as server:
        options = ["--strategy", "chain_of_thought", "--model", f"{server.url}#test", "--tool", "library__search"]
        command = [*START, "run", "Where is Duje Tower?", "--home", str(tmp_path / "home"), *options]
        environment = {**os.environ, "LIBRARY_KEY": key}
        plan = subprocess.run([*command, "--dry-run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert plan.returncode == 0, plan.stderr
        assert key not in plan.stdout + plan.stderr
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        environment.pop("LIBRARY_KEY")
        without = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "Tepe" in done.stdout, done.stderr
    assert key not in done.stdout + done.stderr
    assert without.returncode == 2
    assert "needs the environment variable LIBRARY_KEY, which is not set" in without.stderr
    [run] = list_runs(tmp_path / "home")
    with RunReader(run_path(tmp_path / "home", run.id)) as reader:
        events = list(reader.read())
    [returned] = [event.body for event in events if isinstance(event.body, ToolReturned)]
    assert (returned.status, returned.origin) == ("ok", "mcp library")
    assert "Duje Tower stands in Tepe." in returned.content
    assert key not in str(events)
