"""Redaction of a project's traces over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["keep and forget"])


@router.get("/redaction")
async def get(who: Who, ws: Ws) -> dict[str, Any]:
    """What traces lose before they are written."""
    return await ws.redaction.get(who)


@router.put("/redaction")
async def put(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Redact by a policy from now on: {"policy", "drop"?, "hash"?}."""
    if unknown := set(body) - {"policy", "drop", "hash"}:
        raise BadInput(f"Redaction has no {', '.join(sorted(unknown))}.", "It has: policy, drop, hash.")
    if not isinstance(body.get("policy"), str):
        raise BadInput("Redaction needs a policy.", 'For example: {"policy": "private"}')
    return await ws.redaction.put(who, body["policy"], drop=body.get("drop") or (), hash=body.get("hash") or ())


@router.delete("/redaction", status_code=204)
async def clear(who: Who, ws: Ws) -> None:
    """Redact nothing from now on."""
    await ws.redaction.clear(who)


@router.post("/redaction/try")
async def attempt(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """What a text would be written as: {"text", "policy"?} to {"text", "found", "policy"}."""
    return await ws.redaction.attempt(who, body.get("text"), body.get("policy"))  # type: ignore[arg-type]


rights = {
    "viewer": ("GET /api/v1/redaction", "POST /api/v1/redaction/try"),
    "admin": ("PUT /api/v1/redaction", "DELETE /api/v1/redaction"),
}
"""Who may use which route: see web/rights.py."""
