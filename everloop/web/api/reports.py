"""Figures over traces and sessions over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from everloop.core.limits import BREAKDOWN_ROWS
from everloop.web.deps import Who, Ws, time_or_none

router = APIRouter(prefix="/api/v1", tags=["traces"])


@router.get("/stats/breakdown")
async def breakdown(
    who: Who,
    ws: Ws,
    by: str = "endpoint",
    endpoint: str | None = None,
    release: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = BREAKDOWN_ROWS,
) -> dict[str, Any]:
    """Calls, errors, latency (p50 to p99.9, time to first token), tokens, cost, thumbs by endpoint, release, alias, model, provider, user, session,
    principal or name, the busiest first; since and until are ISO 8601 or epoch seconds."""
    items = await ws.reports.breakdown(who, by, endpoint=endpoint, release=release, since=time_or_none(since), until=time_or_none(until), limit=limit)
    return {"items": items, "next": None}


@router.get("/stats/guardrails")
async def guardrails(who: Who, ws: Ws, endpoint: str | None = None, since: str | None = None, until: str | None = None) -> dict[str, Any]:
    """How often each guardrail judged, and failed what it judged."""
    return {"items": await ws.reports.guardrails(who, endpoint=endpoint, since=time_or_none(since), until=time_or_none(until)), "next": None}


@router.get("/sessions")
async def sessions(
    who: Who,
    ws: Ws,
    endpoint: str | None = None,
    user: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Sessions, the one that went on last first. Its traces: GET /api/v1/traces?session=ID."""
    return await ws.reports.sessions(
        who, endpoint=endpoint, user=user, since=time_or_none(since), until=time_or_none(until), limit=limit, cursor=cursor
    )


rights = {"viewer": ("GET /api/v1/stats/breakdown", "GET /api/v1/stats/guardrails", "GET /api/v1/sessions")}
"""Who may use which route: see web/rights.py."""
