"""The file of a run: its tables, its versions, and the checksum chain that binds each row to all before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from researcher.errors import StoreCorrupt, StoreError
from researcher.events import Event, EventBody

APPLICATION = 0x52534348
"""SQLite's `application_id` of our files."""

VERSION = 1
"""SQLite's `user_version`: the layout of the tables. What is in a body has `researcher.events.SCHEMA`."""

MIGRATIONS: Mapping[int, Sequence[str]] = {}
"""Statements that lead from a version to the next one."""

GENESIS = bytes(8)
"""The checksum before the first row."""

Synchronous = Literal["full", "normal"]

TABLES = (
    "CREATE TABLE events ("
    "seq INTEGER PRIMARY KEY, thread TEXT, at REAL NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL)",
    "CREATE TABLE blobs (sha256 BLOB PRIMARY KEY, size INTEGER NOT NULL, data BLOB NOT NULL)",
)

_HEAD = Struct("<qd")
_DECODER = msgspec.msgpack.Decoder(EventBody)

_encode = msgspec.msgpack.Encoder().encode


def encode(body: EventBody) -> tuple[bytes, EventBody]:
    """The bytes of a body, and the body they stand for: half of a character pair, which is no text, becomes "?"."""
    try:
        return _encode(body), body
    except UnicodeEncodeError:  # a model or a page may well write such a thing, and must not stop a run
        clean: EventBody = msgspec.convert(_plain(msgspec.to_builtins(body)), type(body))
        return _encode(clean), clean


def _plain(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value


def chain(before: bytes, seq: int, thread: str | None, at: float, body: bytes) -> bytes:
    """The checksum of a row (8 bytes), given that of the row before: a changed, lost or moved row is seen."""
    name = b"-" if thread is None else b"+" + thread.encode()
    return blake2b(b"".join((before, _HEAD.pack(seq, at), name, b"\0", body)), digest_size=8).digest()


def decode(run: str, seq: int, thread: str | None, at: float, body: bytes) -> Event:
    """The event of a row whose checksum is right. Raises StoreError where this version does not know its body."""
    try:
        return Event(seq, thread, at, _DECODER.decode(body))
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"run {run}: event {seq} is not known to this version ({error}); upgrade researcher to read it"
        ) from error


def connect(
    path: Path, mode: Literal["ro", "rw", "rwc"], *, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """A connection in autocommit mode that may be used from any thread, by one at a time."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=10.0,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    # What is damaged may be no text: it is to fail its checksum, not the query.
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Lay out a new file."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.commit()


def check_version(connection: sqlite3.Connection, run: str, *, version: int = VERSION) -> int:
    """The file's version. Raises StoreError for a file that is not ours, is empty, or is newer than this code."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application == 0 and found == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        raise StoreError(f"run {run}: the file is empty; the run was cut off before it began, start it anew")
    if application != APPLICATION:
        raise StoreCorrupt(f"run {run}: the file is not an event log; restore it from a copy")
    if found > version:
        raise StoreError(
            f"run {run} was written with store version {found}, this researcher knows up to {version}; upgrade it"
        )
    return int(found)


def migrate(
    connection: sqlite3.Connection,
    run: str,
    *,
    version: int = VERSION,
    migrations: Mapping[int, Sequence[str]] = MIGRATIONS,
) -> None:
    """Bring a file to this code's version in one transaction, or raise StoreError and leave it as it is."""
    found = check_version(connection, run, version=version)
    if found == version:
        return
    if missing := [step for step in range(found, version) if step not in migrations]:
        raise StoreError(
            f"run {run} was written with store version {found}, from which there is no way to version {version}"
            f" (step {missing[0]} is missing); read it with the researcher that wrote it"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(found, version):
            for statement in migrations[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    except sqlite3.Error as error:
        connection.rollback()
        raise StoreError(
            f"run {run}: migrating from store version {found} failed ({error}); it is unchanged"
        ) from error
