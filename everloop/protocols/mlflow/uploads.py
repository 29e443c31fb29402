"""Uploads and downloads in parts over MLflow's artifact proxy: mpu/create, complete and abort below the folder that the file goes to, and the parts' addresses.

MLflow's client sends the parts without its key, as to a bucket, so that an address carries a seal for its part alone (see workspace/uploads).
"""

from __future__ import annotations

import urllib.parse
from dataclasses import replace
from pathlib import PureWindowsPath
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from everloop.core.errors import BadInput, EverloopError, NotFound
from everloop.core.principal import Role
from everloop.protocols.mlflow.artifacts import files_of, keep, place
from everloop.protocols.mlflow.wire import body_of, failure, reply

READ_SECONDS = 900.0
"""How long the key of a presigned address is good; the client asks for another one then."""


async def answer(request: Request, ws: Any) -> Response:
    """POST mpu/{create, complete, abort}/FOLDER."""
    try:
        verb, _, folder = request.path_params["path"].strip("/").partition("/")
        work = {"create": _create, "complete": _complete, "abort": _abort}.get(verb)
        if work is None:
            raise NotFound(f"There is no mpu/{verb}.", "There are create, complete and abort.")
        return reply(await work(request, ws, folder, await body_of(request)))
    except EverloopError as error:
        return failure(error)


async def put_part(request: Request, ws: Any) -> Response:
    """PUT of one part, to the address that `create` gave for it; the answer's ETag names what was kept."""
    try:
        who, upload, part = ws.uploads.opened(dict(request.query_params))
        await ws.uploads.place(who, upload)
        found: list[str] = []

        async def put(file: Any) -> None:
            found.append(await ws.uploads.put_part(who, upload, part, file))

        await keep(request, ws, put)
        return Response(status_code=200, headers={"etag": f'"{found[0]}"'})
    except EverloopError as error:
        return failure(error)


async def presigned(request: Request, ws: Any) -> Response:
    """GET presigned/FILE: where the client reads a file by ranges, several at once, and the short-lived key that it sends there."""
    try:
        who, path = request.scope["everloop.who"], request.path_params["path"]
        sort, owner, rest = place(path)
        found = next((one for one in await files_of(ws, who, sort, owner, rest.rpartition("/")[0]) if one["path"] == rest), None)
        if found is None:
            raise NotFound(f"No such artifact: '{path}'", "List them with mlflow.artifacts.list_artifacts().")
        key = ws.identity.mint(replace(who, role=Role.viewer), READ_SECONDS)
        url = f"{address(ws, request)}/api/v1/objects/{found['digest']}"
        return reply({"url": url, "headers": {"Authorization": f"Bearer {key}"}, "file_size": found["size"]})
    except EverloopError as error:
        return failure(error)


def address(ws: Any, request: Request) -> str:
    """Where clients reach this server: as its settings say, else as this request came."""
    return str(ws.settings.public_url or str(request.base_url)).rstrip("/")


async def _create(request: Request, ws: Any, folder: str, body: dict[str, Any]) -> dict[str, Any]:
    sort, owner, rest = _where(folder, body)
    if sort == "asset":
        raise BadInput("Files of a registered version cannot be changed.", "Log a model, then register it: that makes a new version.")
    who, number = request.scope["everloop.who"], body.get("num_parts")
    if isinstance(number, bool) or not isinstance(number, int | str) or not str(number).isdigit():
        raise BadInput(f"Invalid value {number!r} for parameter 'num_parts' supplied. It must be a whole number.")
    if sort == "run":
        await ws.runs.get(who, owner)
    elif sort == "model":
        await ws.runs.model(who, owner)
    id, queries = await ws.uploads.begin(who, {"sort": sort, "owner": owner, "path": rest}, int(number))
    base = f"{address(ws, request)}/api/2.0/mlflow-artifacts/mpu-part?"
    parts = [{"url": base + urllib.parse.urlencode(query), "part_number": int(query["part"]), "headers": {}} for query in queries]
    return {"upload_id": id, "credentials": parts}


async def _complete(request: Request, ws: Any, folder: str, body: dict[str, Any]) -> dict[str, Any]:
    who, id = await _begun(request, ws, folder, body)
    sort, owner, rest = _where(folder, body)
    try:
        told = [(int(one["part_number"]), str(one.get("etag") or "").strip('"')) for one in body.get("parts") or []]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise BadInput("Invalid value for parameter 'parts' supplied.", 'It must be a list of {"part_number": ..., "etag": ...}.') from None
    await ws.uploads.complete(who, id, told, lambda digest, size: ws.runs.name_artifact(who, owner, rest, digest, size, owned=sort == "run"))
    return {}


async def _abort(request: Request, ws: Any, folder: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        who, id = await _begun(request, ws, folder, body)
    except NotFound:
        return {}
    await ws.uploads.abort(who, id)
    return {}


async def _begun(request: Request, ws: Any, folder: str, body: dict[str, Any]) -> tuple[Any, str]:
    """(who asks, the upload's id); BadInput where it was not begun for this file."""
    who, id = request.scope["everloop.who"], str(body.get("upload_id") or "")
    if not id:
        raise BadInput("Missing value for required parameter 'upload_id'.")
    sort, owner, rest = _where(folder, body)
    if await ws.uploads.place(who, id) != {"sort": sort, "owner": owner, "path": rest}:
        raise BadInput(f"The upload {id} was begun for another file.", "Complete it with the path that it was created with.")
    return who, id


def _where(folder: str, body: dict[str, Any]) -> tuple[str, str, str]:
    """(sort, owner, path) of the file that an upload becomes: the client's path says only its name."""
    name = PureWindowsPath(str(body.get("path") or "")).name
    if not name:
        raise BadInput("Missing value for required parameter 'path'.")
    return place(f"{folder}/{name}" if folder else name)
