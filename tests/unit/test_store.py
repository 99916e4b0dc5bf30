"""The store: what every store does, and the faults of the log: torn, flipped, full, slow, locked, old, read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from researcher.errors import StoreCorrupt, StoreError, StoreLocked, UserError
from researcher.events import AnswerAccepted, CallStarted, EventBody, MessageAdded, RunFinished, RunStarted
from researcher.store import RunReader, RunStore, list_runs, new_run_id, run_path, schema
from researcher.testing.memory_store import MemoryStore
from researcher.testing.store_conformance import CHECKS, Check
from researcher.types import Answer, Message, Outcome, Task

START = RunStarted(task=Task(question="Who?"), strategy="vote", model="embedded")


def text(content: str) -> EventBody:
    return MessageAdded(message=Message(role="assistant", content=content))


def make_run(path: Path, events: int = 5) -> Path:
    """A closed run with this many events."""
    store = RunStore.create(path, linger=0)
    store.append(None, START)
    for number in range(2, events + 1):
        store.append("a", text(f"message number {number}"))
    store.close()
    return path


@pytest.mark.anyio
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["sqlite", "sqlite-normal", "memory"])
async def test_conformance(check: Check, kind: str, tmp_path: Path) -> None:
    match kind:
        case "sqlite":
            await check(lambda: RunStore.create(tmp_path / "run.db", linger=0))
        case "sqlite-normal":
            await check(lambda: RunStore.create(tmp_path / "run.db", synchronous="normal"))
        case _:
            await check(MemoryStore)


@pytest.mark.anyio
async def test_a_held_memory_store_releases_its_waiters() -> None:
    store = MemoryStore(held=True)
    event = store.append(None, START)
    done = anyio.Event()

    async def wait() -> None:
        await store.durable(event.seq)
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not done.is_set()
        assert list(store.read()) == []
        store.release()
    assert list(store.read()) == [event]


@pytest.mark.anyio
async def test_a_broken_memory_store_tells_its_waiters() -> None:
    store = MemoryStore(held=True)
    event = store.append(None, START)
    store.fail("EIO")
    with pytest.raises(StoreError, match="EIO"):
        await store.durable(event.seq)
    with pytest.raises(StoreError, match="EIO"):
        store.append(None, START)


def test_a_reopened_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db")
    store = RunStore.open(path)
    assert store.notice is None
    assert store.append("b", CallStarted()).seq == 6
    name = store.put_blob(b"page")
    store.close()
    assert not Path(f"{path}-wal").exists()
    with RunReader(path) as reader:
        assert [event.seq for event in reader.read()] == [1, 2, 3, 4, 5, 6]
        assert [event.seq for event in reader.read(after=4)] == [5, 6]
        assert reader.get_blob(name) == b"page"
        reader.verify(blobs=True)


def test_a_clock_that_jumps_changes_no_order(tmp_path: Path) -> None:
    times = iter([1000.0, -5.0, 999_999_999.0, 3.0])
    store = RunStore.create(tmp_path / "run.db", clock=lambda: next(times))
    for _ in range(4):
        store.append(None, CallStarted())
    store.close()
    with RunReader(tmp_path / "run.db") as reader:
        reader.verify()
        assert [(event.seq, event.at) for event in reader.read()] == [
            (1, 1000.0),
            (2, -5.0),
            (3, 999_999_999.0),
            (4, 3.0),
        ]


def test_half_a_character_pair_is_stored_as_a_question_mark(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run.db")
    event = store.append("a", text("x\ud800y"))
    store.close()
    assert event.body == text("x?y")
    with RunReader(tmp_path / "run.db") as reader:
        assert list(reader.read()) == [event]


def test_large_batches_and_bodies(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run.db", synchronous="normal")
    events = [store.append("a", text("x" * (number * 37 % 5000))) for number in range(700)]
    store.close()
    with RunReader(tmp_path / "run.db") as reader:
        assert list(reader.read()) == events


# One run, one writer.


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    store = RunStore.create(path)
    with pytest.raises(StoreLocked, match=f"run run is open in process {os.getpid()}"):
        RunStore.open(path)
    with pytest.raises(StoreLocked):
        RunStore.create(path)
    store.append(None, START)  # the refused ones disturbed nothing
    store.close()
    RunStore.open(path).close()


@pytest.mark.slow
def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db")
    code = (
        "import sys, pathlib; from researcher.store.log import RunStore\n"
        "store = RunStore.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked, match=f"process {holder.pid}"):
            RunStore.open(path)
        holder.kill()
        holder.wait()
    RunStore.open(path).close()


def test_creating_a_run_that_exists_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db")
    with pytest.raises(UserError, match="run run exists already"):
        RunStore.create(path)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    for act in (RunStore.open, RunReader):
        with pytest.raises(UserError, match="no run 'gone'"):
            act(tmp_path / "gone.db")
    assert list(tmp_path.iterdir()) == []


# Reading.


@pytest.mark.anyio
async def test_a_reader_sees_what_a_writer_has_made_durable(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    store = RunStore.create(path, linger=0)
    await store.durable(store.append(None, START).seq)
    with RunReader(path) as reader:
        assert reader.head() == 1
        await store.durable(store.append("a", CallStarted()).seq)
        assert [event.body for event in reader.read()] == [START, CallStarted()]
    await store.aclose()


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """The folder read-only, and this process without the right to write it all the same."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.mark.parametrize("left", ["closed", "crashed", "crashed without index"])
def test_a_read_only_folder_can_be_read(tmp_path: Path, left: str) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    if left == "closed":
        make_run(folder / "run.db")
    else:
        crash(tmp_path, folder / "run.db")
        if left == "crashed without index":
            Path(f"{folder / 'run.db'}-shm").unlink()
    with unprivileged(folder), RunReader(folder / "run.db") as reader:
        assert [event.seq for event in reader.read()] == [1, 2, 3, 4, 5]


