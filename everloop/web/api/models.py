"""Models in any known format, and whose pickles and code may be loaded, over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["models"])
OPTIONAL = ("sample", "classes", "positive", "task", "pipeline", "card", "run", "reads", "description", "tags")


@router.post("/models", status_code=201)
async def put_model(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Register a model: {name, format, files: [{path, digest, size}], sample?, classes?, positive?, task?, card?, run?, reads?, description?, tags?}."""
    for field in ("name", "format", "files"):
        if field not in body:
            raise BadInput(f"The field {field!r} is missing.", "Needed: name, format, files.")
    more = {key: body[key] for key in OPTIONAL if body.get(key) is not None}
    return await ws.models.put(who, body["name"], body["format"], body["files"], **more)


@router.get("/trusted")
async def list_trusted(who: Who, ws: Ws) -> dict[str, Any]:
    """Producers whose pickles and code may be loaded."""
    return {"items": await ws.models.trusted(who), "next": None}


@router.put("/trusted/{producer}")
async def trust(who: Who, ws: Ws, producer: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Trust a producer (a principal's name): {why?}."""
    return await ws.models.trust(who, producer, str(body.get("why", "")))


@router.delete("/trusted/{producer}", status_code=204)
async def distrust(who: Who, ws: Ws, producer: str) -> None:
    """Trust a producer no longer; what is loaded of it is let go."""
    await ws.models.distrust(who, producer)


rights = {
    "viewer": ("GET /api/v1/trusted",),
    "editor": ("POST /api/v1/models",),
    "admin": ("PUT /api/v1/trusted/{producer}", "DELETE /api/v1/trusted/{producer}"),
}
"""Who may use which route: see web/rights.py."""
