"""PDF through pypdfium2: text by page, so that a passage can say its page; headings by the size of their letters.

Scans without a text layer are told apart from empty files.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from everloop.assets.readers import readers
from everloop.assets.text import Document, tidy, title_of
from everloop.core.errors import BadInput
from everloop.core.limits import PDF_PAGES, PDF_SECONDS

LOCK = threading.Lock()
"""PDFium is not safe to use from two threads at once: whoever uses it in a process holds this."""
_UNTITLED = re.compile(r"untitled|unbenannt|^microsoft word|\.(?:docx?|tex|dvi|indd|pdf|pptx?)$", re.IGNORECASE)
_ERRORS = {
    3: "it is not a PDF, or it is damaged; open it in a viewer and save it again",
    4: "it is encrypted with a password; save a copy without one",
}
_CONTENTS = re.compile(r"(?:[.·_]\s?){4,}\s*(?:\d{1,4}|[ivxlc]{1,6})$")
"""A line of a table of contents or an index: it says where something is said, and says nothing itself."""
_DOTS = re.compile(r"(?:[.·_]\s?){4,}")
_DIGITS = re.compile(r"\d+")
_BREAK = re.compile(r"[\u00ad\ufffe\x02-]$")
_ITEM = re.compile(r"^(?:[•◦▪‣·–*-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")
HEADING_CHARS = 120
HEADING_SIZE = 1.12
"""A line whose letters are larger than most by this factor is a heading."""


@dataclass
class Line:
    """A line of a page as it is set; `size` of its letters in points, 0 where unknown."""

    text: str
    size: float = 0.0


@readers.add("pdf")
def read(path: str, data: bytes) -> Document:
    """The text of all pages; title: the PDF's own, else its first heading or line. BadInput: damaged, encrypted, no pages, no text (a scan), too many."""
    import pypdfium2

    document = Document(path, "pdf")
    with LOCK:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise BadInput(_ERRORS.get(getattr(error, "err_code", 0) or 0, f"it cannot be opened ({error}); save it again from a viewer")) from None
        try:
            pages, declared = _pages(pdf, document), str(pdf.get_metadata_dict().get("Title") or "")
        finally:
            pdf.close()
    levels, running = _levels(pages), _running(pages)
    for page in pages:
        page[:] = [x for i, x in enumerate(page) if x.size in levels or not (_edge(i, page) and _number_free(x.text) in running)]
        document.pages.append(document.size)
        _flow(page, document, levels)
    if not document.text.strip():
        raise BadInput(f"its {len(pages)} pages hold no text (a scan?); run text recognition (OCR) over it first")
    largest = min(document.headings, key=lambda h: (h[1], h[0]), default=(0, 0))[0]
    first = document.text[largest:].split("\n", 1)[0]
    document.title = title_of(path, None if _UNTITLED.search(declared.strip()) else declared, first if len(first) <= 150 else None)
    return document


def _pages(pdf: Any, document: Document) -> list[list[Line]]:
    """The lines of all pages; what could not be read is noted in the document."""
    count = len(pdf)
    if count == 0:
        raise BadInput("it has no pages")
    if count > PDF_PAGES:
        raise BadInput(f"it has {count:,} pages; at most {PDF_PAGES:,} are read: cut it into several files")
    started, failed, pages = time.monotonic(), [], []
    for number in range(count):
        if time.monotonic() - started > PDF_SECONDS:
            raise BadInput(f"reading stopped after {PDF_SECONDS:.0f} s at page {number + 1} of {count}; cut it into several files")
        lines = _page(pdf, number)
        if lines is None:
            failed.append(number + 1)
        pages.append(lines or [])
    if failed and len(failed) == count:
        raise BadInput("none of its pages can be read; it is damaged: open it in a viewer and save it again")
    if failed:
        document.notes.append(f"pages that could not be read: {', '.join(map(str, failed[:20]))}")
    return pages


def _page(pdf: Any, number: int) -> list[Line] | None:
    """The lines of one page with the size of their first letter; None where the page is damaged."""
    import pypdfium2

    try:
        page = pdf[number]
        try:
            text_page = page.get_textpage()
            try:
                text = str(text_page.get_text_range())
                known = len(text) == text_page.count_chars()
                lines, at = [], 0
                for raw in text.split("\n"):
                    shown = tidy(raw).strip()
                    first = at + len(raw) - len(raw.lstrip())
                    lines.append(Line(shown, _size(text_page, first) if known and shown else 0.0))
                    at += len(raw) + 1
                return lines
            finally:
                text_page.close()
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return None


def _size(text_page: Any, index: int) -> float:
    import pypdfium2.raw as raw

    return round(float(raw.FPDFText_GetFontSize(text_page.raw, index)), 1)


def _levels(pages: list[list[Line]]) -> dict[float, int]:
    """Sizes of letters that are headings, with their levels: the largest is 1, four at most."""
    seen: Counter[float] = Counter()
    for page in pages:
        for line in page:
            seen[line.size] += len(line.text)
    if not seen or seen.most_common(1)[0][0] <= 0:
        return {}
    usual = seen.most_common(1)[0][0]
    larger = sorted((size for size in seen if size > usual * HEADING_SIZE), reverse=True)
    return {size: min(4, i + 1) for i, size in enumerate(larger)}


def _running(pages: list[list[Line]]) -> set[str]:
    """Lines that stand at the top or the bottom of most pages (page numbers, the book's name), their digits left out."""
    if len(pages) < 4:
        return set()
    seen = Counter(text for page in pages for text in {_number_free(line.text) for i, line in enumerate(page) if line.text and _edge(i, page)})
    return {text for text, n in seen.items() if n > len(pages) / 2}


def _edge(i: int, page: list[Line]) -> bool:
    """Whether line i is among the first two or last two that are not empty."""
    filled = [j for j, line in enumerate(page) if line.text]
    return i in filled[:2] or i in filled[-2:]


def _number_free(text: str) -> str:
    return _DIGITS.sub("#", text)


def _flow(lines: list[Line], document: Document, levels: dict[float, int]) -> None:
    """A page's lines joined to paragraphs: a line ends its paragraph where it is short, or where an item of a list or a heading follows."""
    lines = [Line(_DOTS.sub(" … ", line.text), line.size) for line in lines if not _CONTENTS.search(line.text)]
    widths = sorted(len(line.text) for line in lines if line.text)
    if not widths:
        return
    full = widths[int(len(widths) * 0.8)] * 0.75
    parts: list[str] = []
    before = document.size

    def flush() -> None:
        text = "".join(parts).strip()
        parts.clear()
        if text[:1].islower() and document.end.isalpha() and document.size == before:
            document.extend(text)
        else:
            document.add(text)

    i = 0
    while i < len(lines):
        line = lines[i]
        level = levels.get(line.size, 0)
        if level and len(line.text) <= HEADING_CHARS and any(c.isalpha() for c in line.text):
            flush()
            while i + 1 < len(lines) and lines[i + 1].size == line.size and len(line.text) + len(lines[i + 1].text) < HEADING_CHARS:
                i += 1
                line = Line(f"{line.text} {lines[i].text}", line.size)
            document.add(line.text, level)
        elif not line.text:
            flush()
        elif _BREAK.search(line.text) and i + 1 < len(lines) and lines[i + 1].text[:1].islower():
            parts.append(_BREAK.sub("", line.text))
        else:
            ends = len(line.text) < full or (i + 1 < len(lines) and _ITEM.match(lines[i + 1].text))
            parts.append(line.text + ("\n" if ends else " "))
        i += 1
    flush()
