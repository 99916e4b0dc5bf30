from __future__ import annotations

import io
import os
import sqlite3
from pathlib import Path

import pytest
from researcher_tools import Documents, open_corpus, open_documents
from researcher_tools.corpus import NO_MATCH
from researcher_tools.loaders import MAX_FILE, html_text
from researcher_tools.lookup import INLINE_BYTES, Lookup
from researcher_tools.read import MAX_CHARACTERS, open_read
from researcher_tools.search import MAX_QUERY, open_search

from researcher.errors import ToolError, ToolFault, UserError
from researcher.testing.tool_conformance import CONTEXT, check_result

pytestmark = pytest.mark.anyio


def _folder(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"b.md": "Bee.", "a/z.txt": "Zed.\r\n\r\nTwo.", "c.rst": "Sea.", "a/b.md": "\ufeffAy."})
    documents = open_documents(folder)
    assert list(documents.sources) == ["a/b.md", "a/z.txt", "b.md", "c.rst"]
    assert [documents.corpus.passage(n).text for n in range(1, 6)] == ["Ay.", "Zed.", "Two.", "Bee.", "Sea."]  # type: ignore[union-attr]
    assert documents.sources["a/z.txt"].data == b"Zed.\n\nTwo."
    assert [source.ref.media_type for source in documents.sources.values()][:2] == ["text/markdown", "text/plain"]
    assert open_corpus(folder).sources() == ["a/b.md", "a/z.txt", "b.md", "c.rst"]


def test_what_is_left_out_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path / "docs",
        {
            "good.md": "Good.",
            "latin.txt": "caf\xe9 latin".encode("latin-1"),
            "image.png": b"\x89PNG",
            "zeros.txt": b"a\0b",
            "blank.md": " \n",
            "bad.pdf": b"%PDF-1.4 nothing",
            ".hidden.md": "Hidden.",
            ".git/config.md": "Hidden.",
            "new\nline.md": "Forged.",
            "narrow\u202fspace.md": "Good too.",
            "wide.txt": "Wide.".encode("utf-16"),
        },
    )
    _folder(tmp_path, {"secret.txt": "Secret."})
    (folder / "loop").symlink_to(folder)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(folder / "pipe.txt")
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    documents = open_documents(folder)
    assert list(documents.sources) == ["good.md", "narrow\u202fspace.md", "wide.txt"]
    reasons = dict(documents.skipped)
    assert reasons.pop("bad.pdf").startswith("damaged PDF")
    assert reasons == {
        "blank.md": "no text",
        "huge.txt": "larger than 20 MB",
        "image.png": ".png is not a document type",
        "loop/": "a link to a folder",
        "latin.txt": "not UTF-8 text at byte 3",
        "link.txt": "a link that leaves the folder",
        "new\nline.md": "its name has control characters or is not UTF-8",
        "pipe.txt": "not a regular file",
        "zeros.txt": "binary",
    }


def test_folders_without_a_document_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "file.md"
    with pytest.raises(UserError, match="There is no document folder"):
        open_documents(tmp_path / "absent")
    file.write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        open_documents(file)
    with pytest.raises(UserError, match=r"is empty; it needs files of these types: .*\.md"):
        open_documents(_folder(tmp_path / "empty", {"sub/.keep": ""}))
    with pytest.raises(UserError, match=r"skipped: 'a.png' \(.png is not a document type\), .* and 2 more\.") as caught:
        open_documents(_folder(tmp_path / "images", {f"{c}.png": b"\x89" for c in "abcdefg"}))
    assert "\n" not in str(caught.value)


def test_an_unreadable_folder_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # modes bind everybody but root, who runs some tests
    with pytest.raises(UserError, match="cannot be read; check its permissions"):
        open_documents(_folder(tmp_path, {"a.md": "A."}))


def test_html_without_a_library_keeps_the_visible_blocks() -> None:
    page = (
        "<head><title>T</title></head><h1>Velar</h1><p>Founded by <b>Ann</b>&nbsp;&amp; co.<script>x</script><p>1&lt;2"
    )
    assert html_text(page) == "Velar\n\nFounded by Ann & co.\n\n1<2"


@pytest.mark.parametrize(
    "page", ["<![xyz[ a ]]><p>b", "<p>b<![if", "<!--[if IE]>x<![endif]--><p>b", "<!doctype <p>b</p>x>b"]
)
def test_malformed_html_does_not_stop_a_folder(page: str) -> None:
    assert "b" in html_text(page)


@pytest.mark.slow
def test_html_is_read(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"a.html": "<html><body><p>The ferry to Toral leaves at nine.</p></body></html>"})
    documents = open_documents(folder)
    assert "The ferry to Toral leaves at nine." in documents.sources["a.html"].data.decode()
    assert documents.sources["a.html"].ref.media_type == "text/html"


