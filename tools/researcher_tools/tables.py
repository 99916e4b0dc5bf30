"""A table of the settings as its model: `read(FetchSettings, "fetch", {"interval": 2.0})`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from researcher.errors import UserError

T = TypeVar("T", bound=BaseModel)


def read(kind: type[T], table: str, given: Mapping[str, Any]) -> T:
    """The settings of this table. Raises UserError that names the first one that is wrong, without its value."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join((table, *map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        raise UserError(f"{where} is not a setting; there are: {', '.join(kind.model_fields) or 'none'}.")
    said = first["msg"].replace("Input should be", "must be")
    raise UserError(f"{where}: {said[:1].lower()}{said[1:]}.")
