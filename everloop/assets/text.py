"""A document's text with its structure: what readers build and chunking cuts.

The text is plain: headings are lines of their own, and `headings` says where they start and how deep they are; so a `#` in a code sample is
no heading. `pages` says where pages start, for formats that have them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import DOCUMENT_CHARS

_SPACES = re.compile(r"[^\S\n]+")
_BLANK = re.compile(r"\n{3,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\u200b\u2060\ufffe\uffff]")


class Document:
    """The text of one file. Offsets are in characters of `text`; `pages[i]` is where page i+1 starts (empty: the format has no pages).

    The text is kept in pieces while it grows, so that a long document is read in a time that grows with its length only.
    """

    def __init__(
        self, path: str, type: str, title: str = "", text: str = "", headings: Iterable[tuple[int, int]] = (), pages: Iterable[int] = ()
    ) -> None:
        self.path, self.type, self.title = path, type, title
        self.headings, self.pages = list(headings), list(pages)
        self.notes: list[str] = []
        self._pieces = [text] if text else []
        self.size = len(text)

    @property
    def text(self) -> str:
        """All of it."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def end(self) -> str:
        """Its last character."""
        return self._pieces[-1][-1:] if self._pieces else ""

    def add(self, block: str, level: int = 0) -> None:
        """Append a paragraph, or a heading of a level from 1 to 6. BadInput where the document grows over DOCUMENT_CHARS."""
        block = tidy(block) if not level else _SPACES.sub(" ", block.replace("\n", " ")).strip()
        if not block:
            return
        if self.size:
            self._append("\n\n")
        if level:
            self.headings.append((self.size, level))
        self._append(block)

    def extend(self, text: str) -> None:
        """Go on with the last paragraph, after a space."""
        self._append(" " + tidy(text))

    def _append(self, text: str) -> None:
        if self.size + len(text) > DOCUMENT_CHARS:
            raise BadInput(f"it holds over {DOCUMENT_CHARS:,} characters of text; cut it into several files")
        self._pieces.append(text)
        self.size += len(text)

    def page_at(self, offset: int) -> int | None:
        """The page, from 1, that holds this character; None without pages."""
        return max(1, bisect_right(self.pages, offset)) if self.pages else None

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `id` is the path."""
        return {
            "id": self.path,
            "path": self.path,
            "title": self.title,
            "type": self.type,
            "text": self.text,
            "headings": [list(h) for h in self.headings],
            "pages": self.pages,
        }

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Document:
        """The inverse of `to_json`."""
        headings = [(int(a), int(b)) for a, b in body.get("headings") or ()]
        return cls(body["path"], body.get("type", "text"), body.get("title", ""), body["text"], headings, body.get("pages") or ())


def tidy(text: str) -> str:
    """Without control characters, spaces at the end of lines and more than one blank line."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))
    lines = [line.rstrip() for line in text.split("\n")]
    return _BLANK.sub("\n\n", "\n".join(lines)).strip("\n")


def squeeze(text: str) -> str:
    """One line, single spaces."""
    return " ".join(_CONTROL.sub("", text).split())


def title_of(path: str, *candidates: str | None) -> str:
    """The first candidate that can be a title, cut to 200 characters; else the file's name in words."""
    for candidate in candidates:
        found = squeeze(candidate or "")
        if found and any(c.isalpha() for c in found):
            return found if len(found) <= 200 else found[:199].rstrip() + "…"
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(re.split(r"[\s_-]+", stem)).strip() or path


def decode(data: bytes, declared: str = "") -> tuple[str, str]:
    """Bytes as text, and the encoding: a byte-order mark, what is declared, UTF-8, else Windows-1252. BadInput where it is no text at all."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            try:
                return data.decode(name), name
            except UnicodeDecodeError:
                break
    for name in (declared, "utf-8"):
        try:
            if name:
                text = data.decode(name)
                break
        except (UnicodeDecodeError, LookupError, ValueError):
            continue
    else:
        text, name = data.decode("cp1252", "replace"), "cp1252"
    odd = sum(text.count(c) for c in "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f\x10\x11\x12\x14\x15\ufffd")
    if odd > max(2, len(text) // 100):
        raise BadInput("its bytes are not text; give it a suffix that says what it is, or leave it out")
    return text, name


def opened(path: str, type: str, data: bytes) -> tuple[Document, str]:
    """An empty document for a plain file, and the file's text; a note says where the encoding had to be guessed."""
    text, encoding = decode(data)
    document = Document(path, type)
    if encoding == "cp1252":
        document.notes.append("not UTF-8: read as Windows-1252")
    return document, text
