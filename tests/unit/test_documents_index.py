"""The index of a folder on disk: what is read again, which numbers passages have, what survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from researcher_tools import index, index_catalogue, index_files
from researcher_tools.documents import Documents, Index, open_documents
from researcher_tools.index_tantivy import TantivyCorpus
from researcher_tools.lookup import Lookup
from researcher_tools.read import open_read
from researcher_tools.search import open_search

from researcher.errors import ToolFault, UserError
from researcher.testing.tool_conformance import CONTEXT, check_result

pytestmark = pytest.mark.anyio

Meaning = dict[int, tuple[str, str, int, int]]


class Place:
    """A folder of documents and a home, and what was read in the last opening."""

    def __init__(self, root: Path, engine: Index) -> None:
        self.folder, self.home, self.engine = root / "docs", root / "home", engine
        self.folder.mkdir()
        self.read: list[str] = []

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            path = self.folder / name.replace("_", ".")
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def open(self, engine: Index | None = None) -> Documents:
        self.read.clear()
        return open_documents(self.folder, home=self.home, index=engine or self.engine)

    def numbers(self) -> dict[str, list[int]]:
        documents = self.open()
        found = {name: [passage.n for passage in documents.corpus.read(name)] for name in documents.sources}
        documents.close()
        return found

    def database(self) -> Path:
        return sorted((self.home / "indexes").glob("*.sqlite"))[-1]


@pytest.fixture(params=["fts5", pytest.param("tantivy", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "tantivy":
        pytest.importorskip("tantivy")
    made = Place(tmp_path, request.param)

    def fetch(path: Path, real: Callable[[Path], bytes] = index_files.fetch) -> bytes:
        made.read.append(path.name)
        return real(path)

    monkeypatch.setattr(index_files, "fetch", fetch)
    monkeypatch.setattr(index_files, "RACY_NS", 0)
    return made


def test_only_what_changed_is_read_again_and_numbers_stay(place: Place) -> None:
    place.write(a_md="Ay.", b_md="Bee.\n\nBee too.", c_md="Sea.")
    assert place.numbers() == {"a.md": [1], "b.md": [2, 3], "c.md": [4]}
    assert place.read == ["a.md", "b.md", "c.md"]
    assert place.numbers() == {"a.md": [1], "b.md": [2, 3], "c.md": [4]}
    assert place.read == []
    place.write(b_md="Bee.\n\nBee three.", d_md="Dee.")
    (place.folder / "a.md").unlink()
    assert place.numbers() == {"b.md": [5, 6], "c.md": [4], "d.md": [7]}
    assert place.read == ["b.md", "d.md"]
    documents = place.open()
    assert documents.corpus.sources() == ["c.md", "b.md", "d.md"]
    assert [hit.n for hit in documents.corpus.search("bee", 4)] == [5, 6]
    assert documents.corpus.search("ay too", 4) == []
    assert [documents.corpus.passage(n) for n in (1, 2, 3)] == [None] * 3
    assert documents.sources["b.md"].data == b"Bee.\n\nBee three."
    assert "a.md" not in documents.sources
    documents.close()


def test_a_touched_file_is_compared_and_keeps_its_numbers(place: Place) -> None:
    place.write(a_md="Ay.", b_md="Bee.")
    place.numbers()
    os.utime(place.folder / "a.md", (1, 1))
    assert place.numbers() == {"a.md": [1], "b.md": [2]}
    assert place.read == ["a.md"]
    place.numbers()
    assert place.read == []


def test_a_change_that_hides_its_time_is_seen(place: Place) -> None:
    place.write(a_md="Old.")
    os.utime(place.folder / "a.md", (1, 1))
    place.numbers()
    place.write(a_md="New.")
    os.utime(place.folder / "a.md", (1, 1))
    documents = place.open()
    assert documents.sources["a.md"].data == b"New."
    documents.close()


def test_a_file_written_as_it_was_read_is_compared_once_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_files, "RACY_NS", 3600 * 10**9)
    place.write(a_md="Ay.")
    place.numbers()
    place.numbers()
    assert place.read == ["a.md"]


def test_what_cannot_be_read_is_remembered_with_its_reason(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(a_md="Ay.", b_txt=b"\xff\xfe\xfa", c_png=b"x", d_md="  ")
    expected = [("b.txt", "not UTF-16 text at byte 2"), ("c.png", ".png is not a document type"), ("d.md", "no text")]
    for read in (["a.md", "b.txt", "d.md"], []):
        documents = place.open()
        assert [tuple(skipped) for skipped in documents.skipped] == expected
        assert place.read == read
        documents.close()
    monkeypatch.setattr(
        index_catalogue, "reader_of", lambda kind: "a newer one" if kind == "text/plain" else "built in"
    )
    place.open().close()
    assert place.read == ["b.txt"]
    place.write(b_txt="Bee.")
    documents = place.open()
    assert list(documents.sources) == ["a.md", "b.txt"]
    documents.close()


def test_a_folder_of_nothing_readable_is_explained(place: Place) -> None:
    with pytest.raises(UserError, match="is empty; it needs files of these types"):
        place.open()
    place.write(a_png=b"x")
    with pytest.raises(UserError, match=r"'a.png' \(.png is not a document type\)"):
        place.open()
    place.write(a_md="Ay.")
    place.open().close()


async def test_results_are_those_of_the_index_in_memory(place: Place) -> None:
    text = "\n\n".join(f"Paragraph {i} of the ferry to Toral." for i in range(80))
    place.write(a_md="Émile founded Velar.\r\n\r\nThe sea is cold.", b_md=text, c_md="Velar is a town.")
    memory, disk = open_documents(place.folder), place.open()
    for arguments in ({"query": "who founded Velar"}, {"query": "paragraph 17 ferry"}, {"query": "zzz"}):
        results = [await open_search(Lookup(each)).call(arguments, CONTEXT) for each in (memory, disk)]
        check_result(results[1])
        assert results[0].content == results[1].content
        assert results[0].passages == results[1].passages
    results = [await open_read(Lookup(each)).call({"source": "b.md#20"}, CONTEXT) for each in (memory, disk)]
    assert results[0] == results[1]
    disk.close()


def test_who_has_it_open_sees_it_as_it_was(place: Place) -> None:
    place.write(a_md="Old ferry.", b_md="Bee.")
    before = place.open()
    place.write(a_md="New ferry.")
    (place.folder / "b.md").unlink()
    after = place.open()
    assert [hit.text for hit in before.corpus.search("ferry", 4)] == ["Old ferry."]
    assert before.sources["a.md"].data == b"Old ferry."
    assert before.corpus.read("b.md")
    assert [hit.text for hit in after.corpus.search("ferry", 4)] == ["New ferry."]
    before.close()
    assert after.sources["a.md"].data == b"New ferry."
    after.close()


@pytest.mark.slow
def test_a_number_never_changes_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred random edits, with changes of engine and damage in between; every number is looked up each time."""
    monkeypatch.setattr(index_files, "RACY_NS", 0)
    rng, place, meaning = random.Random(4), Place(tmp_path, "fts5"), dict[int, tuple[str, str, int, int]]()
    engines: list[Index] = ["fts5", "tantivy"] if index.index_tantivy.installed() else ["fts5"]
    place.write(keep_md="Always here.")
    for step in range(20):
        for _ in range(5):
            path = place.folder / f"{rng.randrange(8)}.md"
            if rng.random() < 0.3:
                path.unlink(missing_ok=True)
            else:
                path.write_text("\n\n".join(f"{rng.choice('abcd')} passage." for _ in range(rng.randrange(1, 4))))
        if step % 7 == 6:
            place.database().write_bytes(b"no database")
        documents = place.open(rng.choice(engines))
        for n, what in _meaning(documents).items():
            assert meaning.setdefault(n, what) == what
        documents.close()
    assert len(meaning) > 50


