"""What MLflow's own pages ask beside its API, and clients sometimes too: a file by its run or version, a small upload, a run of the prompt lab."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from everloop.core.errors import BadInput, EverloopError
from everloop.protocols.mlflow.artifacts import files_of, keep, place, safe, send_file
from everloop.protocols.mlflow.shapes import asset_uri, origin
from everloop.protocols.mlflow.tracking import NAME, run_of
from everloop.protocols.mlflow.wire import Call, failure, reply, seconds

UPLOAD = 10 * 1024 * 1024
"""Largest file that upload-artifact takes."""


async def run_file(request: Request, ws: Any) -> Response:
    """GET /get-artifact?run_id=&path=: a file of a run."""
    try:
        who, query = request.scope["everloop.who"], request.query_params
        path = safe(_given(query.get("path"), "path"))
        run = await ws.runs.get(who, _given(query.get("run_id") or query.get("run_uuid"), "run_id"))
        return await send_file(ws, who, await ws.runs.artifacts(who, run["id"], path.rpartition("/")[0]), path, path)
    except EverloopError as error:
        return failure(error)


async def version_file(request: Request, ws: Any) -> Response:
    """GET /model-versions/get-artifact?name=&version=&path=: a file of a model version."""
    try:
        who, query = request.scope["everloop.who"], request.query_params
        path = safe(_given(query.get("path"), "path"))
        asset = await ws.registry.version(who, _given(query.get("name"), "name"), _given(query.get("version"), "version"))
        uri = str(origin(asset).get("artifact_uri") or asset_uri(asset))
        sort, owner, under = place(uri.removeprefix("mlflow-artifacts:").strip("/"))
        inside = f"{under}/{path}" if under else path
        return await send_file(ws, who, await files_of(ws, who, sort, owner, inside.rpartition("/")[0]), inside, path)
    except EverloopError as error:
        return failure(error)


async def upload(request: Request, ws: Any) -> Response:
    """POST upload-artifact?run_uuid=&path=: the body becomes a file of a run."""
    try:
        who, query = request.scope["everloop.who"], request.query_params
        run = _given(query.get("run_uuid"), "run_uuid")
        path = safe(_given(query.get("path"), "path"))
        await keep(request, ws, lambda file: _put(ws, who, run, path, file), UPLOAD)
        return reply({})
    except EverloopError as error:
        return failure(error)


async def prompt_lab(call: Call) -> Any:
    """runs/create-promptlab-run: one answer of a prompt, as a run that is over."""
    for name in ("experiment_id", "prompt_template", "prompt_parameters", "model_route", "model_input", "mlflow_version"):
        if not call.get(name):
            raise BadInput(f"CreatePromptlabRun request must specify {name}.")
    params = {**call.pairs("model_parameters"), "model_route": call.need("model_route"), "prompt_template": call.need("prompt_template")}
    at = seconds(call.get("start_time"), "start_time") or call.ws.clock.now()
    tags = {
        **call.pairs(),
        "mlflow.loggedArtifacts": '[{"path": "eval_results_table.json", "type": "table"}]',
        "mlflow.runSourceType": "PROMPT_ENGINEERING",
        "mlflow.user": str(call.get("user_id", "unknown")),
    }
    name = str(call.get("run_name", ""))
    made = await call.ws.runs.create(
        call.who,
        name,
        "evaluation",
        experiment_id=call.need("experiment_id"),
        params=params,
        tags={**tags, NAME: name} if name else tags,
        started_at=at,
    )
    given = call.pairs("prompt_parameters")
    row = {**given, "prompt": call.need("model_input"), "output": call.get("model_output"), **call.pairs("model_output_parameters")}
    table = orjson.dumps({"columns": list(row), "data": [list(row.values())]})
    await call.ws.runs.put_artifact(call.who, made["id"], "eval_results_table.json", table)
    await call.ws.runs.finish(call.who, made["id"], ended_at=max(at, call.ws.clock.now()))
    return {"run": run_of(await call.ws.runs.get(call.who, made["id"], True), None)}


async def _put(ws: Any, who: Any, run: str, path: str, file: Any) -> None:
    if not file.stat().st_size:
        raise BadInput("Request must specify data.")
    await ws.runs.put_artifact(who, run, path, file)


def _given(value: str | None, name: str) -> str:
    if not value:
        raise BadInput(f"Request must specify {name}.")
    return value


ROUTES = [("POST", "runs/create-promptlab-run", prompt_lab)]