def test_pdf_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    documents = open_documents(_folder(tmp_path, {"a.pdf": _pdf("The ferry leaves at nine.")}))
    assert documents.sources["a.pdf"].data == b"The ferry leaves at nine."
    assert documents.sources["a.pdf"].ref.media_type == "application/pdf"


def test_an_encrypted_pdf_says_so(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(UserError, match=r"'a.pdf' \(encrypted PDF\)"):
        open_documents(_folder(tmp_path, {"a.pdf": out.getvalue()}))


async def test_search_gives_numbered_passages_that_point_into_their_sources() -> None:
    documents = Documents.from_texts({"é.md": "Émile founded Velar.\n\nThe sea is cold.", "b.md": "Velar is a town."})
    result = await open_search(Lookup(documents)).call({"query": "who founded Velar"}, CONTEXT)
    check_result(result)
    assert result.content == "[1] é.md: Émile founded Velar.\n[3] b.md: Velar is a town."
    texts = {source.ref.sha256: source.data.decode() for source in result.sources}
    assert [texts[p.sha256][p.start : p.end] for p in result.passages] == ["Émile founded Velar.", "Velar is a town."]


@pytest.mark.parametrize("query", ["", "?!", '"', "NEAR(", "x AND", "_", "\0", "\ud800", "body:x", "zzz", "'; DROP"])
async def test_no_query_is_an_error_of_the_index(query: str) -> None:
    search = open_search(Lookup(Documents.from_texts({"a.md": "The ferry leaves."})))
    assert (await search.call({"query": query}, CONTEXT)).content == NO_MATCH


async def test_an_endless_query_is_refused() -> None:
    search = open_search(Lookup(Documents.from_texts({"a.md": "x"})))
    with pytest.raises(ToolError, match=f"at most {MAX_QUERY} can be searched"):
        await search.call({"query": "x " * MAX_QUERY}, CONTEXT)


@pytest.mark.parametrize("size", [1, INLINE_BYTES // 6 + 1])
async def test_a_broken_index_is_a_fault_and_not_an_empty_result(size: int) -> None:
    documents = Documents.from_texts({"a.md": "ferry " * size})
    search, read = open_search(Lookup(documents)), open_read(Lookup(documents))
    documents.close()
    with pytest.raises(ToolFault, match="the index of the documents failed") as caught:
        await search.call({"query": "ferry"}, CONTEXT)
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    with pytest.raises(ToolFault):
        await read.call({"source": "a.md"}, CONTEXT)


async def test_a_large_corpus_is_searched_outside_the_event_loop() -> None:
    text = "\n\n".join(f"Paragraph {i} about the ferry." for i in range(12_000))
    documents = Documents.from_texts({"a.md": text})
    assert documents.size > INLINE_BYTES
    result = await open_search(Lookup(documents)).call({"query": "11000"}, CONTEXT)
    assert result.content == "[11001] a.md: Paragraph 11000 about the ferry."


async def test_read_shows_a_page_and_says_how_to_go_on() -> None:
    paragraphs = [f"Paragraph {i}. " + "word " * 60 for i in range(20)]
    documents = Documents.from_texts({"first.md": "One.", "long.md": "\n\n".join(paragraphs)})
    read = open_read(Lookup(documents))
    source, seen = "long.md", 0
    while source:
        result = await read.call({"source": source}, CONTEXT)
        check_result(result)
        seen += len(result.passages)
        assert sum(p.end - p.start for p in result.passages) <= MAX_CHARACTERS
        _, _, rest = result.content.partition('read "')
        source = rest.partition('"')[0]
    assert seen == 20


async def test_read_offers_the_closest_names() -> None:
    texts = {"toral.md": "Toral.", "velar.md": "Velar.", "a#1.md": "Sharp."}
    read = open_read(Lookup(Documents.from_texts(texts)))
    assert (await read.call({"source": " Toral.MD "}, CONTEXT)).content == "[1] toral.md: Toral."
    assert (await read.call({"source": "a#1.md"}, CONTEXT)).content == "[3] a#1.md: Sharp."
    with pytest.raises(ToolError, match=r"There is no document 'torl'; the closest are toral\.md"):
        await read.call({"source": "torl"}, CONTEXT)
    with pytest.raises(ToolError, match=r"toral\.md has no passage 99; its last one is 1\."):
        await read.call({"source": "toral.md#99"}, CONTEXT)


def _pdf(text: str) -> bytes:
    """A one-page PDF with this line of text, written by hand."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for n, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    table = len(out)
    out += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % table
    return bytes(out)
