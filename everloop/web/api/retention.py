"""How long telemetry is kept, over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["keep and forget"])


@router.get("/retention")
async def list_rules(who: Who, ws: Ws) -> dict[str, Any]:
    """The rules, and what the last run did."""
    return await ws.retention.list(who)


@router.put("/retention/{name}")
async def put_rule(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare a rule: {"older": "90d", "action": "archive" | "delete", "of"?, "endpoint"?, "kind"?, "status"?}."""
    return await ws.retention.put(who, name, body)


@router.delete("/retention/{name}", status_code=204)
async def delete_rule(who: Who, ws: Ws, name: str) -> None:
    """Take a rule away."""
    await ws.retention.delete(who, name)


@router.post("/retention/run")
async def run(who: Who, ws: Ws, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Do the rules now: {"dry_run"?, "rule"?}."""
    if unknown := set(body) - {"dry_run", "rule"}:
        raise BadInput(f"A run of retention has no {', '.join(sorted(unknown))}.", "It has: dry_run, rule.")
    return await ws.retention.run(who, dry_run=bool(body.get("dry_run")), rule=body.get("rule"))


rights = {
    "viewer": ("GET /api/v1/retention",),
    "admin": ("PUT /api/v1/retention/{name}", "DELETE /api/v1/retention/{name}", "POST /api/v1/retention/run"),
}
"""Who may use which route: see web/rights.py."""
