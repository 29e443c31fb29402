"""MLflow's REST API 2.0 and 3.0 as its unmodified client uses it. An MLflow run is our run, a model version is our asset
`model:NAME@V`, a prompt is our prompt; an alias moves through the gate. `mlflow.set_tracking_uri(url)` is all a script changes.

Every path answers under `/api/...` and under `/ajax-api/...`. One handler serves them all: it finds the function by (method, path) in a
dict, so that a route costs the same whether there are ten or a hundred.
"""

from __future__ import annotations

from typing import Any

from everloop.protocols.mlflow import artifacts, models, registry, tracking, wire


def mount(app: Any, ws: Any) -> None:
    """Add the routes to the web application."""
    routes = wire.Routes([*tracking.ROUTES, *models.ROUTES, *registry.ROUTES, *artifacts.ROUTES])
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    async def api(request: Any) -> Any:
        return await routes.answer(request, ws)

    async def files(request: Any) -> Any:
        return await artifacts.answer(request, ws)

    async def info(request: Any) -> Any:
        return wire.reply(SERVER_INFO)

    for prefix in ("/api", "/ajax-api"):
        app.add_route(f"{prefix}/3.0/mlflow/server-info", info, methods=["GET"])
        for number in ("2.0", "3.0"):
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/artifacts", files, methods=methods)
            app.add_route(f"{prefix}/{number}/mlflow-artifacts/artifacts/{{path:path}}", files, methods=methods)
            app.add_route(f"{prefix}/{number}/mlflow/{{path:path}}", api, methods=methods)


SERVER_INFO: dict[str, Any] = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}
