"""Files of a run: shown where a page can show them (pictures, tables, HTML in a box of its own, text, JSON, matrices, curves), else handed out.

What users put here never runs as a page of ours. Pictures and HTML are answered under a policy of their own: a sandbox without our origin, so a
script in them reaches neither our pages nor our API nor any other host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from everloop.core.errors import BadInput
from everloop.core.limits import ARTIFACT_TEXT_CHARS, ARTIFACT_VIEW_BYTES
from everloop.web.ui import artifact_tables, charts
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
ROWS = 50
"""Rows of a table on a page."""
IMAGES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".avif": "image/avif", ".bmp": "image/bmp",
    ".ico": "image/x-icon", ".svg": "image/svg+xml",
}  # fmt: skip
PAGES = {".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8"}
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".arrow", ".feather")
TEXTS = (
    ".txt", ".log", ".py", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".sh", ".sql", ".xml", ".patch", ".diff", ".r", ".js", ".ts", ".css", ".rst", ".env", ".lock",
)  # fmt: skip
_PICTURE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"
_DOCUMENT = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data:; "
    "connect-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)


@router.get("/ui/runs/{id}/file/{path:path}")
async def file(page: Page, id: str, path: str) -> Response:
    """A picture or an HTML file as it is, under its own policy; any other file as a download."""
    _, held = await page.ws.runs.artifact_file(page.who, id, path)
    kind = PurePosixPath(path.lower()).suffix
    headers = {"x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN", "cache-control": "private, no-cache"}
    if kind in IMAGES or kind in PAGES:
        headers["content-security-policy"] = _PICTURE if kind in IMAGES else _DOCUMENT
        return FileResponse(held, media_type=IMAGES.get(kind) or PAGES[kind], headers=headers)
    headers["content-security-policy"] = _PICTURE
    headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(PurePosixPath(path).name, safe='')}"
    return FileResponse(held, media_type="application/octet-stream", headers=headers)


def folders(files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Files as a tree in reading order: [{"depth", "name", "path"?, "size"?}]; a folder has no path."""
    found: list[dict[str, Any]] = []
    open_: list[str] = []
    for one in files:
        *above, name = one["path"].split("/")
        same = next((i for i, (a, b) in enumerate(zip(above, open_, strict=False)) if a != b), min(len(above), len(open_)))
        found += [{"depth": same + i, "name": folder} for i, folder in enumerate(above[same:])]
        open_ = above
        found.append({"depth": len(above), "name": name, "path": one["path"], "size": one["size"]})
    return found


async def view(page: View, run: str, one: dict[str, Any]) -> dict[str, Any]:
    """How a file is shown: {"as": image | html | table | matrix | chart | json | markdown | text | none, ...}."""
    path, kind = one["path"], PurePosixPath(one["path"].lower()).suffix
    raw = f"/ui/runs/{quote(run, safe='')}/file/{quote(path)}"
    if kind in IMAGES or kind in PAGES:
        return {"as": "image" if kind in IMAGES else "html", "raw": raw}
    if kind in TABLES and (kind in (".parquet", ".arrow", ".feather") or one["size"] <= ARTIFACT_VIEW_BYTES):
        return {**await _table(page, run, path, kind), "raw": raw}
    if one["size"] > ARTIFACT_VIEW_BYTES:
        return {"as": "none", "why": "It is too large to be shown.", "raw": raw}
    data = await page.ws.runs.get_artifact(page.who, run, path)
    if kind == ".json":
        return {**await _json(page, path, data), "raw": raw}
    text = _text(data)
    if text is None:
        return {"as": "none", "why": "It is not text, and nothing here shows its format.", "raw": raw}
    shown = "markdown" if kind in (".md", ".markdown") else "text"
    return {"as": shown, "text": text[:ARTIFACT_TEXT_CHARS], "cut": len(text) > ARTIFACT_TEXT_CHARS, "raw": raw}


def _offset(page: View) -> int:
    told = page.query.get("offset", "")
    return int(told) if told.isdigit() and len(told) < 16 else 0


async def _table(page: View, run: str, path: str, kind: str) -> dict[str, Any]:
    _, held = await page.ws.runs.artifact_file(page.who, run, path)
    try:
        found = await asyncio.to_thread(artifact_tables.read, held, kind, _offset(page), ROWS)
    except BadInput as error:
        return {"as": "none", "why": error.what}
    return _shown(page, path, found)


async def _json(page: View, path: str, data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return {"as": "text", "text": (_text(data) or "")[:ARTIFACT_TEXT_CHARS], "why": f"It is not JSON: {error}."}
    matrix = artifact_tables.matrix(body)
    if matrix:
        return {"as": "matrix", "matrix": matrix}
    curve = artifact_tables.curve(body)
    if curve:
        return {"as": "chart", "chart": _chart(path, *curve)}
    table = artifact_tables.of_json(body, _offset(page), ROWS)
    return _shown(page, path, table) if table else {"as": "json", "value": body}


def _shown(page: View, path: str, found: dict[str, Any]) -> dict[str, Any]:
    """A table; as a matrix or a curve where it is one."""
    if found["total"] is not None and found["total"] <= ROWS and "confusion" in path.lower():
        matrix = artifact_tables.matrix_of_table(found)
        if matrix:
            return {"as": "matrix", "matrix": matrix}
    curve = artifact_tables.curve({name: [row[i] for row in found["rows"]] for i, name in enumerate(found["columns"])})
    drawn = _chart(path, *curve) if curve and found["total"] is not None and found["total"] <= ROWS else None
    return {"as": "table", "table": found, "offset": _offset(page), "rows": ROWS, "chart": drawn}


def _chart(path: str, across: str, up: str, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    order = sorted(range(len(x)), key=lambda i: (x[i], i))
    unit = all(0 <= v <= 1 for v in [*x, *y])
    lines = [{"label": up, "values": [y[i] for i in order], "joined": True}]
    title = PurePosixPath(path).stem.replace("_", " ")
    return charts.chart(
        title, [x[i] for i in order], lines, xlabel=across, yrange=(0, 1.02) if unit else None, xrange=(0, 1) if unit else None, height=300
    )


def _text(data: bytes) -> str | None:
    """The bytes as text, None where they are not."""
    if b"\x00" in data[:8192]:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        found = data.decode("utf-8", "replace")
        return found if found.count("\ufffd") < len(found) / 50 else None
