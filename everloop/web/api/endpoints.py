"""Endpoints over REST: declare, list, predict."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.core.types import Batch
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["endpoints"])


@router.get("/endpoints")
async def list_endpoints(who: Who, ws: Ws) -> dict[str, Any]:
    """All endpoints with the releases behind them."""
    return await ws.endpoints.list(who)


@router.get("/endpoints/{name}")
async def endpoint(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """One endpoint."""
    return await ws.endpoints.get(who, name)


@router.put("/endpoints/{name}")
async def put_endpoint(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare an endpoint: {kind: predict|chat, spec: {release, split?, shadow?, limits?}}."""
    if "kind" not in body:
        raise BadInput("The field 'kind' is missing.", "One of: predict, chat.")
    return await ws.endpoints.put(who, name, body["kind"], body.get("spec") or {})


@router.post("/endpoints/{name}/predict")
async def predict(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Predict {rows: [{column: value}], at?: epoch seconds, user?, session?, partial?}; each prediction has an id to ask `why` about.

    `partial` true: rows that do not fit are answered null and listed in `refused`. The name may be `release:NAME@AT`.
    """
    more = {"user": str(body.get("user") or ""), "session": str(body.get("session") or ""), "partial": bool(body.get("partial"))}
    return await ws.endpoints.predict(who, name, batch_of(body.get("rows")), at=body.get("at"), **more)


def batch_of(rows: Any) -> Batch:
    """Rows as a batch by column; BadInput where they are not a list of objects."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput("The field 'rows' must be a list of objects, one a row.", 'For example: {"rows": [{"age": 41, "income": 3200}]}')
    names = dict.fromkeys(name for row in rows for name in row)
    return Batch({name: [row.get(name) for row in rows] for name in names}, len(rows))


rights = {
    "call": ("POST /api/v1/endpoints/{name}/predict",),
    "any": (
        "GET /api/v1/endpoints",
        "GET /api/v1/endpoints/{name}",
    ),
    "editor": ("PUT /api/v1/endpoints/{name}",),
}
"""Who may use which route: see web/rights.py."""
