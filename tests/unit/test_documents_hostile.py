"""PDF and HTML that real folders hold, and those made to break their readers: listed with a reason, nothing worse."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from researcher_tools import Documents, loaders, open_documents
from researcher_tools.bounded import Limits

from researcher.errors import UserError

pytest.importorskip("pypdf")
pytest.importorskip("trafilatura")
pytestmark = pytest.mark.slow

FONT = b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
FLATE = b"/Filter /FlateDecode"


def _pdf(*objects: bytes, trailer: bytes = b"/Root 1 0 R") -> bytes:
    """These objects, numbered from 1, as a file with a table of where they stand."""
    out, places = bytearray(b"%PDF-1.4\n"), []
    for n, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, table)
    return bytes(out)


def _stream(data: bytes, extra: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), extra, data)


def _text(line: str) -> bytes:
    return _stream(f"BT /F1 12 Tf 20 100 Td ({line}) Tj ET".encode())


def _pages(*contents: bytes) -> bytes:
    """A file with one page for each content."""
    kids = b" ".join(b"%d 0 R" % (3 + 2 * n) for n in range(len(contents)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents))]
    for n, content in enumerate(contents):
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents %d 0 R %s >>" % (4 + 2 * n, FONT)
        objects += [page, content]
    return _pdf(*objects)


def _flate(unit: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(unit) for _ in range(times)) + packer.flush()


GOOD = _pages(_text("The ferry leaves."))
HOSTILE = {
    "half.pdf": GOOD[:300],
    "no-table.pdf": GOOD[: GOOD.index(b"xref")],
    "own-parent.pdf": GOOD.replace(b"[3 0 R]", b"[2 0 R]"),
    "table-in-a-circle.pdf": _pdf(b"<< /Type /Catalog /Pages 2 0 R >>", trailer=b"/Root 1 0 R /Prev 9"),
    "contents-of-itself.pdf": GOOD.replace(b"/Contents 4 0 R", b"/Contents [3 0 R 3 0 R]"),
    "form-of-itself.pdf": _pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        PAGES,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>",
        _stream(b"/X Do"),
        _stream(b"/X Do /X Do", b"/Type /XObject /Subtype /Form /Resources << /XObject << /X 5 0 R >> >>"),
    ),
    "bomb.pdf": _pages(_stream(_flate(b"\0" * 2**20, 256), FLATE)),
    "bomb-in-a-bomb.pdf": _pages(
        _stream(zlib.compress(_flate(b"\0" * 2**20, 512)), b"/Filter [/FlateDecode /FlateDecode]")
    ),
    "deep-array.pdf": _pages(_stream(b"[" * 500_000)),
    "nothing.pdf": b"",
    "nothing.html": b"",
    "blank.htm": b" \n\t",
    "zeros.html": b"<p>\0</p>",
    "not-what-it-says.html": b"<meta charset=utf-8><p>caf\xe9",
    "no-charset.html": b"<meta charset=rot13><p>caf\xe9",
    "script.html": b"<script>" + b"x" * 1_000_000,
    "empty-lists.html": b"<ul><li>" * 1_000,
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    folder = tmp_path_factory.mktemp("hostile")
    for name, data in HOSTILE.items():
        (folder / name).write_bytes(data)
    (folder / "good.pdf").write_bytes(GOOD)
    return open_documents(folder)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_document_is_listed_and_the_others_are_read(hostile: Documents, name: str) -> None:
    reasons = dict(hostile.skipped)
    assert list(hostile.sources) == ["good.pdf"]
    assert set(reasons) == set(HOSTILE)
    assert reasons[name]
    assert "\n" not in reasons[name]
    assert len(reasons[name]) < 100


def test_reasons_say_what_is_wrong(hostile: Documents) -> None:
    reasons = dict(hostile.skipped)
    assert reasons["half.pdf"].startswith("damaged PDF (")
    assert reasons["bomb.pdf"] == "a PDF that unpacks to more than its reader allows"
    assert reasons["nothing.pdf"] == reasons["nothing.html"] == "no text"
    assert reasons["zeros.html"] == "binary"
    assert reasons["not-what-it-says.html"] == "not UTF-8 text at byte 26"


ENDLESS = {
    "endless.pdf": _pages(_stream(b"BT " + b"q " * 4_000_000 + b"(x) Tj ET")),
    "endless.html": b"<p>ferry x" * 400_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_document_is_given_up_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loaders, "LIMITS", Limits(seconds=1.0))
    (tmp_path / name).write_bytes(ENDLESS[name])
    with pytest.raises(UserError, match=rf"'{name}' \(took more than 1 s\)"):
        open_documents(tmp_path)


def test_a_document_that_takes_all_memory_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "LIMITS", Limits(memory=150 * 2**20))
    (tmp_path / "greedy.pdf").write_bytes(_pages(_stream(_flate(b"(x)" * 2**20, 22), FLATE)))
    with pytest.raises(UserError, match=r"'greedy\.pdf' \(needs more than 150 MB of memory\)"):
        open_documents(tmp_path)


def test_pages_of_a_pdf_are_passages_that_can_be_cited(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(_pages(*(_text(f"Page {n} of the ferry.") for n in range(30))))
    (tmp_path / "mended.pdf").write_bytes(GOOD.replace(b"startxref\n", b"startxref\n9999"))
    documents = open_documents(tmp_path)
    assert documents.skipped == ()
    (hit,) = documents.corpus.search("page 17", 1)
    assert hit.text == "Page 17 of the ferry."
    assert documents.sources["a.pdf"].data.decode()[hit.start : hit.end] == hit.text
    assert documents.sources["mended.pdf"].data == b"The ferry leaves."


def test_a_page_gives_its_article_and_not_its_menus(tmp_path: Path) -> None:
    article = "".join(f"<p>Paragraph {n}: the ferry to Toral leaves at nine and returns at noon.</p>" for n in range(8))
    menu = "<nav><ul>" + "<li><a href='/x'>Imprint</a></li>" * 20 + "</ul></nav>"
    page = f"<html><head><title>T</title><style>p {{}}</style></head><body>{menu}<article><h1>Ferries</h1>{article}"
    (tmp_path / "a.html").write_text(page + "</article><footer>Imprint</footer></body></html>")
    (tmp_path / "latin.html").write_bytes("<meta charset='iso-8859-1'><p>Caf\xe9 “Toral”</p>".encode("cp1252"))
    (tmp_path / "deep.html").write_bytes(b"<div>" * 3_000 + b"Deep ferry." + b"</div>" * 3_000)
    documents = open_documents(tmp_path)
    assert documents.skipped == ()
    text = documents.sources["a.html"].data.decode()
    assert "Paragraph 7: the ferry to Toral leaves at nine and returns at noon." in text
    assert "Imprint" not in text
    assert documents.sources["latin.html"].data.decode() == "Café “Toral”"
    assert "Deep ferry." in documents.sources["deep.html"].data.decode()


def test_a_swap_of_a_file_for_a_pipe_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from researcher_tools import index_files

    path = tmp_path / "a.md"
    path.write_text("Ay.")

    def swapped(at: Path, real: Callable[[Path], bytes] = index_files.fetch) -> bytes:
        path.unlink()
        os.mkfifo(path)
        return real(at)

    monkeypatch.setattr(index_files, "fetch", swapped)
    with pytest.raises(UserError, match=r"'a\.md' \(not a regular file\)"):
        open_documents(tmp_path)