def test_the_index_is_kept_private_and_apart(place: Place) -> None:
    place.write(a_md="Ay.")
    place.numbers()
    other = place.folder.parent / "other"
    other.mkdir()
    (other / "b.md").write_text("Bee.")
    open_documents(other, home=place.home).close()
    assert place.numbers() == {"a.md": [1]}
    assert len(list((place.home / "indexes").glob("*.sqlite"))) == 2
    assert (place.home / "indexes").stat().st_mode & 0o077 == 0


def _replaced(path: Path, data: bytes) -> None:
    """Other bytes in its place. Tantivy's threads may still map the old ones, whose change would end this process."""
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.replace(path)


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _scribbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(255 - byte for byte in data[4096:])
    path.write_bytes(data)


def _older(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def _without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE texts")
    db.close()


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_bytes(b"junk" * 999), _truncated, _scribbled, _without_a_table]
)
def test_a_damaged_index_is_built_again_and_says_so(place: Place, harm: Callable[[Path], None]) -> None:
    place.write(**{f"{name}_md": f"Ferry {name}.\n\n{'word ' * 900}" for name in "abcdef"})
    last = max(max(numbers) for numbers in place.numbers().values())
    harm(place.database())
    place.write(g_md="Gee.")
    documents = place.open()
    assert len(documents.notices) == 1
    assert "was damaged" in documents.notices[0]
    assert documents.notices[0].endswith("was built again")
    assert {passage.text for name in "abcdef" for passage in documents.corpus.search(f"Ferry {name}", 1)}
    assert min(_meaning(documents)) == last + 1
    documents.close()
    assert place.open().notices == ()
    assert len(list((place.home / "indexes").glob("*.sqlite"))) == 1


