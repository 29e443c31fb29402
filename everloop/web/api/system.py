"""Is it up, what does it speak; and, for foreign test suites alone, forgetting everything."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

import everloop
from everloop.core.errors import Forbidden, NotFound
from everloop.core.principal import Role
from everloop.web.deps import Who, Ws

MLFLOW_VERSION = "3.18.0"
router = APIRouter(tags=["system"])


@router.get("/health")
async def health(request: Request, response: Response) -> dict[str, Any]:
    """200 when ready, 503 while starting or draining."""
    state = request.app.state
    ready = state.workspace.started and not state.draining
    if not ready:
        response.status_code = 503
        response.headers["retry-after"] = "1"
    return {"name": "everloop", "status": "ok" if ready else "draining" if state.draining else "starting", "version": everloop.__version__}


@router.get("/version")
async def version() -> Response:
    """The MLflow version whose API is spoken (MLflow's client asks)."""
    return Response(MLFLOW_VERSION, media_type="text/plain")


@router.post("/api/v1/test/reset", status_code=204)
async def reset(who: Who, ws: Ws) -> None:
    """Drop all state of all projects. Only where the server was started with EVERLOOP_TEST_RESET=1; else there is no such route."""
    if not ws.settings.test_reset:
        raise NotFound("There is nothing at POST /api/v1/test/reset.")
    who.need(Role.admin, "drop all state")
    if not who.site_admin:
        raise Forbidden("Only a site admin drops the state of all projects.")
    await ws.reset()


rights = {
    "public": (
        "GET /health",
        "GET /version",
    ),
    "site": ("POST /api/v1/test/reset",),
}
"""Who may use which route: see web/rights.py."""
