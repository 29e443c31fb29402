"""MLflow's artifact proxy. Paths are names in the records, never paths of a disk; a `..` is refused all the same.

EXPERIMENT/RUN/artifacts/FILE               a file of a run
EXPERIMENT/traces/TRACE/artifacts/traces.json    a trace's spans, which live in telemetry
EXPERIMENT/models/MODEL/artifacts/FILE      a file of a logged model
everloop/KIND/NAME/VERSION/FILE             a file of an asset's version (read only)
anything else                               kept under the whole path, in the project
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mimetypes
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from everloop.assets.runs import check_path
from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import BODY_BYTES, OBJECT_CHUNK_ABOVE, UPLOAD_BYTES
from everloop.protocols.mlflow import trace_files
from everloop.protocols.mlflow.tracking import artifact_uri
from everloop.protocols.mlflow.wire import Call, failure, reply

OTHER = "mlflow-artifacts"
"""The folder of files that belong to no run and no model."""
_RUN = re.compile(r"[0-9a-f]{32}")
_TEXT = re.compile(r"(^|\.)(mlmodel|mlproject|ya?ml|toml|ini|cfg|conf|log|properties|md|rst|json|xml|csv|tsv|js|py)$", re.IGNORECASE)
"""Files that are shown as text, whatever else they are."""


def safe(path: str) -> str:
    """The path without slashes at its end and without `.`, which is the folder itself; BadInput for one that leaves its folder, however it is written:
    `..`, absolute, a drive, encoded once or more."""
    path = "/".join(part for part in path.split("/") if part != ".")
    if not path:
        return ""
    plain = path
    for _ in range(10):
        decoded = urllib.parse.unquote(plain)
        if decoded == plain:
            break
        plain = decoded
    try:
        for one in {path, plain}:
            check_path(one.rstrip("/"))
    except BadInput:
        raise BadInput("Invalid path") from None
    return path.rstrip("/")


def place(path: str) -> tuple[str, str, str]:
    """(sort, owner, rest) of a path: sort is run, model, asset or other; `rest` may be empty (the folder itself). BadInput for `..`."""
    if path.strip("/"):
        path = safe(path)
    parts = path.strip("/").split("/")
    if parts[0] == "everloop" and len(parts) >= 4:
        return "asset", f"{parts[1]}:{parts[2]}@{parts[3]}", "/".join(parts[4:])
    for i in range(2, len(parts)):  # an experiment with a location of its own may lie deeper
        if parts[i] == "artifacts":
            if parts[i - 2] == "models" and i >= 3:
                return "model", parts[i - 1], "/".join(parts[i + 1 :])
            if _RUN.fullmatch(parts[i - 1]):
                return "run", parts[i - 1], "/".join(parts[i + 1 :])
    return "other", OTHER, path.strip("/")


async def answer(request: Request, ws: Any) -> Response:
    """GET (a file, or a list with ?path=), PUT and DELETE of the proxy."""
    try:
        who = request.scope["everloop.who"]
        path = request.path_params.get("path")
        if not path:
            sort, owner, rest = place(request.query_params.get("path", ""))
            return reply({"files": children(await files_of(ws, who, sort, owner, rest), rest)})
        spans = trace_files.PATH.fullmatch(path)
        if spans and request.method in ("GET", "PUT"):
            return await _trace_file(request, ws, who, spans[1])
        sort, owner, rest = place(path)
        if not rest:
            raise BadInput(f"Invalid path: {path!r} names no file.")
        if request.method == "GET":
            return await send_file(ws, who, await files_of(ws, who, sort, owner, rest.rpartition("/")[0]), rest, path)
        if request.method == "PUT":
            await _upload(request, ws, who, sort, owner, rest)
        elif sort == "asset":
            raise BadInput("Files of a registered version cannot be deleted.")
        else:
            await ws.runs.delete_artifacts(who, owner, rest)
        return reply({})
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
    run = await call.ws.runs.get(call.who, call.run_id)
    under = str(call.get("path", ""))
    under = safe(under) if under else ""
    found = children(await call.ws.runs.artifacts(call.who, run["id"], under), under)
    return {"root_uri": artifact_uri(run), "files": [{**one, "path": f"{under}/{one['path']}" if under else one["path"]} for one in found]}


async def send_file(ws: Any, who: Any, files: list[dict[str, Any]], path: str, asked: str) -> Response:
    """The file of these called `path`, piece by piece; NotFound names what was `asked`."""
    found = next((one for one in files if one["path"] == path), None)
    if found is None:
        raise NotFound(f"No such artifact: '{asked}'", "List them with mlflow.artifacts.list_artifacts().")
    reader, size = await ws.assets.open_object(who, found["digest"])
    name = path.rpartition("/")[2]
    plain = name.encode("ascii", "replace").decode().replace('"', "_")
    disposition = f'attachment; filename="{plain}"' + ("" if plain == name else f"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}")
    headers = {"content-disposition": disposition, "x-content-type-options": "nosniff", "content-length": str(size)}
    kind = "text/plain" if _TEXT.search(name) else mimetypes.guess_type(path)[0] or "application/octet-stream"
    if size <= OBJECT_CHUNK_ABOVE:
        return Response(await asyncio.to_thread(_whole, reader), headers=headers, media_type=kind)
    return StreamingResponse(_pieces(reader), headers=headers, media_type=kind)


async def keep(request: Request, ws: Any, put: Callable[[Path], Awaitable[Any]], limit: int = UPLOAD_BYTES) -> int:
    """Receive a body and hand the file to `put`; its size. BadInput, and nothing kept, where it is not what its headers say or breaks off."""
    try:
        async with ws.received(request.stream(), limit) as file:
            await asyncio.to_thread(_verify, file, request.headers)
            size = file.stat().st_size
            await put(file)
            return size
    except ClientDisconnect:
        raise BadInput("The upload broke off; nothing was kept.", "Send it again.") from None


async def _upload(request: Request, ws: Any, who: Any, sort: str, owner: str, rest: str) -> None:
    if sort == "asset":
        raise BadInput("Files of a registered version cannot be changed.", "Log a model, then register it: that makes a new version.")
    if sort == "model":
        await ws.runs.model(who, owner)
    put = ws.runs.put_artifact if sort == "run" else ws.runs.put_in_folder
    await keep(request, ws, lambda file: put(who, owner, rest, file))


def _verify(file: Path, headers: Mapping[str, str]) -> None:
    """BadInput where the bytes are not those that Content-Length, Content-MD5 or Content-Digest (sha-256) promise."""
    size, told = file.stat().st_size, headers.get("content-length", "")
    if told.isdigit() and int(told) != size:
        raise BadInput(f"The upload has {size} bytes; {told} were promised.", "Nothing was kept; send it again.")
    promised = [("md5", headers.get("content-md5"))]
    promised += [("sha256", match.group(1)) for match in re.finditer(r"sha-256=:([A-Za-z0-9+/=]+):", headers.get("content-digest", ""))]
    for kind, wanted in promised:
        if wanted:
            with file.open("rb") as data:
                found = base64.b64encode(hashlib.file_digest(data, kind).digest()).decode()
            if found != wanted.strip():
                raise BadInput(f"The upload's {kind} is {found}; {wanted} was promised.", "Nothing was kept; send it again.")


def _whole(reader: BinaryIO) -> bytes:
    with reader:
        return reader.read()


def _pieces(reader: BinaryIO) -> Iterator[bytes]:
    with reader:
        while piece := reader.read(OBJECT_CHUNK_ABOVE):
            yield piece


ROUTES = [("GET", "artifacts/list", list_artifacts)]