def test_an_index_of_another_version_is_built_again(place: Place) -> None:
    place.write(a_md="Ay.")
    place.numbers()
    _older(place.database())
    documents = place.open()
    assert documents.notices == (f"the index of {str(place.folder)!r} is of another version and was built again",)
    assert list(_meaning(documents)) == [2]
    documents.close()


async def test_damage_that_a_look_up_meets_is_a_fault_and_repaired_at_the_next_opening(tmp_path: Path) -> None:
    place = Place(tmp_path, "fts5")
    place.write(**{f"{n}_md": f"Ferry {n}. " + "word " * 2_000 for n in range(100)})
    place.numbers()
    with sqlite3.connect(place.database()) as db:
        db.execute("UPDATE texts SET data = CAST('forged' AS BLOB)")
    db.close()
    documents = place.open()
    with pytest.raises(ToolFault, match=r"the stored text of '7\.md' is damaged"):
        await open_search(Lookup(documents)).call({"query": "ferry 7"}, CONTEXT)
    documents.close()
    documents = place.open()
    assert "was damaged" in documents.notices[0]
    check_result(await open_search(Lookup(documents)).call({"query": "ferry 7"}, CONTEXT))
    documents.close()


@pytest.mark.slow
def test_a_damaged_tantivy_index_is_built_again_under_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tantivy")
    place = Place(tmp_path, "tantivy")
    place.write(a_md="Ay.", b_md="Bee.")
    numbers = place.numbers()
    for pattern in ("*.store", "*.idx", "meta.json"):
        for path in place.database().with_suffix(".tantivy").glob(pattern):
            _replaced(path, b"junk" * 99)
        documents = place.open()
        assert "tantivy" in documents.notices[0]
        assert [hit.source for hit in documents.corpus.search("bee", 1)] == ["b.md"]
        documents.close()
        assert place.numbers() == numbers


