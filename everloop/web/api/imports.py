"""Another tracker's records with their ids and times, over REST; what `everloop import` calls."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["imports"])


@router.get("/imports")
async def imported(who: Who, ws: Ws, source: str) -> dict[str, Any]:
    """What of a source is here whole already."""
    return {"items": await ws.imports.marked(who, source), "next": None}


@router.post("/imports/model-metrics", status_code=204)
async def import_model_metrics(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> None:
    """Tie metric points to logged models: {metrics: [...]}."""
    await ws.imports.model_metrics(who, body.get("metrics") or [])


@router.post("/imports/{what}")
async def import_one(who: Who, ws: Ws, what: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Bring one experiment, run, logged-model or name over; the same again changes nothing."""
    return await ws.imports.put(who, what, body)


rights = {"admin": ("GET /api/v1/imports", "POST /api/v1/imports/model-metrics", "POST /api/v1/imports/{what}")}
"""Who may use which route: see web/rights.py."""
