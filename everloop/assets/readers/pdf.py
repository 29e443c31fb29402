"""PDF through pypdfium2: text by page, so that a passage can say its page. Scans without a text layer are told apart from empty files."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from everloop.assets.readers import readers
from everloop.assets.text import Document, tidy, title_of
from everloop.core.errors import BadInput
from everloop.core.limits import PDF_PAGES, PDF_SECONDS

_LOCK = threading.Lock()
"""PDFium is not safe to use from two threads at once."""
_HYPHEN = re.compile(r"(\w)[\u00ad\ufffe\x02-]\n(?=[a-z])")
_UNTITLED = re.compile(r"untitled|unbenannt|^microsoft word|\.(?:docx?|tex|dvi|indd|pdf|pptx?)$", re.IGNORECASE)
_ERRORS = {
    3: "it is not a PDF, or it is damaged; open it in a viewer and save it again",
    4: "it is encrypted with a password; save a copy without one",
}


@readers.add("pdf")
def read(path: str, data: bytes) -> Document:
    """The text of all pages; title: the PDF's own, else its first line. BadInput: damaged, encrypted, no pages, no text (a scan), too many pages."""
    import pypdfium2

    document = Document(path, "pdf")
    with _LOCK:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise BadInput(_ERRORS.get(getattr(error, "err_code", 0) or 0, f"it cannot be opened ({error}); save it again from a viewer")) from None
        try:
            declared = _pages(pdf, document)
        finally:
            pdf.close()
    if not document.text.strip():
        raise BadInput(f"its {len(document.pages)} pages hold no text (a scan?); run text recognition (OCR) over it first")
    first = next((line for line in document.text.split("\n") if len(line.strip()) > 3), "")
    document.title = title_of(path, declared, first if len(first) <= 150 else None)
    return document


def _pages(pdf: Any, document: Document) -> str | None:
    """Read all pages into the document; answers the title that the PDF declares."""
    count = len(pdf)
    if count == 0:
        raise BadInput("it has no pages")
    if count > PDF_PAGES:
        raise BadInput(f"it has {count:,} pages; at most {PDF_PAGES:,} are read: cut it into several files")
    started, failed = time.monotonic(), []
    for number in range(count):
        if time.monotonic() - started > PDF_SECONDS:
            raise BadInput(f"reading stopped after {PDF_SECONDS:.0f} s at page {number + 1} of {count}; cut it into several files")
        text = _page(pdf, number)
        if text is None:
            failed.append(number + 1)
        start = len(document.text)
        document.add(_flow(text or ""))
        document.pages.append(start)
    if failed and len(failed) == count:
        raise BadInput("none of its pages can be read; it is damaged: open it in a viewer and save it again")
    if failed:
        document.notes.append(f"pages that could not be read: {', '.join(map(str, failed[:20]))}")
    title = str(pdf.get_metadata_dict().get("Title") or "")
    return None if _UNTITLED.search(title.strip()) else title


def _page(pdf: Any, number: int) -> str | None:
    import pypdfium2

    try:
        page = pdf[number]
        try:
            text_page = page.get_textpage()
            try:
                return str(text_page.get_text_bounded())
            finally:
                text_page.close()
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return None


def _flow(text: str) -> str:
    """Lines as a page shows them, joined to paragraphs: a hyphen at a line's end goes, a line that ends short of a full one ends its paragraph."""
    text = _HYPHEN.sub(r"\1", tidy(text))
    lines = text.split("\n")
    width = sorted(len(line) for line in lines if line.strip())
    if not width:
        return ""
    full = width[int(len(width) * 0.8)] * 0.75
    parts: list[str] = []
    for line in lines:
        line = line.strip()
        if not line:
            parts.append("\n\n")
        elif len(line) < full:
            parts.append(line + "\n")
        else:
            parts.append(line + " ")
    return re.sub(r" +\n", "\n", "".join(parts)).strip()
