"""Monitors and alerts over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["monitors"])


@router.get("/monitors")
async def list_monitors(who: Who, ws: Ws) -> dict[str, Any]:
    """All monitors with what they last saw."""
    return {"items": await ws.monitors.list(who), "next": None}


@router.put("/monitors/{name}")
async def put_monitor(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare a monitor: {endpoint, spec: {checks, window_days, label_window_days, every, min_rows, cooldown_days, retrain_on, on_fail}}."""
    if "endpoint" not in body:
        raise BadInput("The field 'endpoint' is missing.", "Name the endpoint that the monitor watches.")
    return await ws.monitors.put(who, name, body["endpoint"], body.get("spec") or {}, body.get("enabled", True))


@router.get("/monitors/{name}")
async def monitor(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """One monitor."""
    return await ws.monitors.get(who, name)


@router.get("/monitors/{name}/scores")
async def monitor_scores(who: Who, ws: Ws, name: str, limit: int = 100) -> dict[str, Any]:
    """What a monitor saw, newest first."""
    return {"items": await ws.monitors.looks(who, name, limit), "next": None}


@router.post("/monitors/{name}/tick")
async def tick_monitor(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Look now, or at the window that ends {at} (epoch seconds or ISO)."""
    at = body.get("at")
    return await ws.monitors.tick(who, name, from_iso(str(at)) if at is not None else None)


@router.get("/alerts")
async def list_alerts(who: Who, ws: Ws, monitor: str | None = None, limit: int = 100) -> dict[str, Any]:
    """Alarms, newest first."""
    return {"items": await ws.monitors.alerts(who, monitor, limit), "next": None}


rights = {
    "viewer": (
        "GET /api/v1/monitors",
        "GET /api/v1/monitors/{name}",
        "GET /api/v1/monitors/{name}/scores",
        "GET /api/v1/alerts",
    ),
    "editor": (
        "PUT /api/v1/monitors/{name}",
        "POST /api/v1/monitors/{name}/tick",
    ),
}
"""Who may use which route: see web/rights.py."""
