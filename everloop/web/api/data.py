"""Datasets over REST: upload tables and documents, look at rows."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
from fastapi import APIRouter, Body, Query, Request
from starlette.datastructures import FormData, UploadFile

from everloop.core.errors import BadInput
from everloop.core.limits import UPLOAD_FILES
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["datasets"])
_JSON = ("roles", "contract", "origin", "tags", "reads", "splits")
_TEXT = ("description", "run", "keep_file")


@router.post("/datasets", status_code=201)
async def add_dataset(who: Who, ws: Ws, request: Request) -> dict[str, Any]:
    """Load a table ({name, file, roles?, contract?, splits?, description?, run?, reads?, origin?, tags?}) or documents ({name, files...}), as multipart/form-data.

    Files as they are, whose bytes are objects already, are registered by their list: JSON {name, tree: digest, description?, run?, reads?, origin?, tags?}.
    roles, contract, splits, origin, tags and reads are JSON. One `file` is a table; one or more `files` are documents. Files stream to disk.
    """
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            raise BadInput("The body is not JSON.", 'Send {"name": "photos", "tree": "<digest of the list of files>"}.') from None
        return await _files(who, ws, body)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadInput("A dataset is uploaded as multipart/form-data.", "Send the fields name and file (a table) or files (documents).")
    async with request.form(max_files=UPLOAD_FILES, max_fields=100) as form:
        name = str(form.get("name") or "")
        if not name:
            raise BadInput("The field 'name' is missing.", "Give the dataset a name such as: credit")
        more = _more(form)
        table, documents = form.get("file"), [f for f in form.getlist("files") if isinstance(f, UploadFile)]
        if isinstance(table, UploadFile) and not documents:
            return await _table(who, ws, name, table, more)
        if documents and table is None:
            files = [(_inside(f.filename or f"document-{i + 1}"), await f.read()) for i, f in enumerate(documents)]
            kept = {key: more[key] for key in ("description", "run", "reads") if key in more}
            return await ws.data.add_documents(who, name, files, **kept)
        raise BadInput(
            "There is no file in the request, or both file and files.", "Send one `file` for a table, or one or more `files` for documents."
        )


@router.get("/datasets/{name}/{at}/rows")
async def rows(who: Who, ws: Ws, name: str, at: str, limit: int = 50, offset: int = 0) -> dict[str, Any]:
    """Some rows of a dataset: {ref, columns, rows, total, next}."""
    return await ws.data.preview(who, f"dataset:{name}@{at}", limit, offset)


@router.get("/datasets/{name}/{at}/files")
async def files(who: Who, ws: Ws, name: str, at: str, prefix: str = "", limit: int = 100, after: str = "") -> dict[str, Any]:
    """Files of a dataset by path: {ref, format, items: [{path, digest, size, ...}], total, bytes, next}; `after` is the `next` before."""
    return await ws.data.files(who, f"dataset:{name}@{at}", prefix, limit, after)


@router.post("/datasets/{name}/{at}/splits", status_code=201)
async def split(who: Who, ws: Ws, name: str, at: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Name parts of the rows or files: {parts: {name: share}, seed?, stratify | group | time?}; answers the new version. Read one as name@at#part."""
    return await ws.data.split(who, f"dataset:{name}@{at}", body)


@router.get("/datasets/{name}/{at}/documents")
async def documents(who: Who, ws: Ws, name: str, at: str, limit: int = 100, offset: int = 0) -> dict[str, Any]:
    """Texts of a documents dataset: {ref, items: [{id, path, title, type, text, headings, pages}], total, next}."""
    return await ws.data.documents(who, f"dataset:{name}@{at}", limit, offset)


@router.get("/datasets/{name}/diff")
async def diff(
    who: Who, ws: Ws, name: str, old: str = Query(alias="from"), new: str = Query("latest", alias="to"), key: list[str] = Query([]), limit: int = 10
) -> dict[str, Any]:
    """What differs between two versions (number, alias or `latest`; a full reference names another dataset).

    A table: {from, to, format, same, schema: {added, removed, changed}, rows: {from, to, added, removed, changed, same, key, notes, columns,
    examples}, columns: [{name, type, from, to, same}]}. `key` columns match rows (may be given again). Documents: {files: {counts, added, ...}}.
    """
    first, second = (at if ":" in at else f"dataset:{name}@{at}" for at in (old, new))
    return await ws.data.diff(who, first, second, key, limit)


async def _files(who: Who, ws: Ws, body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not isinstance(body.get("tree"), str):
        raise BadInput("The fields 'name' and 'tree' are needed.", "`tree` is the digest of the list of files; see everloop/core/trees.py.")
    more = {key: body[key] for key in ("description", "run", "reads", "origin", "tags") if body.get(key) is not None}
    return await ws.data.add_files(who, body["name"], body["tree"], **more)


async def _table(who: Who, ws: Ws, name: str, upload: UploadFile, more: dict[str, Any]) -> dict[str, Any]:
    with ws.incoming() as file:
        await asyncio.to_thread(shutil.copyfileobj, upload.file, file, 1024 * 1024)
        file.flush()
        kept = str(more.pop("keep_file", "")) == "true"
        return await ws.data.add_table(who, name, Path(file.name), upload.filename or "", keep_file=kept, **more)


def _more(form: FormData) -> dict[str, Any]:
    more: dict[str, Any] = {key: str(form[key]) for key in _TEXT if form.get(key)}
    for key in _JSON:
        if not form.get(key):
            continue
        try:
            more[key] = orjson.loads(str(form[key]))
        except orjson.JSONDecodeError:
            raise BadInput(f"The field {key!r} is not JSON: {str(form[key])[:80]!r}.", 'For example: roles={"target": "defaulted"}') from None
        if not isinstance(more[key], list if key == "reads" else dict):
            raise BadInput(f"The field {key!r} must be a JSON {'list' if key == 'reads' else 'object'}.")
    return more


def _inside(name: str) -> str:
    """A file's path inside its upload: parts only, nothing that leads out."""
    parts = [p for p in PurePosixPath(name.replace("\\", "/")).parts if p not in ("/", "..", ".") and not p.endswith(":")]
    return "/".join(parts) or "document"


rights = {
    "viewer": (
        "GET /api/v1/datasets/{name}/diff",
        "GET /api/v1/datasets/{name}/{at}/documents",
        "GET /api/v1/datasets/{name}/{at}/files",
        "GET /api/v1/datasets/{name}/{at}/rows",
    ),
    "editor": ("POST /api/v1/datasets", "POST /api/v1/datasets/{name}/{at}/splits"),
}
"""Who may use which route: see web/rights.py."""
