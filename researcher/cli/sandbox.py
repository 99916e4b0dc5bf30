"""`researcher sandbox`: build the image for `--sandbox docker`, prove what it holds, list its containers."""

from __future__ import annotations

import enum
from typing import Annotated

import anyio
import typer
from researcher_sandbox import image
from researcher_sandbox.docker import DockerSandbox
from researcher_sandbox.docker.client import connect
from researcher_sandbox.docker.selftest import Selftest
from researcher_sandbox.docker.sweep import listed

from researcher.cli.exits import Exit
from researcher.cli.options import Json
from researcher.cli.output import Output

app = typer.Typer(
    help="The containers in which reasoners' code runs: build, selftest, ls.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Runtime = Annotated[str | None, typer.Option(help="Docker's name of a runtime, such as runsc.", show_default=False)]
Image = Annotated[str | None, typer.Option("--image", help="An image other than the usual one.", show_default=False)]


class How(enum.StrEnum):
    """The ways to build the image."""

    AUTO = "auto"
    DOCKERFILE = "dockerfile"
    DEBIAN = "debian"


@app.command("build")
def build(
    how: Annotated[
        How, typer.Option(help="From the Dockerfile, from Debian's packages without a registry, or what works here.")
    ] = How.AUTO,
    json: Json = False,
) -> None:
    """Build the image of this version; a minute or more the first time."""
    output = Output(json=json)
    daemon = connect()
    try:
        tag = image.build(daemon.client, how=how.value, progress=output.note)
    finally:
        daemon.client.close()
    output.line({"image": tag})
    output.data(tag)


@app.command("selftest")
def selftest(runtime: Runtime = None, tag: Image = None, json: Json = False) -> None:
    """Attack a container that is thrown away; exit 0 where everything held."""
    output = Output(json=json)
    test = anyio.run(_selftest, runtime, tag)
    output.line(test.record())
    output.data(f"{test.image} under {test.runtime}")
    for check in test.checks:
        output.data(f"{'held    ' if check.held else 'NOT HELD'} {check.name}: {check.detail}")
    raise typer.Exit(Exit.ANSWERED if test.held else Exit.ERROR)


async def _selftest(runtime: str | None, tag: str | None) -> Selftest:
    sandbox = DockerSandbox(runtime=runtime, image=tag)
    try:
        return await sandbox.selftest(fresh=True)
    finally:
        await sandbox.aclose()


@app.command("ls")
def ls(json: Json = False) -> None:
    """List the containers of sandboxes, of this process's user and of others."""
    output = Output(json=json)
    daemon = connect()
    try:
        for each in listed(daemon.client):
            output.line(each._asdict())
            owner = {True: "gone", False: "lives", None: "unknown"}[each.ownerless]
            output.data(f"{each.id[:12]}  {each.state:<8}  process {each.pid or '?'} {owner}  {each.image}")
    finally:
        daemon.client.close()
