"""Pipelines, schedules and the queue over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["pipelines"])


def _field(body: dict[str, Any], name: str) -> Any:
    if name not in body:
        raise BadInput(f"The field {name!r} is missing.")
    return body[name]


@router.get("/pipelines")
async def list_pipelines(who: Who, ws: Ws) -> dict[str, Any]:
    """All pipelines."""
    return await ws.pipelines.list(who)


@router.put("/pipelines/{name}")
async def put_pipeline(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare a pipeline: {steps: [{name, call, after, params, cache}], code, params, schedule}."""
    return await ws.pipelines.put(who, name, body)


@router.get("/pipelines/{name}")
async def pipeline(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """One pipeline."""
    return await ws.pipelines.get(who, name)


@router.post("/pipelines/{name}/runs")
async def start_pipeline(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Start a run: {params}."""
    return await ws.pipelines.start(who, name, body.get("params") or {}, "manual")


@router.get("/pipeline-runs")
async def pipeline_runs(who: Who, ws: Ws, pipeline: str | None = None, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
    """Pipeline runs, newest first."""
    return await ws.pipelines.runs(who, pipeline, limit, cursor)


@router.get("/pipeline-runs/{id}")
async def pipeline_run(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """A pipeline run and its steps."""
    return await ws.pipelines.state(who, id)


@router.post("/pipeline-runs/{id}/cancel")
async def cancel_run(who: Who, ws: Ws, id: str) -> dict[str, Any]:
    """End a pipeline run."""
    return await ws.pipelines.cancel(who, id)


@router.get("/schedules")
async def list_schedules(who: Who, ws: Ws) -> dict[str, Any]:
    """All schedules."""
    return await ws.pipelines.schedules(who)


@router.put("/schedules/{name}")
async def put_schedule(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Declare a schedule: {pipeline, cron, params, enabled}."""
    more = body.get("params") or {}
    return await ws.pipelines.put_schedule(who, name, _field(body, "pipeline"), _field(body, "cron"), more, body.get("enabled", True))


@router.post("/schedules/{name}/run")
async def run_schedule(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """Start what a schedule starts, as if it were {at} (epoch seconds or ISO)."""
    at = body.get("at")
    return await ws.pipelines.run_now(who, name, from_iso(str(at)) if at is not None else None)


@router.post("/work/lease")
async def lease(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """The next task for {owner}, waiting up to {wait} seconds: {"task": null or the task with a token}."""
    return {"task": await ws.pipelines.lease(who, _field(body, "owner"), float(body.get("wait", 0)))}


@router.post("/work/heartbeat")
async def heartbeat(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Renew the lease of {id} by {owner}."""
    return await ws.pipelines.heartbeat(who, _field(body, "id"), _field(body, "owner"))


@router.post("/work/complete")
async def complete(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """The step is done, with {result}."""
    await ws.pipelines.complete(who, _field(body, "id"), _field(body, "owner"), body.get("result"))
    return {"state": "done"}


@router.post("/work/fail")
async def fail(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """The step failed, with {error}; {retry: false} ends it."""
    return await ws.pipelines.fail(who, _field(body, "id"), _field(body, "owner"), str(body.get("error", "")), body.get("retry", True))


@router.post("/work/release")
async def release(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """The worker is stopped and gives the task back."""
    await ws.pipelines.release(who, _field(body, "id"), _field(body, "owner"))
    return {"state": "ready"}


rights = {
    "work": (
        "POST /api/v1/work/lease",
        "POST /api/v1/work/heartbeat",
        "POST /api/v1/work/complete",
        "POST /api/v1/work/fail",
        "POST /api/v1/work/release",
    ),
    "viewer": (
        "GET /api/v1/pipelines",
        "GET /api/v1/pipelines/{name}",
        "GET /api/v1/pipeline-runs",
        "GET /api/v1/pipeline-runs/{id}",
        "GET /api/v1/schedules",
    ),
    "editor": (
        "PUT /api/v1/pipelines/{name}",
        "POST /api/v1/pipelines/{name}/runs",
        "POST /api/v1/pipeline-runs/{id}/cancel",
        "PUT /api/v1/schedules/{name}",
        "POST /api/v1/schedules/{name}/run",
    ),
}
"""Who may use which route: see web/rights.py."""
