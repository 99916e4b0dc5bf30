"""`researcher doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import anyio
import typer
from researcher_tools import open_tools

from researcher.cli.checks import PROBE_SECONDS, Check, tool_checks
from researcher.cli.exits import Exit
from researcher.cli.options import Config, Home, Json
from researcher.cli.output import Output
from researcher.config import Settings, load_settings
from researcher.errors import ResearcherError
from researcher.models.uri import choose_model, open_model
from researcher.protocols import ToolContext
from researcher.replay.frames import clip

EXTRAS = {
    "local": ("xllamacpp", "pydantic_monty", "math_verify"),
    "docker": ("docker",),
    "train": ("torch", "transformers", "safetensors", "gguf", "tokenizers", "numpy"),
    "web": ("trafilatura", "pypdf", "protego", "ddgs"),
    "mcp": ("mcp",),
}


def doctor(
    model: Annotated[str | None, typer.Option(help="The model to reach.")] = None,
    home: Home = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check the installation; exit 0 where a run can start."""
    flags = {name: value for name, value in (("model", model), ("home", home)) if value is not None}
    settings = load_settings(config, flags=flags)
    output = Output(json=json)
    checks = [
        _python(),
        _home(settings.home),
        _weights(),
        *_extras(),
        anyio.run(_sandbox),
        *anyio.run(_tools, settings),
        anyio.run(_model, settings.model),
    ]
    for check in checks:
        output.line(check._asdict())
        mark = "ok  " if check.ok else "FAIL" if check.needed else "none"
        output.data(f"{mark} {check.name}: {check.detail}")
    raise typer.Exit(Exit.ANSWERED if all(check.ok for check in checks if check.needed) else Exit.ERROR)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check("python", good, found if good else f"{found}; researcher needs 3.11 or later")


def _home(home: Path) -> Check:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home):
            pass
    except OSError as error:
        return Check("home", False, f"{home} cannot be written ({error.strerror}); choose another with --home")
    return Check("home", True, str(home))


def _weights() -> Check:
    found = [item for item in files("researcher.models").joinpath("weights").iterdir() if item.name.endswith(".gguf")]
    if not found:
        return Check("embedded weights", False, "no GGUF in this installation", needed=False)
    size = len(found[0].read_bytes()) / 2**20
    return Check("embedded weights", True, f"{found[0].name}, {size:.1f} MB", needed=False)


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        fix = f"missing {', '.join(missing)}; pip install 'researcher-orchestrator[{extra}]'"
        yield Check(f"extra {extra}", not missing, fix if missing else ", ".join(modules), needed=False)


async def _sandbox() -> Check:
    """Run a line of Python where a thread's code would run."""
    try:
        async with open_tools(["python"]) as tools:
            with anyio.fail_after(PROBE_SECONDS):
                result = await tools["python"].call({"code": "print(6 * 7)"}, ToolContext(thread="doctor"))
    except (ResearcherError, TimeoutError, ImportError) as error:
        return Check("sandbox", False, str(error) or "no reply in time", needed=False)
    good = result.content.strip() == "42"
    return Check("sandbox", good, "print(6 * 7) gives 42" if good else clip(result.content), needed=False)


async def _tools(settings: Settings) -> list[Check]:
    return [check async for check in tool_checks(settings)]


async def _model(uri: str | None) -> Check:
    """Open the model a run would use and ask what it can do."""
    try:
        with anyio.fail_after(PROBE_SECONDS):
            choice = await choose_model(uri)
            async with open_model(choice.uri) as model:
                can = await model.capabilities()
    except TimeoutError:
        return Check("model", False, f"{uri or 'the model'} did not answer within {PROBE_SECONDS:g} s")
    except ResearcherError as error:
        return Check("model", False, str(error))
    have = [name for name in ("tools", "reasoning", "token_ids", "logprobs", "streaming", "n") if getattr(can, name)]
    return Check("model", True, f"{choice.reason}; it offers {', '.join(have) or 'plain chat'}")