def test_a_read_only_folder_cannot_be_written_and_we_say_so(tmp_path: Path) -> None:
    path = make_run(tmp_path / "runs" / "run.db")
    with unprivileged(path.parent):
        with pytest.raises(StoreError, match=r"cannot write in|cannot be written"):
            RunStore.open(path)
        with pytest.raises(StoreError, match="cannot write in"):
            RunStore.create(path.parent / "new.db")
        with pytest.raises(StoreError, match="cannot make the folder"):
            RunStore.create(path.parent / "deeper" / "new.db")


# Damage.


def crash(tmp_path: Path, path: Path) -> None:
    """A run as a kill leaves it: the events are in the write-ahead log, which nobody moved into the file."""
    live = tmp_path / "live" / "run.db"
    store = RunStore.create(live, linger=0)
    for number in range(1, 6):
        seq = store.append(None, START if number == 1 else text(f"message number {number}")).seq
        anyio.run(store.durable, seq)
    for suffix in ("", "-wal", "-shm"):
        shutil.copyfile(f"{live}{suffix}", f"{path}{suffix}")
    store.close()


def test_a_crashed_run_is_recovered_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    crash(tmp_path, path)
    store = RunStore.open(path)
    assert store.notice is None
    assert [event.seq for event in store.read()] == [1, 2, 3, 4, 5]
    store.close()


