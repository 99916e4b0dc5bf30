"""What a model URI names, as far as it can be told: two models under one name must not share a folder of results."""

from __future__ import annotations

import hashlib
from pathlib import Path

from researcher.models.embedded import SHIPPED
from researcher.models.uri import parse_model_uri


def identity(uri: str) -> str:
    """The URI, with a checksum of the weights where they are a file here."""
    parsed = parse_model_uri(uri)
    if parsed.kind not in ("embedded", "gguf"):
        return str(parsed)
    path = Path(parsed.target).expanduser() if parsed.target else SHIPPED
    if not path.is_file():
        return str(parsed)
    with path.open("rb") as file:
        return f"{parsed} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
