"""Bytes under their sha256: `pack` before they are stored, `unpack` to have them back, checked."""

from __future__ import annotations

import hashlib
import zlib

from researcher.errors import StoreCorrupt

LEVEL = 3
"""zlib level: text to about a third at some 60 MB/s; level 9 gains a few percent for five times the time."""


def digest(data: bytes) -> str:
    """The name of these bytes: sha256, hex."""
    return hashlib.sha256(data).hexdigest()


def pack(data: bytes) -> bytes:
    """What is stored: compressed, behind one byte that says so; as they are where that does not help."""
    packed = zlib.compress(data, LEVEL)
    return b"z" + packed if len(packed) < len(data) else b"=" + data


def unpack(run: str, sha256: str, stored: bytes) -> bytes:
    """The bytes that were put in. Raises StoreCorrupt unless they hash to their name."""
    try:
        data = zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
    except zlib.error:
        data = b""
    if digest(data) != sha256:
        raise StoreCorrupt(f"run {run}: source {sha256[:12]} does not match its checksum; restore the run from a copy")
    return data
