"""The ASGI app of a workspace: sign-in under everything, then the REST API, other people's protocols and the UI, each found in its folder."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

import everloop
from everloop.core.settings import Settings
from everloop.web import problems
from everloop.web.auth import Auth
from everloop.workspace.workspace import Workspace

NEEDS = {
    "gates": ("workspace.endpoints", "workspace.data", "evaluate.gate", "evaluate.rules"),
    "monitors": ("workspace.endpoints", "workspace.pipelines", "workspace.traces", "checks.decay", "work.schedule"),
    "govern": ("workspace.traces",),
}
"""What a router needs beyond its own room; it is left out while that is missing."""
FOLDERS = ("everloop.web.api", "everloop.protocols", "everloop.web.ui")


def create_app(settings: Settings, workspace: Workspace | None = None) -> Any:
    """The app that `everloop up` serves. Its lifespan starts and stops the workspace."""
    ws = workspace or Workspace(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await ws.start()
        try:
            yield
        finally:
            await ws.stop()

    app = FastAPI(
        title="everloop", version=everloop.__version__, lifespan=lifespan, openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None
    )
    app.state.workspace = ws
    problems.install(app)
    for folder in FOLDERS:
        _mount(app, ws, folder)
    app.add_middleware(Auth, ws=ws)
    return app


def _mount(app: FastAPI, ws: Workspace, folder: str) -> None:
    package = importlib.import_module(folder)
    for info in pkgutil.iter_modules(package.__path__):
        if folder == "everloop.web.api" and not all(importlib.util.find_spec(f"everloop.{need}") for need in NEEDS.get(info.name, ())):
            continue  # its rooms have not all landed: no route is better than one that cannot answer
        module = importlib.import_module(f"{folder}.{info.name}")
        if hasattr(module, "router"):
            app.include_router(module.router)
        if hasattr(module, "mount"):
            module.mount(app, ws)
