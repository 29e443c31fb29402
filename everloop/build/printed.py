"""Markdown to a plain PDF, by pypdfium2 alone: headings, paragraphs, list items and code, broken into lines and pages.

Meant for making a document to load, not for print quality: no tables, no links, no emphasis, only characters of Latin-1.
"""

from __future__ import annotations

import ctypes
import io
import re
import textwrap
from collections.abc import Iterator

from everloop.assets.readers.pdf import LOCK

WIDTH, HEIGHT, MARGIN = 595.0, 842.0, 60.0
"""A4 in points, and the margin on each side."""
STYLES = {"h1": ("Helvetica-Bold", 20.0), "h2": ("Helvetica-Bold", 14.0), "text": ("Helvetica", 10.5), "code": ("Courier", 9.0)}
CHARS = {"h1": 42, "h2": 60, "text": 86, "code": 86}
"""Characters that fit in a line of each style (Helvetica's letters are half an em wide on average, capitals more)."""
_MARKS = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*_`]{1,3}")


def to_pdf(markdown: str) -> bytes:
    """The text of a Markdown page as the bytes of a PDF with as many pages as it needs."""
    with LOCK:
        return _drawn(markdown)


def _drawn(markdown: str) -> bytes:
    import pypdfium2 as pdfium
    import pypdfium2.raw as raw

    document = pdfium.PdfDocument.new()
    fonts = {style: raw.FPDFText_LoadStandardFont(document.raw, name.encode()) for style, (name, _) in STYLES.items()}
    page, y = None, 0.0
    for style, line in _lines(markdown):
        size = STYLES[style][1]
        step = size * 1.4
        if page is None or y - step < MARGIN:
            if page is not None:
                page.gen_content()
            page, y = document.new_page(WIDTH, HEIGHT), HEIGHT - MARGIN
        y -= step
        if line:
            written = raw.FPDFPageObj_CreateTextObj(document.raw, fonts[style], size)
            data = (line + "\0").encode("utf-16-le")
            raw.FPDFText_SetText(written, ctypes.cast(ctypes.create_string_buffer(data, len(data)), raw.FPDF_WIDESTRING))
            raw.FPDFPageObj_Transform(written, 1, 0, 0, 1, MARGIN, y)
            raw.FPDFPage_InsertObject(page.raw, written)
    if page is None:
        page = document.new_page(WIDTH, HEIGHT)
    page.gen_content()
    out = io.BytesIO()
    document.save(out)
    for font in fonts.values():
        raw.FPDFFont_Close(font)
    document.close()
    return _timeless(out.getvalue())


def _timeless(data: bytes) -> bytes:
    """The PDF without its date and random id, in place, so that the same page gives the same bytes."""
    data = re.sub(rb"(/CreationDate\s*\(D:)(\d+)", lambda m: m[1] + b"20000101000000"[: len(m[2])].ljust(len(m[2]), b"0"), data)
    return re.sub(rb"(/ID\s*\[)([^\]]*)\]", lambda m: m[1] + re.sub(rb"[0-9A-Fa-f]", b"0", m[2]) + b"]", data)


def _lines(markdown: str) -> Iterator[tuple[str, str]]:
    """(style, line) in order; an empty line is space."""
    for kind, text in _blocks(markdown):
        if kind == "code":
            for line in text.splitlines():
                yield "code", _latin(line)[: CHARS["code"]]
        else:
            if kind != "text":
                yield "text", ""
            indent = "   " if text.startswith("- ") else ""
            for line in textwrap.wrap(_latin(_MARKS.sub(r"\1", text)), CHARS[kind], subsequent_indent=indent):
                yield kind, line
        yield "text", ""


def _blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """Headings, paragraphs (their lines joined), list items and fenced code."""
    held: list[str] = []
    fenced: list[str] | None = None
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("```"):
            if fenced is not None:
                yield "code", "\n".join(fenced)
            fenced = [] if fenced is None else None
            continue
        if fenced is not None:
            fenced.append(line)
            continue
        heading = re.match(r"(#{1,6})\s+(.*)", line)
        item = re.match(r"\s*(?:[-*+]|\d+[.)])\s+", line)
        if (heading or item or not line.strip()) and held:
            yield "text", " ".join(held)
            held = []
        if heading:
            yield ("h1" if len(heading[1]) == 1 else "h2"), heading[2]
        elif line.strip():
            held.append(f"- {line[item.end() :].strip()}" if item else line.strip())


def _latin(text: str) -> str:
    """The text in characters that the standard fonts have; others become a question mark."""
    for strange, plain in {"–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "→": "->", "≥": ">="}.items():
        text = text.replace(strange, plain)
    return text.encode("latin-1", "replace").decode("latin-1")
