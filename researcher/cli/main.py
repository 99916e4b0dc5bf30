"""The `researcher` command: `main()` runs it and gives the exit code, with one sentence for every error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from researcher_tools.secrets import Scrubber, quiet_logs

from researcher import __version__
from researcher.cli.commands import Commands, listed
from researcher.cli.exits import Exit
from researcher.errors import LimitExceeded, ResearcherError, UserError

app = typer.Typer(
    cls=Commands,
    help="Many reasoner threads on served language models, merged in a thought graph: answers with evidence.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
listed(app)

# typer has carried click's exceptions under several module names; this is the base of all usage errors in each.
_ClickError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command. Errors are one sentence on stderr; RESEARCHER_DEBUG=1 adds the traceback."""
    debug = os.environ.get("RESEARCHER_DEBUG", "") not in ("", "0")
    try:
        with quiet_logs(Scrubber.from_environment(os.environ)):
            given = None if arguments is None else list(arguments)
            code = app(args=given, prog_name="researcher", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except (typer.Abort, KeyboardInterrupt, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt) is None:
            return _told(error, debug)
        print("interrupted", file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`researcher ls | head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.ERROR)
    except Exception as error:
        return _told(error, debug)


def _told(error: BaseException, debug: bool) -> int:
    """The process's boundary: a person reads a sentence, never a traceback."""
    scrub = Scrubber.from_environment(os.environ)  # an address or a server's words may hold a key
    if debug:
        print(scrub("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    sentence, code = explain(error)
    print(f"researcher: {scrub(sentence)}", file=sys.stderr)
    return int(code)


def explain(error: BaseException) -> tuple[str, Exit]:
    """The sentence and the exit code for an error; of a group, for its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, _ClickError):
        usage: Any = error
        return f"{' '.join(usage.format_message().split())} (see researcher --help)", Exit.USAGE
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text, Exit.USAGE
    if isinstance(error, LimitExceeded):
        return text, Exit.LIMIT
    if isinstance(error, ResearcherError):
        return text, Exit.ERROR
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or text}", Exit.ERROR
    return f"a defect of researcher: {type(error).__name__}: {text}; RESEARCHER_DEBUG=1 shows where", Exit.ERROR
