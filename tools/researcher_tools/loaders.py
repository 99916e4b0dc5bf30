"""Text out of a file: `load(path, workers)` gives what can be searched and quoted, or says why there is none.

Plain text is decoded here. PDF and HTML are read in a child process under limits: `read_pdf` and `read_html` are what
the child calls.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from researcher_tools.bounded import FunctionFailed, Limits, OutOfBounds, Refused, Workers

MAX_FILE = 20 * 2**20
"""Bytes above which a file is left out."""

TOO_LARGE = f"larger than {MAX_FILE // 2**20} MB"

MAX_TEXT = 5 * 2**20
"""Characters above which an extracted text is left out: a small PDF can unfold into a huge one."""


LIMITS = Limits(seconds=20.0, memory=1024 * 2**20, output=4 * MAX_TEXT)
"""What reading one PDF or HTML page may take."""

TYPES = {
    ".txt": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}
"""The media type of each kind of document, by suffix."""

_BOUNDED = {"text/html": "read_html", "application/pdf": "read_pdf"}
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_CHARSETS = re.compile(r"(windows-?|cp|iso-?8859-|koi8-|latin-?)\w{1,4}|us-ascii|shift_jis|euc-\w\w|gbk?|gb18030|big5")


class Text(NamedTuple):
    """The text of a file as it is stored, and the media type it was read from."""

    text: str
    media_type: str


class Unreadable(Refused):
    """Why a file has no text; a reason for the list of skipped files, not an error of the folder."""


def load(path: Path, workers: Workers) -> Text:
    """The file's text, with `\\n` line ends. Raises Unreadable with a short reason."""
    return read(fetch(path), media_type(path.name), workers)


def media_type(name: str) -> str:
    """What a file of this name is read as. Raises Unreadable where it is no document."""
    suffix = os.path.splitext(name)[1]  # not Path: a folder of 10,000 files asks 10,000 times
    try:
        return TYPES[suffix.lower()]
    except KeyError:
        raise Unreadable(f"{suffix or 'no suffix'} is not a document type") from None


def reader_of(media_type: str) -> str:
    """Which reader gives the text of such a file; another one may give another text."""
    library = {"text/html": "trafilatura", "application/pdf": "pypdf"}.get(media_type)
    if library is None or importlib.util.find_spec(library) is None:
        return "built in"
    return f"{library} {metadata.version(library)}"


def fetch(path: Path) -> bytes:
    """The bytes of a regular file that is not too large. Raises Unreadable."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("not a regular file")
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "cannot be read") from None
    if len(data) > MAX_FILE:
        raise Unreadable(TOO_LARGE)
    return data


def read(data: bytes, media_type: str, workers: Workers) -> Text:
    """The text of these bytes. Raises Unreadable."""
    function = _BOUNDED.get(media_type)
    found = _decode(data) if function is None else _read_in_child(function, data, workers)
    # Lone surrogates come out of broken character maps and references; the stored text must be UTF-8.
    text = found.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise Unreadable("no text")
    if len(text) > MAX_TEXT:
        raise Unreadable(f"more than {MAX_TEXT} characters of text")
    return Text(text, media_type)


def _read_in_child(function: str, data: bytes, workers: Workers) -> str:
    if function == "read_pdf" and importlib.util.find_spec("pypdf") is None:
        raise Unreadable("PDF needs the extra: pip install 'researcher-orchestrator[web]'")
    if not data.strip():
        raise Unreadable("no text")
    try:
        return str(workers.run(f"{__name__}:{function}", data, LIMITS))
    except (Refused, OutOfBounds) as error:
        raise Unreadable(str(error)) from None
    except FunctionFailed as error:
        # A damaged document surfaces as almost any error of its parser.
        if error.kind == "LimitReachedError":
            raise Unreadable("a PDF that unpacks to more than its reader allows") from None
        what = "PDF" if function == "read_pdf" else "HTML"
        raise Unreadable(f"damaged {what} ({error.kind})") from None


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
        if b"\0" in data:
            raise Unreadable("binary")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"not {encoding.removesuffix('-sig').upper()} text at byte {error.start}") from None
    if "\0" in text:
        raise Unreadable("binary")
    return text


def read_html(data: bytes) -> str:
    """The page's main text; trafilatura where it is installed, else every visible block. For a child process."""
    page = _decode_html(data)
    text = None
    if importlib.util.find_spec("trafilatura") is not None:
        import trafilatura

        text = trafilatura.extract(page, include_comments=False, favor_recall=True)
    return text or html_text(page)


def _decode_html(data: bytes) -> str:
    """The page in UTF-8 or UTF-16, else in the charset that it declares; those of `_CHARSETS` and no other codec."""
    try:
        return _decode(data)
    except Unreadable:
        declared = _CHARSET.search(data, 0, 4096)
        name = declared.group(1).decode("ascii", "replace").lower() if declared else ""
        if b"\0" in data or not _CHARSETS.fullmatch(name):
            raise
        try:
            return data.decode("windows-1252" if name == "iso-8859-1" else name)
        except (LookupError, UnicodeDecodeError):
            raise Unreadable(f"not {name} text, which it says it is") from None


def read_pdf(data: bytes) -> str:
    """The text of a PDF's pages, a blank line between them. For a child process."""
    import io

    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("encrypted PDF")
    pages, length = [], 0
    for page in reader.pages:
        pages.append(page.extract_text().strip())
        length += len(pages[-1])
        if length > MAX_TEXT:
            raise Unreadable(f"more than {MAX_TEXT} characters of text")
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise Unreadable("no text layer (a scan?)")
    return text.replace("\0", "")


_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "i", "kbd", "mark", "q", "s", "small"}
    | {"span", "strong", "sub", "sup", "time", "u", "var", "wbr", "font", "label"}
)


def html_text(page: str) -> str:
    """The visible text of a page, a blank line between blocks."""
    parser = _Visible()
    parser.feed(page)
    parser.close()
    blocks = (" ".join(block.split()) for block in "".join(parser.parts).split("\f"))
    return "\n\n".join(block for block in blocks if block)


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Skip to the end of `<![...>`; the parser's own reading of it stops at an unknown keyword."""
        end = self.rawdata.find(">", i)
        return end + 1 if end >= 0 else -1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag == "body":
            self._hidden.clear()  # a head that was never closed hides nothing
        if tag not in _INLINE:
            self.parts.append("\f")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _INLINE:
            self.parts.append("\f")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        if tag not in _INLINE:
            self.parts.append("\f")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(re.sub(r"\f", " ", data))
