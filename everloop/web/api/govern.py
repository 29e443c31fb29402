"""Lineage questions and the audit record over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["govern"])


@router.get("/lineage/why/{id:path}")
async def why(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """What an answer, a version, a run or a decision rests on."""
    return await ws.govern.why(who, id)


@router.get("/lineage/impact")
async def impact(who: Who, ws: Ws, ref: str) -> dict[str, Any]:
    """What rests on an asset version, or on a row, document or split of it: dataset:x@3#row=KEY, #number=N, #document=PATH, #SPLIT."""
    return await ws.govern.impact(who, ref)


@router.post("/lineage/derivations")
async def derive(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare which rows or documents a version came from: {output, sources: {ref: "all" | "none" | {keys} | {rows, to?} | {object, of?}}, run?, why?}."""
    output, sources = body.get("output"), body.get("sources")
    if not isinstance(output, str) or not isinstance(sources, dict):
        raise BadInput("The body needs output, a reference, and sources.", 'Send {"output": "model:m@1", "sources": {"dataset:x@3": "all"}}.')
    return {"items": await ws.govern.derive(who, output, sources, str(body.get("run") or ""), str(body.get("why") or ""))}


@router.get("/lineage/derivations")
async def derivations(who: Who, ws: Ws, ref: str) -> dict[str, Any]:
    """What was declared of where a version (or run:ID) came from."""
    return {"items": await ws.govern.derivations(who, ref)}


@router.get("/audit")
async def audit(
    who: Who,
    ws: Ws,
    subject: str | None = None,
    by: str | None = None,
    action: str | None = None,
    since: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> dict[str, Any]:
    """Who did what, newest first. `subject` without a version means all; `by` user:ann or ann; `action` gate.declare or gate; `since` a time."""
    items = await ws.govern.audit(who, subject, limit, before, by=by, action=action, since=from_iso(since) if since else None)
    return {"items": items, "next": items[-1]["seq"] if len(items) == limit else None}


@router.get("/audit/verify")
async def verify(who: Who, ws: Ws) -> dict[str, Any]:
    """Whether the project's audit chain is whole."""
    return await ws.govern.verify(who)


rights = {
    "viewer": (
        "GET /api/v1/lineage/why/{id:path}",
        "GET /api/v1/lineage/impact",
        "GET /api/v1/lineage/derivations",
        "GET /api/v1/audit",
        "GET /api/v1/audit/verify",
    ),
    "editor": ("POST /api/v1/lineage/derivations",),
}
"""Who may use which route: see web/rights.py."""
