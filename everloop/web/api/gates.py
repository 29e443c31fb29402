"""Gates and decisions over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["gates"])


@router.get("/gates")
async def list_gates(who: Who, ws: Ws) -> dict[str, Any]:
    """All gates of the project."""
    return {"items": await ws.gates.list(who), "next": None}


@router.put("/gates/{kind}/{name}/{alias}")
async def declare_gate(who: Who, ws: Ws, kind: str, name: str, alias: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare what must hold before the alias moves: {suite, requirements, confidence?, approval?, expires_days?}."""
    return await ws.gates.declare(who, kind, name, alias, body)


@router.delete("/gates/{kind}/{name}/{alias}", status_code=204)
async def remove_gate(who: Who, ws: Ws, kind: str, name: str, alias: str) -> None:
    """Remove a gate (admin)."""
    await ws.gates.remove(who, kind, name, alias)


@router.post("/gates/evaluate")
async def evaluate(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Run the gate's suite against {ref} for {alias} and freeze the decision."""
    if "ref" not in body:
        raise BadInput("The field 'ref' is missing.", 'Send {"ref": "release:credit@3", "alias": "champion"}.')
    return await ws.gates.evaluate(who, body["ref"], body.get("alias", "champion"))


@router.get("/decisions")
async def list_decisions(
    who: Who,
    ws: Ws,
    kind: str | None = None,
    name: str | None = None,
    version: int | None = None,
    approval: str | None = None,
    limit: int = 100,
    before: float | None = None,
) -> dict[str, Any]:
    """Decisions, newest first; `approval=pending` are those that wait for a person."""
    items = await ws.gates.decisions(who, kind, name, version, approval, limit, before)
    return {"items": items, "next": items[-1]["at"] if len(items) == limit else None}


@router.get("/decisions/{id}")
async def decision(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """One decision with its frozen scores."""
    return await ws.gates.decision(who, id)


@router.get("/decisions/{id}/evidence")
async def evidence(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """The results by case behind a decision."""
    return await ws.gates.evidence(who, id)


@router.get("/decisions/{id}/cases")
async def cases(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """A chat decision's cases: expected and got, hit or miss, and why; the wrong ones first."""
    return {"items": await ws.gates.cases(who, id), "next": None}


@router.post("/decisions/{id}/approve")
async def approve(who: Who, ws: Ws, id: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Approve a decision that waits: {why?, move?: true}."""
    return await ws.gates.approve(who, id, body.get("why", ""), move=body.get("move", True))


@router.post("/decisions/{id}/reject")
async def reject(who: Who, ws: Ws, id: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Reject a decision that waits: {why?}."""
    return await ws.gates.reject(who, id, body.get("why", ""))


rights = {
    "viewer": (
        "GET /api/v1/gates",
        "GET /api/v1/decisions",
        "GET /api/v1/decisions/{id}",
        "GET /api/v1/decisions/{id}/evidence",
        "GET /api/v1/decisions/{id}/cases",
    ),
    "editor": (
        "PUT /api/v1/gates/{kind}/{name}/{alias}",
        "POST /api/v1/gates/evaluate",
    ),
    "approver": (
        "POST /api/v1/decisions/{id}/approve",
        "POST /api/v1/decisions/{id}/reject",
    ),
    "admin": ("DELETE /api/v1/gates/{kind}/{name}/{alias}",),
}
"""Who may use which route: see web/rights.py."""