@pytest.mark.slow
async def test_damage_that_a_look_up_in_tantivy_meets_is_a_fault_and_repaired(tmp_path: Path) -> None:
    pytest.importorskip("tantivy")
    place = Place(tmp_path, "tantivy")
    place.write(**{f"{n}_md": f"Ferry {n}. " + f"word{n} " * 40 for n in range(200)})
    place.numbers()
    (store,) = place.database().with_suffix(".tantivy").glob("*.store")
    data = bytearray(store.read_bytes())
    data[: len(data) // 2] = bytes(255 - byte for byte in data[: len(data) // 2])
    _replaced(store, data)
    documents = place.open()
    with pytest.raises(ToolFault, match="the index of the documents failed"):
        for n in range(200):
            await open_search(Lookup(documents)).call({"query": f"word{n}"}, CONTEXT)
    documents.close()
    documents = place.open()
    assert "was damaged" in documents.notices[0]
    assert (await open_search(Lookup(documents)).call({"query": "word7"}, CONTEXT)).passages
    documents.close()


def test_the_engine_can_be_changed_and_is_chosen_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tantivy")
    place = Place(tmp_path, "auto")
    place.write(a_md="Ay.\n\nBee.\n\nSea.", b_md="Dee.")
    numbers = place.numbers()
    for engine, kind in (
        ("auto", "Corpus"),
        ("tantivy", "TantivyCorpus"),
        ("auto", "TantivyCorpus"),
        ("fts5", "Corpus"),
    ):
        documents = place.open(engine)  # type: ignore[arg-type]
        assert type(documents.corpus).__name__ == kind
        documents.close()
        assert place.numbers() == numbers
    monkeypatch.setattr(index, "AUTO_PASSAGES", 3)
    documents = place.open()
    assert isinstance(documents.corpus, TantivyCorpus)
    assert [passage.n for passage in documents.corpus.search("bee", 1)] == [2]
    documents.close()
    monkeypatch.setattr(index.index_tantivy, "installed", lambda: False)
    assert place.numbers() == numbers
    with pytest.raises(UserError, match=r"pip install 'researcher-orchestrator\[tantivy\]'"):
        place.open("tantivy")


@pytest.mark.parametrize("home", ["a file", "a file/below", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_leaves_the_index_in_memory(tmp_path: Path, home: str) -> None:
    place = Place(tmp_path, "fts5")
    place.write(a_md="Ay.")
    (tmp_path / "a file").write_text("")
    place.home = tmp_path / home
    documents = place.open()
    assert documents.notices[0].startswith(
        f"the index of {str(place.folder)!r} cannot be kept in {str(place.home)!r} ("
    )
    assert documents.notices[0].endswith("); it is held in memory")
    assert [passage.n for passage in documents.corpus.read("a.md")] == [1]


def test_a_full_disk_leaves_the_index_in_memory_and_the_old_one_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(a_md="Ay.")
    place.numbers()
    real = index._connect

    def small(path: Path) -> sqlite3.Connection:
        db = real(path)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    with monkeypatch.context() as patch:
        patch.setattr(index, "_connect", small)
        place.write(b_md="Bee. " * 20_000)
        documents = place.open()
        assert "database or disk is full" in documents.notices[0]
        assert list(documents.sources) == ["a.md", "b.md"]
        documents.close()
    assert place.numbers()["a.md"] == [1]
    assert place.open().notices == ()


def test_who_cannot_get_the_lock_goes_on_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, "fts5")
    place.write(a_md="Ay.")
    place.numbers()
    (lock,) = (place.home / "indexes").glob("*.lock")
    monkeypatch.setattr(index, "LOCK_SECONDS", 0.0)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        documents = place.open()
    assert "another process has been indexing the same folder for long" in documents.notices[0]


_OPEN_ALL = """
import json, sys
from pathlib import Path
from researcher_tools.documents import open_documents
documents = open_documents(Path(sys.argv[1]), home=Path(sys.argv[2]), index=sys.argv[3])
print(json.dumps({name: [p.n for p in documents.corpus.read(name)] for name in documents.sources}))
"""

_KILLED = """
import json, os, signal, sys
from pathlib import Path
from researcher_tools import index, index_catalogue
from researcher_tools.documents import open_documents

folder, root, engine = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
index_catalogue._COMMIT_FILES = 10
real = index._connect

def opened(home):
    documents = open_documents(folder, home=home, index=engine)
    assert not documents.notices, documents.notices
    assert len(documents.corpus.search("ferry", 1000)) == len(documents.sources)
    return {name: [p.n for p in documents.corpus.read(name)] for name in documents.sources}

def forked(work):
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), json.loads(data or "null")

def killed_at(statement, home):
    count = 0
    def connect(path):
        db = real(path)
        def traced(sql):
            nonlocal count
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)
        db.set_trace_callback(traced)
        return db
    index._connect = connect
    opened(home)
    return count

total = forked(lambda: killed_at(0, root / "whole"))[1]
for statement in range(1, total, max(1, total // 12)):
    home = root / str(statement)
    code, _ = forked(lambda: killed_at(statement, home))
    print(json.dumps([code, *forked(lambda: opened(home))]))
"""


def _python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_kill_at_any_statement_loses_nothing_that_the_next_opening_does_not_do(place: Place) -> None:
    for i in range(40):
        (place.folder / f"{i:02}.md").write_text(f"Ferry {i}.")
    child = _python(_KILLED, place.folder, place.home, place.engine)
    trials = [json.loads(line) for line in child.communicate()[0].splitlines()]
    assert child.returncode == 0
    assert len(trials) >= 12
    for killed, code, numbers in trials:
        assert killed == -signal.SIGKILL
        assert code == 0
        assert numbers == {f"{i:02}.md": [i + 1] for i in range(40)}


def test_what_was_committed_before_a_kill_is_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        (place.folder / f"{i:02}.md").write_text(f"Ferry {i}.")
    monkeypatch.setattr(index_catalogue, "_COMMIT_FILES", 10)
    with monkeypatch.context() as patch:

        def reserve(path: Path, number: int, real: Callable[[Path, int], None] = index_catalogue._reserve) -> None:
            real(path, number)
            if number > 21:
                raise KeyboardInterrupt

        patch.setattr(index_catalogue, "_reserve", reserve)
        with pytest.raises(KeyboardInterrupt):
            place.open()
    assert place.numbers() == {f"{i:02}.md": [i + 1] for i in range(30)}
    assert place.read == [f"{i:02}.md" for i in range(20, 30)]


@pytest.mark.slow
def test_processes_that_open_at_once_agree(place: Place) -> None:
    for i in range(300):
        (place.folder / f"{i:04}.md").write_text(f"Ferry {i}.")
    children = [_python(_OPEN_ALL, place.folder, place.home, place.engine) for _ in range(3)]
    answers = [json.loads(child.communicate()[0]) for child in children]
    assert answers == [{f"{i:04}.md": [i + 1] for i in range(300)}] * 3
    assert [child.returncode for child in children] == [0] * 3


def _meaning(documents: Documents) -> Meaning:
    def each() -> Iterator[tuple[int, tuple[str, str, int, int]]]:
        for name, source in documents.sources.items():
            for passage in documents.corpus.read(name):
                assert source.data.decode()[passage.start : passage.end] == passage.text
                assert documents.corpus.passage(passage.n) == passage
                yield passage.n, (name, source.ref.sha256, passage.start, passage.end)

    return dict(each())
