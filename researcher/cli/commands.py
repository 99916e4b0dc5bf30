"""The commands by name: each is imported when it is called, so that `researcher --help` starts with none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command


class Command(NamedTuple):
    """Where a command is, and what `researcher --help` says of it: the first paragraph of its own help."""

    place: str
    about: str


COMMANDS: dict[str, Command] = {
    "run": Command(
        "run:run", "Answer a question with many reasoner threads; the answer goes to stdout, progress to stderr."
    ),
    "resume": Command("run:resume", "Go on with a run that was interrupted; no finished call is made again."),
    "ls": Command("ls:ls", "List the runs: id, when, how it ended, the question and its answer."),
    "show": Command(
        "show:show", "Show a run: answer, votes with supporters, claims with quotes, threads, usage and why."
    ),
    "replay": Command("replay:replay", "Play a run in the terminal, from its event log alone."),
    "export": Command("export:export", "Export a run."),
    "report": Command(
        "report:report",
        "Write the report: answer, how sure it is, numbered quotes of stored sources, what failed, what it cost.",
    ),
    "verify": Command(
        "verify:verify",
        "Check a run again, offline: every event, every source, every citation. Exit 3 where a quote does not stand.",
    ),
    "eval": Command(
        "eval:evaluate_strategies",
        "Compare strategies on problems with known answers: a table, a plot and every result, resumable.",
    ),
    "train": Command("train:train", "Train a model by a recipe; the same command goes on where it was cut off."),
    "analyse": Command(
        "analyse:analyse", "Find exploration, backtracking, verification and summing-up in the thinking of stored runs."
    ),
    "strategies": Command(
        "strategies:strategies", "List the strategies, or the parameters of one; `--set key=value` of `run` sets them."
    ),
    "doctor": Command("doctor:doctor", "Check the installation; exit 0 where a run can start."),
    "mcp": Command("mcp:mcp", "Offer run, resume, search and questions about runs to other agents, over MCP."),
    "demo": Command(
        "demo:demo",
        "Answer a question in several parts from the shipped documents, with citations. Exit 0 only with evidence.",
    ),
    "sandbox": Command("sandbox:app", "The containers in which reasoners' code runs: build, selftest, ls."),
}


class Commands(TyperGroup):
    """Lists what COMMANDS says, and resolves to the command itself."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name. Raises a usage error with the nearest names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


def load(name: str) -> Any:
    """The command itself."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    found = getattr(import_module(f"researcher.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return get_command(found)
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command(name)(found)
    return get_command(alone)


def listed(app: typer.Typer) -> None:
    """Put the commands into the app's help."""
    for name, command in COMMANDS.items():
        app.command(name, help=command.about)(_stand_in)


def _stand_in() -> None:
    raise AssertionError("Commands resolves to the command itself")
