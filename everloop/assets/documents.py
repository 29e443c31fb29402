"""Documents: files of many formats as one dataset version. What cannot be read is left out, with why; if nothing can, nothing is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson

from everloop.assets.readers import readers
from everloop.assets.text import Document
from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import DOCUMENT_BYTES, DOCUMENTS, DOCUMENTS_CHARS

Put = Callable[[bytes], tuple[str, int]]
"""Stores bytes; answers (digest, size)."""


def manifest(files: Sequence[tuple[str, bytes]], put: Put) -> dict[str, Any]:
    """Read files, (path, bytes) each, and store them and their texts; answers the manifest of a documents dataset.

    Files that cannot be read are in `skipped` as {"path", "why"}; BadInput where none can be read, TooLarge over the limits. The same files give
    the same manifest, in whatever order they come.
    """
    if len(files) > DOCUMENTS:
        raise BadInput(
            f"{len(files):,} files are more than the {DOCUMENTS:,} that one dataset of documents may hold.", "Load them as several datasets."
        )
    skipped: list[dict[str, str]] = []
    kept: list[tuple[Document, bytes]] = []
    seen: dict[str, bytes] = {}
    total = 0
    for path, data in sorted(files, key=lambda f: f[0]):
        if path in seen:
            if seen[path] != data:
                skipped.append({"path": path, "why": "another file of this load has the same path; give each a path of its own"})
            continue
        seen[path] = data
        try:
            document = read(path, data)
        except BadInput as error:
            skipped.append({"path": path, "why": error.what})
            continue
        total += len(document.text)
        if total > DOCUMENTS_CHARS:
            raise BadInput(f"The documents hold over {DOCUMENTS_CHARS:,} characters together (at {path}).", "Load them as several datasets.")
        kept.append((document, data))
    if not kept:
        raise BadInput(_nothing(files, skipped), "Give PDF, HTML, Markdown or text files that hold text.", skipped=skipped[:100])
    stored, listed = [], []
    for document, data in kept:
        digest, size = put(data)
        stored.append({"path": document.path, "digest": digest, "size": size})
        listed.append(_entry(document, digest))
    digest, size = put(b"".join(orjson.dumps(document.to_json()) + b"\n" for document, _ in kept))
    text = {"digest": digest, "size": size}
    return {"format": "documents", "files": stored, "documents": listed, "text": text, "skipped": skipped}


def read(path: str, data: bytes) -> Document:
    """One file as a document, by its suffix, else by its first bytes. BadInput says what is wrong with it, as a clause: 'it is empty'."""
    if not data.strip():
        raise BadInput("it is empty")
    if len(data) > DOCUMENT_BYTES:
        raise BadInput(f"it has {len(data):,} bytes; at most {DOCUMENT_BYTES:,} are read: cut it into several files")
    suffix = _suffix(path, data)
    try:
        document = readers.get(suffix)(path, data)
    except EverloopError:
        raise
    except Exception as error:
        raise BadInput(f"it cannot be read as {suffix} ({type(error).__name__}: {str(error)[:200]}); save it again or convert it to text") from error
    if not document.text.strip():
        raise BadInput("it holds no text")
    return document


def texts(lines: Iterable[bytes], offset: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The documents of a stored text object (bytes by line, or a reader), in order: {"id", "path", "title", "type", "text", "headings", "pages"}."""
    for line in islice(lines, offset, None if limit is None else offset + limit):
        yield orjson.loads(line)


def _suffix(path: str, data: bytes) -> str:
    """The reader for a file: its suffix where there is one for it (and it is what it says), else what its first bytes tell."""
    name = path.rsplit("/", 1)[-1]
    suffix = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    head = data[:1024].lstrip()
    if head.startswith(b"%PDF-"):
        return "pdf"
    if suffix in readers.names():
        return suffix
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise BadInput(f"files of type {'.' + suffix if suffix else 'zip'} are not read; save it as PDF, HTML, Markdown or text")
    if suffix == "svg" or head.startswith(b"<svg"):
        raise BadInput("pictures are not read; describe it in a text beside it")
    if head[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "txt"


def _entry(document: Document, digest: str) -> dict[str, Any]:
    entry = {"id": document.path, "path": document.path, "title": document.title, "type": document.type, "chars": len(document.text)}
    entry |= {"digest": digest, "pages": len(document.pages) or None}
    return {**entry, "notes": document.notes} if document.notes else entry


def _nothing(files: Sequence[tuple[str, bytes]], skipped: Sequence[dict[str, str]]) -> str:
    if not files:
        return "There are no files to load."
    first = skipped[0]
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    return (
        f"None of the {len(files)} files can be read: {first['path']}: {first['why']}{more}."
        if len(files) > 1
        else f"{first['path']} cannot be read: {first['why']}."
    )
