"""Assets, aliases and releases over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Request

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["assets"])


@router.get("/assets")
async def list_assets(who: Who, ws: Ws, kind: str | None = None, search: str = "", limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
    """Names of assets by last change, newest first."""
    return await ws.assets.list(who, kind, search, limit, cursor)


@router.get("/asset-kinds")
async def list_kinds(who: Who, ws: Ws) -> dict[str, Any]:
    """How many names and versions of each kind there are."""
    return {"items": await ws.assets.kinds(who), "next": None}


@router.post("/assets", status_code=201)
async def register_asset(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Register a version: {kind, name, manifest, run?, reads?, description?, tags?}. Same content answers the same version."""
    for field in ("kind", "name", "manifest"):
        if field not in body:
            raise BadInput(f"The field {field!r} is missing.", "Needed: kind, name, manifest.")
    more = {key: body[key] for key in ("run", "reads", "description", "tags") if body.get(key) is not None}
    return await ws.assets.register(who, body["kind"], body["name"], body["manifest"], **more)


@router.post("/releases", status_code=201)
async def make_release(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Make a release: {name, kind: predict|chat, pins, params?, policy?, run?, description?}."""
    for field in ("name", "kind", "pins"):
        if field not in body:
            raise BadInput(f"The field {field!r} is missing.", "Needed: name, kind, pins.")
    more = {key: body[key] for key in ("run", "description") if body.get(key) is not None}
    return await ws.assets.release(who, body["name"], body["kind"], body["pins"], body.get("params"), body.get("policy"), **more)


@router.get("/assets/{kind}/{name}")
async def asset_versions(who: Who, ws: Ws, kind: str, name: str, limit: int = 100, before: int | None = None) -> dict[str, Any]:
    """All versions of a name, newest first."""
    items = await ws.assets.versions(who, kind, name, limit, before)
    return {"items": items, "next": items[-1]["version"] if len(items) == limit else None}


@router.get("/deleted-assets")
async def deleted_assets(who: Who, ws: Ws, kind: str | None = None) -> dict[str, Any]:
    """Versions that were deleted and can be restored, last deleted first."""
    return {"items": await ws.assets.deleted(who, kind), "next": None}


@router.get("/assets/{kind}/{name}/compare")
async def compare_versions(who: Who, ws: Ws, kind: str, name: str, request: Request) -> dict[str, Any]:
    """Two versions side by side, ?from=1&to=2 (numbers or aliases): params, metrics, data, code, signature, files, size."""
    left, right = (request.query_params.get(side) for side in ("from", "to"))
    if not left or not right:
        raise BadInput("Which versions are to be compared is missing.", "Add ?from=1&to=2 (numbers or aliases).")
    return await ws.assets.compare(who, kind, name, left, right)


@router.get("/assets/{kind}/{name}/{at}")
async def asset(who: Who, ws: Ws, kind: str, name: str, at: str) -> dict[str, Any]:
    """One version, by number, alias or `latest`."""
    return await ws.assets.get(who, f"{kind}:{name}@{at}")


@router.patch("/assets/{kind}/{name}/{at}")
async def annotate_asset(who: Who, ws: Ws, kind: str, name: str, at: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Change a version's description and tags."""
    return await ws.assets.annotate(who, f"{kind}:{name}@{at}", body.get("description"), body.get("tags"))


@router.delete("/assets/{kind}/{name}/{at}")
async def delete_asset(who: Who, ws: Ws, kind: str, name: str, at: str, permanent: bool = False) -> dict[str, Any]:
    """Put a version out of sight, restorable; with ?permanent=true (admins) delete it for good. Refused while something live needs it."""
    return await ws.assets.delete(who, f"{kind}:{name}@{at}", permanent)


@router.post("/assets/{kind}/{name}/{at}/restore")
async def restore_asset(who: Who, ws: Ws, kind: str, name: str, at: str) -> dict[str, Any]:
    """Bring a deleted version back."""
    return await ws.assets.restore(who, f"{kind}:{name}@{at}")


@router.put("/assets/{kind}/{name}/aliases/{alias}")
async def move_alias(who: Who, ws: Ws, kind: str, name: str, alias: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Move an alias to {version}, through the gate where one is declared: {decision?, why?}."""
    at = body.get("version", body.get("at"))
    if at is None:
        raise BadInput("The field 'version' is missing.", 'Send {"version": 3}.')
    return await ws.assets.move_alias(who, f"{kind}:{name}@{at}", alias, decision=body.get("decision"), why=body.get("why", ""))


@router.delete("/assets/{kind}/{name}/aliases/{alias}", status_code=204)
async def remove_alias(who: Who, ws: Ws, kind: str, name: str, alias: str) -> None:
    """Delete an alias."""
    await ws.assets.remove_alias(who, kind, name, alias)


@router.get("/assets/{kind}/{name}/aliases/{alias}/history")
async def alias_history(who: Who, ws: Ws, kind: str, name: str, alias: str) -> dict[str, Any]:
    """Every move of an alias, newest first."""
    return {"items": await ws.assets.alias_history(who, kind, name, alias), "next": None}


rights = {
    "viewer": (
        "GET /api/v1/assets",
        "GET /api/v1/asset-kinds",
        "GET /api/v1/assets/{kind}/{name}",
        "GET /api/v1/deleted-assets",
        "GET /api/v1/assets/{kind}/{name}/compare",
        "GET /api/v1/assets/{kind}/{name}/{at}",
        "GET /api/v1/assets/{kind}/{name}/aliases/{alias}/history",
    ),
    "editor": (
        "POST /api/v1/assets",
        "POST /api/v1/releases",
        "PATCH /api/v1/assets/{kind}/{name}/{at}",
        "DELETE /api/v1/assets/{kind}/{name}/{at}",
        "POST /api/v1/assets/{kind}/{name}/{at}/restore",
        "PUT /api/v1/assets/{kind}/{name}/aliases/{alias}",
        "DELETE /api/v1/assets/{kind}/{name}/aliases/{alias}",
    ),
}
"""Who may use which route: see web/rights.py."""
