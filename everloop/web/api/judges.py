"""Online judges, and scores in sum, over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["judges"])


@router.get("/judges")
async def list_judges(who: Who, ws: Ws) -> dict[str, Any]:
    """Online judges with what they did today."""
    return {"items": await ws.judges.list(who), "next": None}


@router.get("/judges/{name}")
async def judge(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """One judge: its rule, its days (traces judged, cost, tokens, dropped), why it stopped, its scores by release with n and interval."""
    return await ws.judges.get(who, name)


@router.put("/judges/{name}")
async def put_judge(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare a judge of live traces: {checks, endpoint?, release?, user?, session?, status?, rate?, budget?, per_day?, enabled?}."""
    return await ws.judges.put(who, name, body)


@router.delete("/judges/{name}", status_code=204)
async def delete_judge(who: Who, ws: Ws, name: str) -> None:
    """Take a judge away; its scores stay."""
    await ws.judges.delete(who, name)


@router.get("/stats/scores")
async def scores(
    who: Who,
    ws: Ws,
    by: str = "release",
    name: str | None = None,
    source: str | None = None,
    endpoint: str | None = None,
    release: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> dict[str, Any]:
    """Scores by release, endpoint, alias, model, user, session or name: n, mean and interval at 95 %; `source` may be the beginning of one (online:)."""
    times = {key: None if value is None else from_iso(value) for key, value in (("since", since), ("until", until))}
    return {"items": await ws.reports.scores(who, by, name=name, source=source, endpoint=endpoint, release=release, **times), "next": None}


rights = {
    "viewer": ("GET /api/v1/judges", "GET /api/v1/judges/{name}", "GET /api/v1/stats/scores"),
    "editor": ("PUT /api/v1/judges/{name}", "DELETE /api/v1/judges/{name}"),
}
"""Who may use which route: see web/rights.py."""
