"""The table of traces over REST, beyond its rows: histogram by status, completion of a filter line, saved views."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.core.limits import TRACE_BUCKETS
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["traces"])
rights = {
    "viewer": ("GET /api/v1/traces/histogram", "GET /api/v1/traces/complete", "GET /api/v1/trace-views"),
    "editor": ("PUT /api/v1/trace-views/{name}", "DELETE /api/v1/trace-views/{name}"),
}
"""Who may use which route: see web/rights.py."""


@router.get("/traces/histogram")
async def histogram(
    who: Who, ws: Ws, query: str = "", since: str | None = None, until: str | None = None, buckets: int = TRACE_BUCKETS
) -> dict[str, Any]:
    """How many traces that fit a filter line began when, and how they ended: ok, error, blocked, refused."""
    begin, end = (None if text is None else from_iso(text) for text in (since, until))
    return await ws.trace_lines.histogram(who, query, begin, end, buckets)


@router.get("/traces/complete")
async def complete(who: Who, ws: Ws, query: str = "", at: int | None = None) -> dict[str, Any]:
    """What can stand at a place of a filter line: {"start", "end", "items": [{"text", "note"}]}."""
    return await ws.trace_lines.complete(who, query, at)


@router.get("/trace-views")
async def views(who: Who, ws: Ws) -> dict[str, Any]:
    """The project's saved views of the table of traces, by name."""
    return {"items": await ws.trace_lines.views(who), "next": None}


@router.put("/trace-views/{name}")
async def save(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Save a view: {"query": the part of the page's address after /ui/traces?}; one of that name is replaced."""
    if not isinstance(body.get("query"), str):
        raise BadInput("The field 'query' is missing.", 'Send {"query": "q=status%3Aerror&range=7d"}.')
    return await ws.trace_lines.save_view(who, name, body["query"])


@router.delete("/trace-views/{name}", status_code=204)
async def remove(who: Who, ws: Ws, name: str) -> None:
    """Take a saved view away."""
    await ws.trace_lines.remove_view(who, name)
