"""Objects over REST: one at a time as a plain body, or many in packs, so that only what is missing travels."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastapi import APIRouter, Body, Request, Response
from starlette.responses import StreamingResponse

from everloop.core.errors import BadInput
from everloop.core.limits import FETCH_OBJECTS, OBJECT_CHUNK_ABOVE, OBJECT_GRACE_SECONDS
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["objects"])
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PASSED_ON = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


@router.post("/objects", status_code=201)
async def put_object(who: Who, ws: Ws, request: Request) -> dict[str, Any]:
    """Store the body's bytes; answers {digest, size}. Streams to disk, never all in memory."""
    async with ws.received(request.stream()) as path:
        return await ws.assets.put_object(who, path)


@router.post("/objects/missing")
async def missing(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Which of {digests} the project has not: {missing}. Those that are there are kept for a day at least, referred to or not."""
    return {"missing": await ws.assets.missing_objects(who, _digests(body))}


@router.post("/objects/packs", status_code=201)
async def put_pack(who: Who, ws: Ws, request: Request) -> dict[str, Any]:
    """Store many small objects and chunks at once; the body is a pack (everloop/core/packs.py): {objects}. Whole or not at all."""
    async with ws.received(request.stream()) as path:
        return await ws.assets.put_pack(who, path)


@router.post("/objects/lists", status_code=201)
async def put_list(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Make a large object of chunks that are there: {digest, size, chunks: [[digest, size], ...]}; the whole is checked."""
    try:
        chunks = [(str(name), int(size)) for name, size in body["chunks"]]
        return await ws.assets.put_list(who, str(body["digest"]), int(body["size"]), chunks)
    except (KeyError, TypeError, ValueError):
        raise BadInput("The list of chunks cannot be read.", "Needed: digest, size, chunks: [[digest, size], ...].") from None


@router.post("/objects/fetch")
async def fetch(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> Response:
    """The bytes of many {digests}, one after the other as frames (everloop/core/packs.py), verified."""
    frames = await ws.assets.fetch_objects(who, _digests(body))
    return StreamingResponse(frames, media_type="application/octet-stream")


@router.post("/objects/where")
async def where(who: Who, ws: Ws, request: Request, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """For a client on this host: where bytes of {digests} lie in files, {objects: {digest: [[path, offset, size], ...]}}; it checks what it reads.

    Nothing for a client that comes from elsewhere, and nothing where objects lie in a bucket: fetch them then.
    """
    passed_on = any(name in request.headers for name in _PASSED_ON)  # by a proxy on this host, for somebody who may be elsewhere
    near = request.client is not None and request.client.host in ("127.0.0.1", "::1") and not passed_on
    digests = _digests(body)
    if len(digests) > FETCH_OBJECTS:
        raise BadInput(f"{len(digests):,} objects were asked for; at most {FETCH_OBJECTS:,} go in one request.", "Ask in parts.")
    return {"objects": await ws.assets.located(who, digests) if near else {}}


@router.get("/objects/move")
async def move_state(who: Who, ws: Ws) -> dict[str, Any]:
    """How far a move of all objects is: {to, from, state: none | running | done | damaged | stopped | failed, total, copied, there, damaged, ...}."""
    return ws.data.mover.state(who)


@router.post("/objects/move", status_code=202)
async def move(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Begin, or go on, to move all objects to another place: {to: s3://BUCKET/PREFIX or "home", remove?}; both are read until it is done."""
    if not isinstance(body.get("to"), str) or not body["to"]:
        raise BadInput("The field 'to' is missing.", 'Send {"to": "s3://BUCKET/PREFIX"}, or {"to": "home"}.')
    return await ws.data.mover.start(who, body["to"], remove=body.get("remove") is True)


@router.post("/objects/repair")
async def repair(who: Who, ws: Ws, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Take damaged bytes out and put again what is still somewhere: {places?, scan?} -> {damaged, restored, lost, lost_count, wanted}."""
    places = body.get("places") or []
    if not isinstance(places, list) or not all(isinstance(one, str) for one in places):
        raise BadInput("`places` is no list of URLs.", 'Send {"places": ["s3://BUCKET/PREFIX"]}, or nothing.')
    return await ws.data.mend(who, places=places, scan=body.get("scan") is not False)


@router.get("/objects/{digest}")
async def get_object(who: Who, ws: Ws, request: Request, digest: str) -> Response:
    """The bytes behind a digest, verified; a Range is answered with that part."""
    reader, size = await ws.assets.open_object(who, digest)
    headers = {"content-disposition": "attachment", "etag": f'"{digest}"', "accept-ranges": "bytes"}
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    start, end = _span(asked, size) if asked else (0, size)
    if asked and start >= size:
        reader.close()
        return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
    headers["content-length"] = str(end - start)
    if asked:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if asked else 200
    if end - start <= OBJECT_CHUNK_ABOVE:
        data = await asyncio.to_thread(lambda: b"".join(_pieces(reader, start, end)))
        return Response(data, status, headers, "application/octet-stream")
    return StreamingResponse(_pieces(reader, start, end), status, headers, "application/octet-stream")


@router.post("/objects/gc")
async def collect(who: Who, ws: Ws, grace: float = OBJECT_GRACE_SECONDS, dry_run: bool = False) -> dict[str, Any]:
    """Delete objects that nothing refers to and that are older than `grace` seconds: {kept, deleted, deleted_bytes, young, live, ...}."""
    return await ws.data.gc(who, grace=grace, dry_run=dry_run)


@router.post("/objects/verify")
async def verify(who: Who, ws: Ws, ref: str | None = None) -> dict[str, Any]:
    """Read and check every object of the project, or those of the dataset `ref`: {checked, bytes, damaged: [...], damaged_count}."""
    return await ws.data.verify(who, ref)


def _pieces(reader: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with reader:
        reader.seek(start)
        left = end - start
        while left > 0:
            piece = reader.read(min(left, OBJECT_CHUNK_ABOVE))
            if not piece:
                return
            left -= len(piece)
            yield piece


def _span(asked: re.Match[str], size: int) -> tuple[int, int]:
    """(first, one after the last) byte of a range; `bytes=-100` means the last hundred."""
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(int(last) + 1 if last else size, size)


def _digests(body: dict[str, Any]) -> list[str]:
    found = body.get("digests")
    if not isinstance(found, list) or not all(isinstance(digest, str) for digest in found):
        raise BadInput("The field 'digests' is missing, or is no list of digests.", 'Send {"digests": ["..."]}.')
    return found


rights = {
    "viewer": (
        "GET /api/v1/objects/{digest}",
        "POST /api/v1/objects/fetch",
        "POST /api/v1/objects/missing",
        "POST /api/v1/objects/where",
    ),
    "editor": ("POST /api/v1/objects", "POST /api/v1/objects/packs", "POST /api/v1/objects/lists", "POST /api/v1/objects/verify"),
    "admin": ("POST /api/v1/objects/gc", "POST /api/v1/objects/repair"),
    "site": ("GET /api/v1/objects/move", "POST /api/v1/objects/move"),
}
"""Who may use which route: see web/rights.py."""
