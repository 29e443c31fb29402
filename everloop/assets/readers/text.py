"""Plain text; underlined and numbered lines are kept as they are. Encodings: byte-order marks, UTF-8, else Windows-1252 (and a note says so)."""

from __future__ import annotations

from everloop.assets.readers import readers
from everloop.assets.text import Document, opened, tidy, title_of


@readers.add("txt")
@readers.add("text")
@readers.add("rst")
@readers.add("log")
def read(path: str, data: bytes) -> Document:
    """The text as it is; its first line is the title where it is short."""
    document, text = opened(path, "text", data)
    text = tidy(text)
    first = next((line for line in text.split("\n") if line.strip()), "")
    document.title = title_of(path, first if len(first) <= 120 else None)
    document.add(text)
    return document
