"""The ASGI app of a workspace: sign-in under everything, then other people's protocols, the REST API and the UI, each found in its folder.

A module is found by having `router` (an APIRouter) or `mount(app, ws)`. It says who may use its routes in `rights` (see rights.py), and may
say `direct(ws)` (see direct.py), `error_shapes = {"/prefix": shape}`, `error_bodies = {"/prefix": writer}` and `error_page` (see problems.py).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.responses import JSONResponse, RedirectResponse

import everloop
from everloop.core.settings import Settings
from everloop.web import oidc, problems, signin
from everloop.web.auth import SignIn
from everloop.web.direct import Direct
from everloop.web.frame import Frame
from everloop.web.limits import BodyLimit
from everloop.web.refusals import Refusals
from everloop.web.rights import Rights
from everloop.workspace.workspace import Workspace

FOLDERS = ("everloop.protocols", "everloop.web.api", "everloop.web.ui")
"""Where routes live; in this order they are matched."""


class Json(JSONResponse):
    """JSON by orjson; nan and infinities, which JSON does not have, become null."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def create_app(settings: Settings, workspace: Workspace | None = None) -> FastAPI:
    """The app that `everloop up` serves. Its lifespan starts and stops the workspace."""
    ws = workspace or Workspace(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ours = not ws.started  # `everloop up` starts the workspace before the app, and stops it after
        if ours:
            await ws.start()
        try:
            yield
        finally:
            app.state.draining = True
            if ours:
                await ws.stop()

    app = FastAPI(
        title="everloop",
        description="One open platform that takes any model to production and keeps it good there.",
        version=everloop.__version__,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=Json,
    )
    app.state.workspace = ws
    app.state.draining = False
    app.state.rights = Rights()
    app.state.direct = {}
    app.state.rights.add({"any": ("GET /api/v1/openapi.json",)})
    problems.install(app)
    for folder in FOLDERS:
        _take_in(folder, app, ws)
    app.state.oidc = oidc.configured(settings)
    for module in (signin, oidc):
        app.include_router(module.router)
        app.state.rights.add(module.rights)
    app.add_api_route("/", _root, include_in_schema=False)
    app.add_middleware(Direct, table=app.state.direct)
    app.add_middleware(SignIn, ws=ws, rights=app.state.rights)  # the last one added is the outermost
    app.add_middleware(BodyLimit)
    app.add_middleware(Frame, refusals=Refusals(ws))
    return app


async def _root() -> RedirectResponse:
    """The UI."""
    return RedirectResponse("/ui", 307)


def _take_in(folder: str, app: FastAPI, ws: Workspace) -> None:
    """Take in the routes of a folder's modules, and what they say about them."""
    package = importlib.import_module(folder)
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{folder}.{info.name}")
        if hasattr(module, "router"):
            app.include_router(module.router)
        if hasattr(module, "mount"):
            module.mount(app, ws)
        if hasattr(module, "direct"):
            app.state.direct.update(module.direct(ws))
        app.state.error_shapes.update(getattr(module, "error_shapes", {}))
        app.state.error_page = getattr(module, "error_page", app.state.error_page)
        app.state.error_bodies.update(getattr(module, "error_bodies", {}))
        app.state.rights.add(getattr(module, "rights", {}))
