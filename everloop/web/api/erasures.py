"""Erasing a user's traces, over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["keep and forget"])


@router.get("/erasures")
async def list_erasures(who: Who, ws: Ws) -> dict[str, Any]:
    """The receipts, newest first."""
    return await ws.erasure.list(who)


@router.post("/erasures")
async def erase(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Erase a user's or a session's traces everywhere: {"user"?, "session"?, "why", "dry_run"?}; answers the receipt."""
    if unknown := set(body) - {"user", "session", "why", "dry_run"}:
        raise BadInput(f"An erasure has no {', '.join(sorted(unknown))}.", "It has: user, session, why, dry_run.")
    return await ws.erasure.erase(
        who, user=body.get("user"), session=body.get("session"), why=body.get("why") or "", dry_run=bool(body.get("dry_run"))
    )


rights = {"admin": ("GET /api/v1/erasures", "POST /api/v1/erasures")}
"""Who may use which route: see web/rights.py."""
