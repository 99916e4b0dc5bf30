"""Text out of a file: `load(path)` gives what can be searched and quoted, or says why there is none."""

from __future__ import annotations

import importlib.util
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

MAX_FILE = 20 * 2**20
"""Bytes above which a file is left out."""

MAX_TEXT = 5 * 2**20
"""Characters above which an extracted text is left out: a small PDF can unfold into a huge one."""


class Text(NamedTuple):
    """The text of a file as it is stored, and the media type it was read from."""

    text: str
    media_type: str


class Unreadable(Exception):
    """Why a file has no text; a reason for the list of skipped files, not an error of the folder."""


def load(path: Path) -> Text:
    """The file's text, with `\\n` line ends. Raises Unreadable with a short reason."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unreadable(f"{path.suffix or 'no suffix'} is not a document type")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not a regular file")
        if status.st_size > MAX_FILE:
            raise Unreadable(f"larger than {MAX_FILE // 2**20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or "cannot be read") from None
    found = reader(data)
    # Lone surrogates come out of broken character maps and references; the stored text must be UTF-8.
    text = found.text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise Unreadable("no text")
    if len(text) > MAX_TEXT:
        raise Unreadable(f"more than {MAX_TEXT} characters of text")
    return Text(text, found.media_type)


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


def _plain(data: bytes) -> Text:
    return Text(_decode(data), "text/plain")


def _markdown(data: bytes) -> Text:
    return Text(_decode(data), "text/markdown")


def _html(data: bytes) -> Text:
    """The page's main text; trafilatura where it is installed, else every visible block."""
    page = _decode(data)
    text = None
    if importlib.util.find_spec("trafilatura") is not None:
        import trafilatura

        text = trafilatura.extract(page, include_comments=False, favor_recall=True)
    return Text(text or html_text(page), "text/html")


def _pdf(data: bytes) -> Text:
    if importlib.util.find_spec("pypdf") is None:
        raise Unreadable("PDF needs the extra: pip install 'researcher-orchestrator[web]'")
    import io

    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted PDF")
        pages = [page.extract_text() for page in reader.pages]
    # A damaged PDF surfaces as almost any built-in error of the parser.
    except (PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Unreadable(f"damaged PDF ({type(error).__name__})") from None
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if not text:
        raise Unreadable("no text layer (a scan?)")
    return Text(text.replace("\0", ""), "application/pdf")


READERS: dict[str, Callable[[bytes], Text]] = {
    ".txt": _plain,
    ".rst": _plain,
    ".md": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
"""How each type of document is read, by suffix."""

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
