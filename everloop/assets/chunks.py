"""Cutting documents into passages along their structure: sections first, then paragraphs, then sentences, and only then words.

A passage lies within one section (short sections with the same parent share one), holds at most `chars` characters, and begins with whole
sentences, up to `overlap` characters, from the end of the passage before it in the section. The same text and parameters give the same passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from everloop.assets.text import Document
from everloop.core.errors import BadInput
from everloop.core.limits import CHUNK_CHARS

_NEXT = r"\s+(?=[\"'“‘(\[]?[A-Z0-9À-Þ])"
_SENTENCE = re.compile(rf"(?<=[.!?…]){_NEXT}|(?<=[.!?…][\"'”’)\]]){_NEXT}|\n")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
Span = tuple[int, int]


def chunk(document: Document, chars: int = 800, overlap: int = 120) -> list[dict[str, Any]]:
    """The passages of a document: {"chunk", "document", "path", "title", "heading", "position", "start", "end", "page", "text"} each.

    `chunk` is `<document>#<position>`; `heading` the path of headings above ("Install > Linux"); `start` and `end` are offsets in the
    document's text. BadInput for a size out of CHUNK_CHARS, or an overlap over half of it.
    """
    low, high = CHUNK_CHARS
    if not low <= chars <= high:
        raise BadInput(f"Passages of {chars} characters cannot be.", f"chars must be from {low} to {high}.")
    if not 0 <= overlap <= chars // 2:
        raise BadInput(f"An overlap of {overlap} characters does not fit passages of {chars}.", f"overlap must be from 0 to {chars // 2}.")
    made: list[dict[str, Any]] = []
    for start, end, heading in sections(document, chars):
        for a, b in pack(document.text, start, end, chars, overlap):
            text = document.text[a:b]
            if not any(c.isalnum() for c in text):
                continue
            position = len(made)
            entry = {"chunk": f"{document.path}#{position}", "document": document.path, "path": document.path, "title": document.title}
            entry |= {"heading": heading, "position": position, "start": a, "end": b, "page": document.page_at(a), "text": text}
            made.append(entry)
    return made


def chunks(documents: Iterable[dict[str, Any]], chars: int = 800, overlap: int = 120) -> Iterator[dict[str, Any]]:
    """The passages of many documents (dicts as in a documents dataset), in order."""
    for body in documents:
        yield from chunk(Document.from_json(body), chars, overlap)


def sections(document: Document, chars: int) -> list[tuple[int, int, str]]:
    """(start, end, heading path) of each part between headings; a short part joins the one before it, if together they fit in one passage
    and the later is not of a higher level; a heading with nothing below it joins the part that follows."""
    text = document.text
    found: list[tuple[int, int, str, int]] = []
    path: list[tuple[int, str]] = []
    bounds = [(at, level) for at, level in document.headings if at < len(text)]
    if not bounds or bounds[0][0] > 0:
        found.append((0, bounds[0][0] if bounds else len(text), "", 0))
    for i, (at, level) in enumerate(bounds):
        end = bounds[i + 1][0] if i + 1 < len(bounds) else len(text)
        path = [p for p in path if p[0] < level] + [(level, text[at:end].split("\n", 1)[0].strip())]
        found.append((at, end, " > ".join(name for _, name in path), level))
    joined: list[tuple[int, int, str, int]] = []
    for part in found:
        if joined and part[3] > joined[-1][3] and "\n" not in text[joined[-1][0] : joined[-1][1]].strip():  # a heading alone leads what follows
            joined[-1] = (joined[-1][0], *part[1:])
        elif joined and part[3] >= joined[-1][3] and part[1] - joined[-1][0] <= chars // 2:
            before = joined[-1]
            joined[-1] = (before[0], part[1], before[2] or part[2], before[3] or part[3])
        else:
            joined.append(part)
    full = [part for part in joined if not part[3] or "\n" in text[part[0] : part[1]].strip()]  # a heading alone says nothing
    return [(start, end, heading) for start, end, heading, _ in full or joined]


def pack(text: str, start: int, end: int, chars: int, overlap: int) -> list[Span]:
    """Spans of at most `chars` characters that cover text[start:end], cut between paragraphs, sentences or words, overlapping by whole sentences."""
    units = [u for a, b in _split(text, start, end, _PARAGRAPH) for u in _units(text, a, b, chars)]
    spans: list[Span] = []
    first = 0
    while first < len(units):
        last = first
        while last + 1 < len(units) and units[last + 1][1] - units[first][0] <= chars:
            last += 1
        spans.append((units[first][0], units[last][1]))
        if last + 1 >= len(units):
            break
        following = last + 1
        while following - 1 > first and units[last][1] - units[following - 1][0] <= overlap and units[last + 1][1] - units[following - 1][0] <= chars:
            following -= 1
        first = following
    return spans


def _units(text: str, start: int, end: int, chars: int) -> list[Span]:
    """A paragraph's sentences (lines of lists and code count as such); those over `chars` are cut at spaces."""
    found: list[Span] = []
    for a, b in _split(text, start, end, _SENTENCE):
        while b - a > chars:
            cut = text.rfind(" ", a + chars // 2, a + chars)
            cut = cut if cut > a else a + chars
            found.extend(_trim(text, a, cut))
            a = cut
        found.extend(_trim(text, a, b))
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a text, trimmed."""
    return [text[a:b] for a, b in _split(text, 0, len(text), _SENTENCE)]


def _split(text: str, start: int, end: int, by: re.Pattern[str]) -> list[Span]:
    found: list[Span] = []
    at = start
    for match in by.finditer(text, start, end):
        found.extend(_trim(text, at, match.start()))
        at = match.end()
    found.extend(_trim(text, at, end))
    return found


def _trim(text: str, start: int, end: int) -> list[Span]:
    """The span without white space around it; nothing where it is all white space."""
    while end > start and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return [(start, end)] if end > start else []
