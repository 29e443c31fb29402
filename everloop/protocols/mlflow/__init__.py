"""MLflow's REST API 2.0 and 3.0 as its unmodified client uses it. An MLflow run is our run, a model version is our asset
`model:NAME@V`, a prompt is our prompt; an alias moves through the gate. `mlflow.set_tracking_uri(url)` is all a script changes.

Every path answers under `/api/...` and under `/ajax-api/...`. One handler serves them all: it finds the function by (method, path) in a
dict, so that a route costs the same whether there are ten or a hundred.
"""

from __future__ import annotations

from typing import Any

import orjson

from everloop.core.errors import EverloopError
from everloop.core.settings import is_loopback
from everloop.protocols.mlflow import (
    artifacts,
    evaluation,
    experiments,
    histories,
    hot,
    inputs,
    models,
    pages,
    registry,
    traces,
    tracking,
    uploads,
    webhooks,
    wire,
)

MODULES = (experiments, tracking, histories, inputs, models, registry, artifacts, pages, traces, evaluation, webhooks)
TABLE = [route for module in MODULES for route in module.ROUTES]
PREFIXES = [f"{prefix}/{number}" for prefix in ("/api", "/ajax-api") for number in ("2.0", "3.0")]
PART = "/api/2.0/mlflow-artifacts/mpu-part"
"""Where parts of an upload are put."""
SEARCHES = ("search", "search-datasets", "get-latest-versions", "calculate-filter-correlation", "metrics", "batchGetInfos")
"""Last parts of POSTs that only read."""


def _rights() -> dict[str, list[str]]:
    """Who may use which route (see web/rights.py): reading is for viewers, sending traces for callers too, all else for editors."""
    private = {(method, path) for method, path, _ in webhooks.ROUTES}  # who listens, and where, is for those who may change it
    reads = {(method, path) for method, path, _ in TABLE if method == "GET" or (method == "POST" and path.rsplit("/", 1)[-1] in SEARCHES)} - private
    files = "mlflow-artifacts/artifacts"
    viewer = [f"{method} {at}/mlflow/{path}" for at in PREFIXES for method, path in sorted(reads)]
    viewer += [f"GET {at}/{files}{rest}" for at in PREFIXES for rest in ("", "/{path:path}")]
    viewer += [f"GET {at}/mlflow-artifacts/presigned/{{path:path}}" for at in PREFIXES]
    viewer += ["GET /get-artifact", "GET /model-versions/get-artifact"]
    call = [f"{method} {at}/mlflow/{path}" for at in PREFIXES for method, path in traces.CALLS]
    editor = [f"{method} {at}/mlflow/{path}" for at in PREFIXES for method, path, _ in TABLE if (method, path) not in reads | set(traces.CALLS)]
    editor += [f"{method} {at}/{files}/{{path:path}}" for at in PREFIXES for method in ("PUT", "DELETE")]
    editor += [f"POST {at}/mlflow-artifacts/mpu/{{path:path}}" for at in PREFIXES]
    editor += [f"POST {at}/mlflow/upload-artifact" for at in PREFIXES]
    anybody = [f"GET {at}/mlflow/server-info" for at in PREFIXES if at.endswith("3.0")]
    return {"public": [f"PUT {PART}"], "any": anybody, "viewer": viewer, "call": call, "editor": editor}  # a part's address carries its own proof


def _shape(error: EverloopError) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(wire.failure(error).body)
    return body


rights = _rights()
error_shapes = dict.fromkeys([*(f"{at}/mlflow" for at in PREFIXES), "/get-artifact", "/model-versions/"], _shape)


def mount(app: Any, ws: Any) -> None:
    """Add the routes to the web application."""
    routes = wire.Routes(TABLE)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    async def api(request: Any) -> Any:
        return await routes.answer(request, ws)

    async def files(request: Any) -> Any:
        return await artifacts.answer(request, ws)

    async def parts(request: Any) -> Any:
        return await uploads.answer(request, ws)

    async def presigned(request: Any) -> Any:
        return await uploads.presigned(request, ws)

    async def part(request: Any) -> Any:
        return await uploads.put_part(request, ws)

    async def info(request: Any) -> Any:
        return wire.reply({**SERVER_INFO, "multipart_uploads_enabled": bool(ws.settings.public_url) or is_loopback(ws.settings.host)})

    async def run_file(request: Any) -> Any:
        return await pages.run_file(request, ws)

    async def version_file(request: Any) -> Any:
        return await pages.version_file(request, ws)

    async def upload(request: Any) -> Any:
        return await pages.upload(request, ws)

    app.add_route(PART, part, methods=["PUT"])
    app.add_route("/get-artifact", run_file, methods=["GET"])
    app.add_route("/model-versions/get-artifact", version_file, methods=["GET"])
    for prefix in ("/api", "/ajax-api"):
        app.add_route(f"{prefix}/3.0/mlflow/server-info", info, methods=["GET"])
        for number in ("2.0", "3.0"):
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/artifacts", files, methods=["GET"])
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/artifacts/{{path:path}}", files, methods=["GET", "PUT", "DELETE"])
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/mpu/{{path:path}}", parts, methods=["POST"])
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/presigned/{{path:path}}", presigned, methods=["GET"])
            app.add_route(f"{prefix}/{number}/mlflow/upload-artifact", upload, methods=["POST"])
            app.add_route(f"{prefix}/{number}/mlflow/{{path:path}}", api, methods=methods)


def direct(ws: Any) -> dict[tuple[str, str], hot.Handler]:
    """What a training loop asks for, taken without the routes above (see web/direct.py)."""
    return {(method, f"{at}/mlflow/{path}"): handler for (method, path), handler in hot.handlers(ws).items() for at in PREFIXES}


SERVER_INFO: dict[str, Any] = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}
