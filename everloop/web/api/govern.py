"""Lineage questions and the audit record over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from everloop.core.clock import from_iso
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["govern"])


@router.get("/lineage/why/{id:path}")
async def why(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """What an answer, a version, a run or a decision rests on."""
    return await ws.govern.why(who, id)


@router.get("/lineage/impact")
async def impact(who: Who, ws: Ws, ref: str) -> dict[str, Any]:
    """What rests on an asset version."""
    return await ws.govern.impact(who, ref)


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
        "GET /api/v1/audit",
        "GET /api/v1/audit/verify",
    ),
}
"""Who may use which route: see web/rights.py."""
