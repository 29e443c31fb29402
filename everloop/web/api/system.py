"""Is it up, what does it speak, who am I, keys and projects."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Request, Response

import everloop
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

MLFLOW_VERSION = "3.18.0"
router = APIRouter(tags=["system"])


@router.get("/health")
async def health(request: Request, response: Response) -> dict[str, Any]:
    """200 when ready, 503 while starting or draining."""
    ready = request.app.state.workspace.started
    response.status_code = 200 if ready else 503
    return {"name": "everloop", "status": "ok" if ready else "not ready", "version": everloop.__version__}


@router.get("/version")
async def version() -> Response:
    """The MLflow version whose API is spoken (MLflow's client asks)."""
    return Response(MLFLOW_VERSION, media_type="text/plain")


@router.get("/api/v1/me")
async def me(who: Who) -> dict[str, Any]:
    """Who this request acts as."""
    return {"name": who.name, "project": who.project, "role": who.role.name, "kind": who.kind, "site_admin": who.site_admin}


@router.get("/api/v1/keys")
async def list_keys(who: Who, ws: Ws) -> dict[str, Any]:
    """Keys of the project (admin); never the keys themselves."""
    return {"items": await ws.identity.keys(who), "next": None}


@router.post("/api/v1/keys", status_code=201)
async def create_key(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A new key: {name, role?, expires_days?}. The answer is the only time the key is seen."""
    if "name" not in body:
        raise BadInput("The field 'name' is missing.", 'Send {"name": "ci", "role": "editor"}.')
    return await ws.identity.create_key(who, body["name"], body.get("role", "editor"), body.get("expires_days"))


@router.delete("/api/v1/keys/{id}", status_code=204)
async def revoke_key(who: Who, ws: Ws, id: str) -> None:
    """Revoke a key by id or name."""
    await ws.identity.revoke_key(who, id)


@router.get("/api/v1/projects")
async def list_projects(who: Who, ws: Ws) -> dict[str, Any]:
    """Projects that one may act in."""
    return {"items": await ws.identity.projects(who), "next": None}


@router.post("/api/v1/projects", status_code=201)
async def create_project(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A new project (site admin): {name}."""
    return await ws.identity.create_project(who, str(body.get("name", "")))
