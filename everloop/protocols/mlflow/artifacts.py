"""MLflow's artifact proxy. Paths are names in the records, never paths of a disk; a `..` is refused all the same.

EXPERIMENT/RUN/artifacts/FILE               a file of a run
EXPERIMENT/traces/TRACE/artifacts/traces.json    a trace's spans, which live in telemetry
EXPERIMENT/models/MODEL/artifacts/FILE      a file of a logged model
everloop/KIND/NAME/VERSION/FILE             a file of an asset's version (read only)
anything else                               kept under the whole path, in the project
"""

from __future__ import annotations

import mimetypes
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from everloop.assets.runs import check_path
from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import BODY_BYTES
from everloop.protocols.mlflow import trace_files
from everloop.protocols.mlflow.wire import Call, Missing, failure, reply

OTHER = "mlflow-artifacts"
"""The folder of files that belong to no run and no model."""


def place(path: str) -> tuple[str, str, str]:
    """(sort, owner, rest) of a path: sort is run, model, asset or other; `rest` may be empty (the folder itself). BadInput for `..`."""
    path = path.strip("/")
    if path:
        check_path(path)
    parts = path.split("/")
    if parts[0] == "everloop" and len(parts) >= 4:
        return "asset", f"{parts[1]}:{parts[2]}@{parts[3]}", "/".join(parts[4:])
    if len(parts) >= 4 and parts[1] == "models" and parts[3] == "artifacts":
        return "model", parts[2], "/".join(parts[4:])
    if len(parts) >= 3 and parts[2] == "artifacts" and parts[1] != "models":
        return "run", parts[1], "/".join(parts[3:])
    return "other", OTHER, path


async def answer(request: Request, ws: Any) -> Response:
    """GET (a file, or a list with ?path=), PUT and DELETE of the proxy."""
    try:
        who = request.scope["everloop.who"]
        path = request.path_params.get("path")
        if not path:
            if request.method != "GET":
                raise Missing("A path is missing.", "Name the file: /mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/FILE")
            under = request.query_params.get("path", "")
            sort, owner, rest = place(under)
            return reply({"files": children(await files_of(ws, who, sort, owner, rest), rest)})
        spans = trace_files.PATH.fullmatch(path)
        if spans and request.method in ("GET", "PUT"):
            return await _trace_file(request, ws, who, spans[1])
        sort, owner, rest = place(path)
        if not rest:
            raise BadInput(f"Invalid path: {path!r} names no file.")
        if request.method == "GET":
            return await _download(ws, who, sort, owner, rest)
        if request.method == "PUT":
            await _upload(request, ws, who, sort, owner, rest)
            return reply({})
        if request.method == "DELETE":
            if sort == "asset":
                raise BadInput("Files of a registered version cannot be deleted.")
            await ws.runs.delete_artifacts(who, owner, rest)
            return reply({})
        raise Missing(f"{request.method} is not spoken here.")
    except EverloopError as error:
        return failure(error)


async def _trace_file(request: Request, ws: Any, who: Any, id: str) -> Response:
    """A trace's spans as a file: read from telemetry, and put there."""
    if request.method == "GET":
        return Response(await trace_files.written(ws, who, id), media_type="application/json", headers=trace_files.HEADERS)
    body = await request.body()
    if len(body) > BODY_BYTES:
        raise TooLarge(f"The file is {len(body)} bytes; a trace's spans may be {BODY_BYTES}.", "Send them as OpenTelemetry, in parts.")
    await trace_files.taken(ws, who, id, body)
    return reply({})


async def files_of(ws: Any, who: Any, sort: str, owner: str, under: str = "") -> list[dict[str, Any]]:
    """All files of an owner, below a folder if told: [{"path", "digest", "size"}]. An owner that is not there has none."""
    if sort == "asset":
        files = (await ws.assets.get(who, owner))["manifest"].get("files") or []
        return [one for one in files if not under or one["path"].startswith(under + "/")]
    return await ws.runs.folder(who, owner, under)


def children(files: list[dict[str, Any]], under: str) -> list[dict[str, Any]]:
    """The direct children of a folder, as MLflow lists them: [{"path" (its name), "is_dir", "file_size"}], sorted."""
    found: dict[str, dict[str, Any]] = {}
    start = len(under) + 1 if under else 0
    for one in files:
        name, deeper, _ = one["path"][start:].partition("/")
        if deeper:
            found[name] = {"path": name, "is_dir": True}
        else:
            found[name] = {"path": name, "is_dir": False, "file_size": one["size"]}
    return [found[name] for name in sorted(found)]


async def list_artifacts(call: Call) -> Any:
    """GET artifacts/list: files of a run, with paths from the run's root."""
    run = await call.ws.runs.get(call.who, call.need("run_id", "run_uuid"))
    under = str(call.get("path", "")).strip("/")
    if under:
        check_path(under)
    found = children(await call.ws.runs.artifacts(call.who, run["id"], under), under)
    root = f"mlflow-artifacts:/{run['experiment_id']}/{run['id']}/artifacts"
    return {"root_uri": root, "files": [{**one, "path": f"{under}/{one['path']}" if under else one["path"]} for one in found]}


async def _download(ws: Any, who: Any, sort: str, owner: str, rest: str) -> Response:
    folder = rest.rpartition("/")[0]
    for one in await files_of(ws, who, sort, owner, folder):
        if one["path"] == rest:
            data = await ws.assets.get_object(who, one["digest"])
            kind = mimetypes.guess_type(rest)[0] or "application/octet-stream"
            name = rest.rpartition("/")[2].encode("ascii", "replace").decode().replace('"', "_")
            headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
            return Response(data, media_type=kind, headers=headers)
    raise NotFound(f"There is no artifact {rest!r} of {owner}.", "List them with mlflow.artifacts.list_artifacts().")


async def _upload(request: Request, ws: Any, who: Any, sort: str, owner: str, rest: str) -> None:
    if sort == "asset":
        raise BadInput("Files of a registered version cannot be changed.", "Log a model, then register it: that makes a new version.")
    if sort == "model":
        await ws.runs.model(who, owner)
    put = ws.runs.put_artifact if sort == "run" else ws.runs.put_in_folder
    async with ws.received(request.stream()) as file:
        await put(who, owner, rest, file)


ROUTES = [("GET", "artifacts/list", list_artifacts)]