@pytest.mark.parametrize("damage", ["cut", "flip", "cut in a header"])
def test_a_torn_tail_is_dropped_and_reported(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.db"
    crash(tmp_path, path)
    wal = Path(f"{path}-wal")
    data = bytearray(wal.read_bytes())
    frame = 24 + 4096
    match damage:
        case "cut":
            wal.write_bytes(data[:-100])
        case "cut in a header":
            wal.write_bytes(data[: len(data) - frame + 10])
        case _:
            data[-200] ^= 1
            wal.write_bytes(data)
    store = RunStore.open(path)
    assert store.notice is not None
    assert "unfinished commit were dropped" in store.notice
    assert [event.seq for event in store.read()] == [1, 2, 3, 4]
    assert store.append(None, CallStarted()).seq == 5
    store.close()
    with RunReader(path) as reader:
        reader.verify()
    reopened = RunStore.open(path)
    assert reopened.notice is None
    reopened.close()


def edit(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "seq", "match"),
    [
        (
            "UPDATE events SET body = CAST(replace(body, x'6E756D626572', x'6E756D626573') AS BLOB) WHERE seq = 3",
            3,
            "checksum",
        ),
        ("UPDATE events SET body = CAST(body AS TEXT) WHERE seq = 3", 3, "is not an event"),
        ("UPDATE events SET thread = CAST(x'FF' AS TEXT) WHERE seq = 3", 3, "checksum"),
        ("UPDATE events SET thread = 'b' WHERE seq = 4", 4, "checksum"),
        ("UPDATE events SET at = at + 1 WHERE seq = 2", 2, "checksum"),
        ("UPDATE events SET body = 'text' WHERE seq = 2", 2, "is not an event"),
        ("DELETE FROM events WHERE seq = 3", 3, "event 3 is missing"),
        ("UPDATE events SET body = (SELECT body FROM events WHERE seq = 2) WHERE seq = 5", 5, "checksum"),
    ],
)
def test_damaged_events_are_detected(tmp_path: Path, statement: str, seq: int, match: str) -> None:
    path = make_run(tmp_path / "run.db")
    edit(path, statement)
    with pytest.raises(
        StoreCorrupt, match=rf"run run: event {seq} .*; events 1 to {seq - 1} can be read; restore"
    ) as error:
        RunStore.open(path)
    assert match in str(error.value)
    with RunReader(path) as reader:
        events = reader.read()
        assert [next(events).seq for _ in range(1, seq)] == list(range(1, seq))
        with pytest.raises(StoreCorrupt):
            next(events)
    edit(path, "UPDATE events SET seq = seq")  # the refused open left no lock and no broken file


def test_a_flipped_byte_in_the_file_is_detected(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db")
    data = bytearray(path.read_bytes())
    at = data.index(b"message number 4")
    data[at + 3] ^= 0x20
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="event 4 does not match its checksum"):
        RunStore.open(path)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be one" * 100, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.db"
    path.write_bytes(content)
    for act in (RunStore.open, RunReader):
        with pytest.raises(StoreError, match="run run: "):
            act(path)


def test_a_damaged_page_is_detected(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db", events=400)
    data = bytearray(path.read_bytes())
    data[4096 * 5 : 4096 * 5 + 200] = b"\xee" * 200
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="restore"):
        RunStore.open(path)


