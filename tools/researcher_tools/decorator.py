"""`@tool` turns a typed async function into a `Tool`: schema from the signature, description from the docstring.

A parameter annotated `ToolContext` receives the caller and is not part of the schema. The schema is kept minimal
(no titles, no `additionalProperties`): every key of it is prompt that each thread pays for, and the embedded
reasoner was trained on exactly this form.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from researcher.errors import ToolError
from researcher.protocols import ToolContext, ToolResult
from researcher.types import ToolSpec

ToolFunction = Callable[..., Awaitable[str | ToolResult]]

_FIELD = "argument_"
_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
}


class FunctionTool:
    """A function as a tool: validated arguments in, a `ToolResult` out."""

    def __init__(self, function: ToolFunction, spec: ToolSpec, arguments: type[BaseModel], context: str | None) -> None:
        self._function, self._spec, self._arguments, self._context = function, spec, arguments, context

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """The function's result. A wrong argument is a ToolError that names it and says what is expected."""
        try:
            valid = self._arguments.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(self._complaint(error)) from None
        values = {name: getattr(valid, f"{_FIELD}{name}") for name in self._names()}
        if self._context is not None:
            values[self._context] = context
        result = await self._function(**values)
        return result if isinstance(result, ToolResult) else ToolResult(result)

    async def aclose(self) -> None:
        """Nothing to close: what a function uses belongs to whoever made it."""

    def _names(self) -> list[str]:
        return [field.removeprefix(_FIELD) for field in self._arguments.model_fields]

    def _complaint(self, error: ValidationError) -> str:
        first = error.errors(include_url=False)[0]
        tool, names = self._spec.name, self._names()
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            return f"{tool}: the argument {where!r} is missing; {_usage(names)}."
        if first["type"] == "extra_forbidden":
            return f"{tool}: there is no argument {where!r}; {_usage(names)}."
        kind = _KINDS.get(first["type"])
        given = type(first["input"]).__name__
        if kind is not None:
            return f"{tool}: the argument {where!r} must be {kind}, not {given}."
        return f"{tool}: the argument {where!r} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}."


@overload
def tool(function: ToolFunction, /) -> FunctionTool: ...


@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[ToolFunction], FunctionTool]: ...


def tool(
    function: ToolFunction | None = None, /, *, name: str | None = None, description: str | None = None
) -> FunctionTool | Callable[[ToolFunction], FunctionTool]:
    """A tool from an async function; `name` and `description` replace what the function itself says."""

    def build(target: ToolFunction) -> FunctionTool:
        return _build(target, name or target.__name__, description)

    return build if function is None else build(function)


def _build(function: ToolFunction, name: str, description: str | None) -> FunctionTool:
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"the tool {name!r} must be an async function")
    summary = description or (inspect.getdoc(function) or "").partition("\n")[0].strip()
    if not summary:
        raise TypeError(f"the tool {name!r} needs a docstring: its first line is what the model reads")
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    context = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the tool {name!r} cannot take {parameter}: a model names each argument")
        if parameter.name not in hints:
            raise TypeError(f"the tool {name!r} needs a type for its argument {parameter.name!r}")
        if hints[parameter.name] is ToolContext:
            context = parameter.name
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            # An alias, so that an argument may have a name that pydantic keeps for itself (`json`, `model_x`).
            fields[_FIELD + parameter.name] = (Annotated[hints[parameter.name], Field(alias=parameter.name)], default)
    arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    schema = _minimal(arguments.model_json_schema())
    schema.pop("description", None)
    schema.setdefault("properties", {})
    return FunctionTool(function, ToolSpec(name=name, description=summary, parameters=schema), arguments, context)


def _minimal(schema: Any) -> Any:
    """The schema without titles and `additionalProperties: false`; names of properties are not keywords."""
    if isinstance(schema, list):
        return [_minimal(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in sorted(schema.items(), key=lambda item: _rank(item[0])):
        if key == "title" or (key == "additionalProperties" and value is False):
            continue
        if key in ("properties", "$defs"):
            kept[key] = {name: _minimal(part) for name, part in value.items()}
        else:
            kept[key] = value if key in ("default", "const", "enum", "examples") else _minimal(value)
    return kept


def _rank(key: str) -> int:
    """The order in which the templates of models print a schema: type first, then what it holds."""
    order = ("type", "description", "properties", "required")
    return order.index(key) if key in order else len(order)


def _usage(names: list[str]) -> str:
    return f"it takes {', '.join(names)}" if names else "it takes no arguments"
