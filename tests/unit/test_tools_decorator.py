from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field
from researcher_tools import Documents, tool
from researcher_tools.lookup import Lookup
from researcher_tools.python import open_python
from researcher_tools.read import open_read
from researcher_tools.search import open_search

from researcher.errors import ToolError
from researcher.protocols import ToolContext, ToolResult
from researcher.testing.fake_sandbox import FakeSandbox
from researcher.testing.tool_conformance import CONTEXT, check_tool

pytestmark = pytest.mark.anyio


@tool
async def area(width: float, height: float = 1.0, *, unit: Literal["m", "cm"] = "m") -> str:
    """The area of a rectangle.

    This part is for people.
    """
    return f"{width * height} {unit}2"


@tool
async def whoami(context: ToolContext, json: Annotated[str, Field(description="Anything.")]) -> ToolResult:
    """Who calls."""
    return ToolResult(f"{context.thread} {json}")


async def test_our_own_tools_keep_every_rule() -> None:
    lookup = Lookup(Documents.from_texts({"a.md": "The ferry leaves at nine."}))
    assert (await check_tool(open_search(lookup), {"query": "ferry"})).passages
    assert (await check_tool(open_read(lookup), {"source": "a.md"})).passages
    assert (await check_tool(open_python(FakeSandbox(lambda _: "2\n")), {"code": "print(2)"})).content == "2"
    assert (await check_tool(area, {"width": 2})).content == "2.0 m2"
    assert (await check_tool(whoami, {"json": "x"})).content == "conformance x"


def test_the_built_in_schemas_are_those_the_embedded_reasoner_was_trained_on() -> None:
    lookup = Lookup(Documents.from_texts({"a.md": "x"}))
    specs = [open_search(lookup).spec, open_read(lookup).spec, open_python(FakeSandbox()).spec]
    assert [(spec.name, spec.description) for spec in specs] == [
        ("search", "Search the documents."),
        ("read", "Read a document."),
        ("python", "Run Python code."),
    ]
    for spec, argument in zip(specs, ("query", "source", "code"), strict=True):
        wanted = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
        assert spec.parameters == wanted
        assert list(spec.parameters) == list(wanted)  # the order is part of the prompt


def test_the_schema_has_defaults_choices_and_descriptions_but_no_titles() -> None:
    assert area.spec.description == "The area of a rectangle."
    assert area.spec.parameters == {
        "type": "object",
        "properties": {
            "width": {"type": "number"},
            "height": {"type": "number", "default": 1.0},
            "unit": {"type": "string", "enum": ["m", "cm"], "default": "m"},
        },
        "required": ["width"],
    }
    assert whoami.spec.parameters["properties"] == {"json": {"type": "string", "description": "Anything."}}


def test_an_argument_may_be_called_title() -> None:
    @tool(name="name_it", description="Name it.")
    async def other(title: str) -> str:
        return title

    assert other.spec.name == "name_it"
    assert other.spec.parameters["properties"] == {"title": {"type": "string"}}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "area: the argument 'width' is missing; it takes width, height, unit."),
        ({"width": "wide"}, "area: the argument 'width' must be a number, not str."),
        ({"width": [1]}, "area: the argument 'width' must be a number, not list."),
        ({"width": 1, "hight": 2}, "area: there is no argument 'hight'; it takes width, height, unit."),
        ({"width": 1, "unit": "ft"}, "area: the argument 'unit' is wrong: input should be 'm' or 'cm'."),
    ],
)
async def test_a_wrong_argument_is_one_sentence_that_names_it(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ToolError) as caught:
        await area.call(arguments, CONTEXT)
    assert str(caught.value) == sentence


def test_what_cannot_be_a_tool_is_refused_when_it_is_made() -> None:
    async def untyped(query) -> str:  # type: ignore[no-untyped-def]
        """Look up."""
        return ""

    async def silent(query: str) -> str:
        return ""

    async def variadic(*queries: str) -> str:
        """Look up."""
        return ""

    def blocking(query: str) -> str:
        """Look up."""
        return ""

    for function, said in (
        (untyped, "needs a type for its argument 'query'"),
        (silent, "needs a docstring"),
        (variadic, r"cannot take \*queries"),
        (blocking, "must be an async function"),
    ):
        with pytest.raises(TypeError, match=said):
            tool(function)  # type: ignore[arg-type]


async def test_the_conformance_suite_catches_a_tool_that_swallows_wrong_arguments() -> None:
    class Careless:
        spec = area.spec

        async def call(self, arguments: object, context: ToolContext) -> ToolResult:
            return ToolResult("fine")

        async def aclose(self) -> None: ...

    with pytest.raises(AssertionError, match="were accepted"):
        await check_tool(Careless(), {"width": 1})