@pytest.mark.parametrize(
    "damage", ["CAST(substr(data, 1, 5) || x'00FF' || substr(data, 8) AS BLOB)", "CAST(data AS TEXT)", "x''", "x'3D3D'"]
)
def test_a_damaged_or_missing_blob_is_detected(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.db"
    store = RunStore.create(path)
    name = store.put_blob(b"some page " * 50)
    store.close()
    edit(path, f"UPDATE blobs SET data = {damage}")
    with RunReader(path) as reader:
        with pytest.raises(StoreCorrupt, match="does not match its checksum"):
            reader.get_blob(name)
        with pytest.raises(StoreCorrupt, match="does not match its checksum"):
            reader.verify(blobs=True)
        with pytest.raises(StoreError, match="no source 000000000000"):
            reader.get_blob("0" * 64)


# Versions.


def test_an_empty_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    path.touch()
    with pytest.raises(StoreError, match="cut off before it began"):
        RunStore.open(path)
    edit(path, "CREATE TABLE other (x)")
    with pytest.raises(StoreCorrupt, match="not an event log"):
        RunStore.open(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.db")
    edit(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    for act in (RunStore.open, RunReader):
        with pytest.raises(StoreError, match="upgrade it"):
            act(path)


def test_an_older_version_is_migrated_or_refused_unchanged(tmp_path: Path) -> None:
    connection = sqlite3.connect(make_run(tmp_path / "run.db"), isolation_level=None)
    steps = {1: ("ALTER TABLE events ADD COLUMN note TEXT",), 2: ("UPDATE events SET note = 'x'",)}
    with pytest.raises(StoreError, match=r"no way to version 4 \(step 3 is missing\)"):
        schema.migrate(connection, "run", version=4, migrations=steps)
    with pytest.raises(StoreError, match="it is unchanged"):
        schema.migrate(connection, "run", version=3, migrations={**steps, 2: ("NONSENSE",)})
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    schema.migrate(connection, "run", version=3, migrations=steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert connection.execute("SELECT count(*) FROM events WHERE note = 'x'").fetchone() == (5,)
    connection.close()


def test_a_body_of_a_later_version_is_named(tmp_path: Path) -> None:
    body = schema.encode(CallStarted())[0].replace(b"call_started", b"call_planned")
    with pytest.raises(StoreError, match="event 7 is not known to this version"):
        schema.decode("run", 7, "a", 0.0, body)


# The disk says no.


class Disk(sqlite3.Connection):
    """A connection whose commits wait for `gate`, or fail while `fault` says so."""

    gate: threading.Event
    fault: str | None = None

    def commit(self) -> None:
        self.gate.wait()
        if self.fault is not None:
            raise sqlite3.OperationalError(self.fault)
        super().commit()


@pytest.fixture
def disk() -> type[Disk]:
    class Fresh(Disk):
        gate = threading.Event()

    Fresh.gate.set()
    return Fresh


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"]
)
async def test_a_failed_commit_reaches_every_waiter_and_loses_nothing_before(
    tmp_path: Path, disk: type[Disk], fault: str
) -> None:
    store = RunStore.create(tmp_path / "run.db", linger=0, factory=disk)
    await store.durable(store.append(None, START).seq)
    disk.fault = fault
    events = [store.append("a", CallStarted()) for _ in range(10)]
    failures = []

    async def wait(seq: int) -> None:
        try:
            await store.durable(seq)
        except StoreError as error:
            failures.append(str(error))

    async with anyio.create_task_group() as group:
        for event in events:
            group.start_soon(wait, event.seq)
    assert len(failures) == 10
    assert f"writing the event log failed ({fault})" in failures[0]
    with pytest.raises(StoreError, match="writing the event log failed"):
        store.append("a", CallStarted())
    with pytest.raises(StoreError, match="writing the event log failed"):
        store.put_blob(b"x")
    await store.durable(1)
    assert [event.body for event in store.read()] == [START]
    await store.aclose()
    reopened = RunStore.open(tmp_path / "run.db")
    assert reopened.append(None, CallStarted()).seq == 2
    reopened.close()


def test_a_loss_nobody_was_told_of_is_told_on_closing(tmp_path: Path, disk: type[Disk]) -> None:
    store = RunStore.create(tmp_path / "run.db", factory=disk)
    disk.fault = "disk I/O error"
    store.append(None, START)
    with pytest.raises(StoreError, match="disk I/O error"):
        store.close()
    RunStore.open(tmp_path / "run.db").close()


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the writes of SQLite itself fail."""
    code = (
        "import sys, pathlib, resource, anyio\n"
        "from researcher.store.log import RunStore\n"
        "from researcher.events import RunSteered\n"
        "from researcher.errors import StoreError\n"
        "async def main():\n"
        "    store = RunStore.create(pathlib.Path(sys.argv[1]), linger=0)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "    done = 0\n"
        "    try:\n"
        "        for _ in range(100):\n"
        "            done_now = store.append(None, RunSteered(action='x' * 10_000)).seq\n"
        "            await store.durable(done_now)\n"
        "            done = done_now\n"
        "    except StoreError as error:\n"
        "        print(done, len(list(store.read())), error)\n"
        "    await store.aclose()\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.db")], capture_output=True, text=True, check=True, timeout=60
    )
    acknowledged, readable, message = done.stdout.split(maxsplit=2)
    assert 1 <= int(acknowledged) <= int(readable) < 100
    assert "writing the event log failed" in message
    store = RunStore.open(tmp_path / "run.db")
    assert len(list(store.read())) == int(readable)
    store.close()


@pytest.mark.anyio
async def test_a_slow_disk_does_not_hold_up_the_event_loop(tmp_path: Path, disk: type[Disk]) -> None:
    store = RunStore.create(tmp_path / "run.db", linger=0, factory=disk)
    disk.gate.clear()  # an fsync that takes as long as this test wants
    done = []

    async def wait(seq: int) -> None:
        await store.durable(seq)
        done.append(seq)

    async with anyio.create_task_group() as group:
        for _ in range(500):
            group.start_soon(wait, store.append(None, CallStarted()).seq)
        for _ in range(100):  # the loop turns, events are taken, and nothing is acknowledged
            await anyio.lowlevel.checkpoint()
            store.append(None, CallStarted())
        assert done == []
        disk.gate.set()
    assert sorted(done) == list(range(1, 501))
    await store.durable(600)
    await store.aclose()


@pytest.mark.anyio
async def test_one_commit_wakes_the_loop_once(
    tmp_path: Path, disk: type[Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    real = loop.call_soon_threadsafe

    def counted(callback, *args, **kwargs):  # type: ignore[no-untyped-def]
        wakes.append(callback)
        return real(callback, *args, **kwargs)

    store = RunStore.create(tmp_path / "run.db", linger=0, factory=disk)
    disk.gate.clear()
    first = store.append(None, START)
    async with anyio.create_task_group() as group:
        group.start_soon(store.durable, first.seq)
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        for _ in range(2000):
            group.start_soon(store.durable, store.append(None, CallStarted()).seq)
        await anyio.wait_all_tasks_blocked()
        disk.gate.set()
    assert len(wakes) <= 3
    await store.aclose()


@pytest.mark.anyio
async def test_a_disk_that_hangs_refuses_more_than_the_queue_holds(
    tmp_path: Path, disk: type[Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("researcher.store.writer.LIMIT", 50)
    store = RunStore.create(tmp_path / "run.db", linger=0, factory=disk)
    disk.gate.clear()
    refused = ""
    for _ in range(200):
        try:
            store.append(None, CallStarted())
        except StoreError as error:
            refused = str(error)
    assert "the disk is 50 events behind" in refused
    disk.gate.set()
    await store.aclose()


# The list of runs.


def test_the_list_survives_a_broken_run_among_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    make_run(folder / "a-open.db")
    answer = Answer(text="Ida", canonical="ida")
    store = RunStore.create(folder / "b-done.db", clock=iter([10.0, 20.0, 30.0]).__next__)
    for body in (START, AnswerAccepted(answer=answer), RunFinished(outcome=Outcome.ANSWERED, answer=answer)):
        store.append(None, body)
    store.close()
    (folder / "c-broken.db").write_bytes(b"junk" * 5000)
    make_run(folder / "d-flipped.db")
    edit(folder / "d-flipped.db", "UPDATE events SET body = x'00' WHERE seq = 1")
    (folder / "e-empty.db").touch()
    RunStore.create(folder / "f-no-events.db").close()
    runs = list_runs(tmp_path)
    assert [(run.id, run.outcome, run.events) for run in runs] == [
        ("a-open", "open", 5), ("b-done", "answered", 3), ("c-broken", "unreadable", 0),
        ("d-flipped", "unreadable", 0), ("e-empty", "unreadable", 0), ("f-no-events", "open", 0),
    ]  # fmt: skip
    done = runs[1]
    assert (done.question, done.strategy, done.model, done.answer) == ("Who?", "vote", "embedded", "Ida")
    assert (done.started, done.last) == (10.0, 30.0)
    assert "checksum" in runs[3].problem
    assert list_runs(tmp_path / "nowhere") == []


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id(now) for now in (0.0, 1e9, 1.9e9)]
    assert ids == sorted(ids)
    assert ids[0].startswith("19700101-000000-")
    assert len({new_run_id(0.0) for _ in range(50)}) == 50


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x\x00"])
def test_names_that_are_no_runs(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the name of a run"):
        run_path(tmp_path, name)
