"""Declarations over REST: what a project file declares, applied as one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["declarations"])


@router.post("/apply")
async def apply(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Check and write {items: [{what, name, spec}], dry_run?}, all or none: {items: [{what, name, ref, change, differences, notes}], dry_run}."""
    items = body.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadInput("The field 'items' is missing.", 'Send {"items": [{"what": "endpoint", "name": "churn", "spec": {}}]}.')
    return await ws.declare.apply(who, items, dry_run=bool(body.get("dry_run")))


rights = {"editor": ("POST /api/v1/apply",)}
"""Who may use which route: see web/rights.py."""
