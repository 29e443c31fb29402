"""Experiments, runs, metrics and files of runs over REST."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Body, Query, Request, Response

from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import BODY_BYTES
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["runs"])
NEW_RUN = ("name", "kind", "experiment", "parent", "experiment_id", "pipeline", "params", "tags", "code", "environment", "started_at", "status", "id")


@router.get("/experiments")
async def list_experiments(
    who: Who, ws: Ws, filter: str = "", view: str = "active", limit: int = 100, cursor: str | None = None, order_by: list[str] | None = Query(None)
) -> dict[str, Any]:
    """Experiments, last changed first; `filter` as in MLflow: name LIKE 'cred%' and tags.team = 'risk'."""
    return await ws.runs.experiments(who, filter, limit, cursor, view, order_by)


@router.post("/experiments", status_code=201)
async def create_experiment(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Make an experiment: {name, tags?}."""
    return await ws.runs.create_experiment(who, str(body.get("name") or ""), body.get("tags"))


@router.get("/experiments/{id}")
async def experiment(who: Who, ws: Ws, id: str) -> Any:
    """One experiment."""
    return await ws.runs.experiment(who, id)


@router.patch("/experiments/{id}")
async def change_experiment(who: Who, ws: Ws, id: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Rename, tag, delete or restore an experiment: {name?, tags?, deleted?}."""
    more = {key: body[key] for key in ("name", "tags", "deleted") if key in body}
    return await ws.runs.change_experiment(who, id, **more)


@router.get("/runs")
async def list_runs(
    who: Who,
    ws: Ws,
    filter: str = "",
    experiment: str | None = None,
    kind: str | None = None,
    parent: str | None = None,
    text: str = "",
    view: str = "active",
    limit: int = 100,
    cursor: str | None = None,
    order_by: list[str] | None = Query(None),
) -> dict[str, Any]:
    """Runs that fit, newest first; `filter` and `order_by` as in MLflow: metrics.auc > 0.8 and params.model = 'forest'."""
    return await ws.runs.search(who, filter, experiment, limit, cursor, kind=kind, parent=parent, text=text, view=view, order_by=order_by)


@router.post("/runs", status_code=201)
async def create_run(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Start a run: {name?, kind?, experiment?, parent?, params?, tags?, code?, environment?, started_at?}."""
    return await ws.runs.create(who, **{key: body[key] for key in NEW_RUN if body.get(key) is not None})


@router.get("/runs/{id}")
async def run(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """One run with params, latest metrics and tags."""
    return await ws.runs.get(who, id)


@router.patch("/runs/{id}")
async def change_run(who: Who, ws: Ws, id: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Change a run: {status?, ended_at?, name?, error?, code?, environment?}."""
    allowed = ("status", "ended_at", "name", "error", "code", "environment")
    return await ws.runs.update(who, id, **{key: body[key] for key in allowed if body.get(key) is not None})


@router.delete("/runs/{id}", status_code=204)
async def delete_run(who: Who, ws: Ws, id: str) -> None:
    """Put a run out of sight."""
    await ws.runs.delete(who, id)


@router.post("/runs/{id}/restore", status_code=204)
async def restore_run(who: Who, ws: Ws, id: str) -> None:
    """Bring a deleted run back."""
    await ws.runs.restore(who, id)


@router.post("/runs/{id}/inputs")
async def read_by_run(who: Who, ws: Ws, id: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Note asset versions that a run read, as lineage: {refs: [...]}; answers the exact references."""
    refs = body.get("refs")
    if not isinstance(refs, list) or not all(isinstance(one, str) for one in refs):
        raise BadInput("The body needs refs, a list of references.", 'Send {"refs": ["dataset:credit@3"]}.')
    return {"refs": await ws.runs.read(who, id, refs)}


@router.post("/runs/{id}/log", status_code=204)
async def log_to_run(who: Who, ws: Ws, id: str, request: Request) -> None:
    """Log to a run, all or nothing: {params?: {}, tags?: {}, metrics?: {key: value} or [{key, value, step?, at?}], series?: {key: {value: [], step: [], at: []}}}."""
    raw = await request.body()
    if len(raw) > BODY_BYTES:
        raise TooLarge(f"The body is {len(raw)} bytes; at most {BODY_BYTES} are allowed.", "Send it in parts.")
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}.", "Numbers that are not finite are the texts NaN, Infinity, -Infinity.") from None
    if not isinstance(body, dict):
        raise BadInput("The body is not an object.", 'Send {"metrics": {"auc": 0.8}}.')
    await ws.runs.log(who, id, body.get("params"), body.get("metrics"), body.get("tags"), body.get("series"))


@router.delete("/runs/{id}/tags/{key}", status_code=204)
async def delete_run_tag(who: Who, ws: Ws, id: str, key: str) -> None:
    """Remove a tag."""
    await ws.runs.delete_tag(who, id, key)


@router.get("/runs/{id}/metrics/{key:path}")
async def metric_history(
    who: Who,
    ws: Ws,
    id: str,
    key: str,
    limit: int = 25_000,
    cursor: str | None = None,
    points: int | None = None,
    start_step: int | None = None,
    end_step: int | None = None,
) -> Response:
    """A metric's series by time: items of {value, step, at}. With `points`, for a chart: as many pieces at most, {step, at, value, min, max, n} each."""
    if points is not None:
        return Response(orjson.dumps(await ws.runs.chart(who, id, key, points, start_step, end_step)), media_type="application/json")
    return Response(orjson.dumps(await ws.runs.history(who, id, key, limit, cursor)), media_type="application/json")


@router.get("/runs/{id}/artifacts")
async def list_artifacts(who: Who, ws: Ws, id: str, under: str = "") -> dict[str, Any]:
    """Files of a run, below a folder if told."""
    return {"items": await ws.runs.artifacts(who, id, under), "next": None}


@router.put("/runs/{id}/artifacts/{path:path}", status_code=201)
async def put_artifact(who: Who, ws: Ws, id: str, path: str, request: Request) -> dict[str, Any]:
    """Store the body's bytes as a file of the run. Streams to disk, never all in memory."""
    async with ws.received(request.stream()) as file:
        return await ws.runs.put_artifact(who, id, path, file)


@router.get("/runs/{id}/artifacts/{path:path}")
async def get_artifact(who: Who, ws: Ws, id: str, path: str) -> Response:
    """The bytes of one file; always answered as a download, never rendered."""
    data = await ws.runs.get_artifact(who, id, path)
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.delete("/runs/{id}/artifacts/{path:path}")
async def delete_artifacts(who: Who, ws: Ws, id: str, path: str) -> dict[str, Any]:
    """Forget a file, or all below a folder."""
    return {"deleted": await ws.runs.delete_artifacts(who, id, path)}


rights = {
    "viewer": (
        "GET /api/v1/experiments",
        "GET /api/v1/experiments/{id}",
        "GET /api/v1/runs",
        "GET /api/v1/runs/{id}",
        "GET /api/v1/runs/{id}/metrics/{key:path}",
        "GET /api/v1/runs/{id}/artifacts",
        "GET /api/v1/runs/{id}/artifacts/{path:path}",
    ),
    "editor": (
        "POST /api/v1/experiments",
        "POST /api/v1/runs/{id}/inputs",
        "PATCH /api/v1/experiments/{id}",
        "POST /api/v1/runs",
        "PATCH /api/v1/runs/{id}",
        "DELETE /api/v1/runs/{id}",
        "POST /api/v1/runs/{id}/restore",
        "POST /api/v1/runs/{id}/log",
        "DELETE /api/v1/runs/{id}/tags/{key}",
        "PUT /api/v1/runs/{id}/artifacts/{path:path}",
        "DELETE /api/v1/runs/{id}/artifacts/{path:path}",
    ),
}
"""Who may use which route: see web/rights.py."""
