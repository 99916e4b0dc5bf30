"""`researcher strategies`: what there is to choose, and the parameters of each with their defaults."""

from __future__ import annotations

import inspect
from typing import Annotated

import msgspec
import typer

from researcher.cli.options import Json
from researcher.cli.output import Output
from researcher.strategies.load import strategy_class, strategy_names


def strategies(
    name: Annotated[str | None, typer.Argument(help="One strategy, with its parameters.")] = None,
    json: Json = False,
) -> None:
    """List the strategies, or the parameters of one; `--set key=value` of `run` sets them."""
    output = Output(json=json)
    if name is None:
        for each in strategy_names():
            output.line({"name": each, "about": _about(each)})
            output.data(f"{each:<17} {_about(each)}")
        return
    cls = strategy_class(name)
    defaults = cls().model_dump(mode="json", exclude={"name"})
    about = {key: cls.model_fields[key].description or "" for key in defaults}
    told = {key: {"default": default, "about": about[key]} for key, default in defaults.items()}
    output.line({"name": name, "about": _about(name), "parameters": told})
    output.data(f"{name}: {_about(name)}\n")
    for key, default in defaults.items():
        output.data(f"  {key} = {msgspec.json.encode(default).decode()}")
        output.data(f"      {about[key]}")


def _about(name: str) -> str:
    """The first sentence of the strategy's docstring."""
    return (inspect.getdoc(strategy_class(name)) or "").partition("\n")[0]
