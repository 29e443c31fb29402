"""What the `source` of a new model version means: whose files it takes, and of which run and logged model they are.

As in MLflow, a source that lies in a run or logged model must name it (`run_id`, `model_id`), and a path of this machine's disk is refused: the
server never reads files that a client names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from everloop.assets.trust import UNKNOWN
from everloop.core.errors import BadInput, NotFound
from everloop.protocols.mlflow.artifacts import files_of, place
from everloop.protocols.mlflow.models import uri_of
from everloop.protocols.mlflow.shapes import asset_uri, origin
from everloop.protocols.mlflow.wire import Call

_DOTS = re.compile(r"(^|[/\\])\.\.([/\\]|$)")


@dataclass
class Source:
    """Where a version comes from. `uri` is its mlflow-artifacts: URI, or None where it lies outside (a bucket): then no file is registered."""

    source: str
    uri: str | None = None
    run: str | None = None
    model: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    written_by: list[str] = field(default_factory=list)
    """Who wrote the files, as they are now: they may be replaced later, or deleted."""


async def source_of(call: Call, source: str, run: str | None, model: str | None) -> Source:
    """What `source` means, for a request that names this run and logged model; BadInput in MLflow's words where it may not be one."""
    at = await _find(call, source, run, model)
    if at.uri:
        sort, owner, under = place(_path_of(at.uri))
        start = len(under) + 1 if under else 0
        found = await files_of(call.ws, call.who, sort, owner, under)
        at.files = [{"path": one["path"][start:], "digest": one["digest"], "size": one["size"]} for one in found]
        if sort == "asset":
            at.written_by = await call.ws.models.makers(call.who, owner)
        else:
            at.written_by = sorted({one["by"] or UNKNOWN for one in found})
    return at


async def _find(call: Call, source: str, run: str | None, model: str | None) -> Source:
    scheme, colon, rest = source.partition(":")
    if not colon or scheme == "file" or "/" in scheme:
        raise BadInput(
            f"Invalid model version source: '{source}'. To use a local path as a model version source, log the model first.",
            "Its files then live in the server: models:/m-..., runs:/ID/PATH.",
        )
    if _DOTS.search(re.sub(r"%2e", ".", rest, flags=re.IGNORECASE)) or (scheme in ("runs", "models") and rest.startswith("//")):
        raise BadInput(f"Invalid model version source: '{source}'.", "It must be absolute, without '..'.")
    if scheme in ("http", "https", "ftp"):
        raise BadInput(f"Invalid model version source: 'source' cannot use the '{scheme}' scheme.", "Name a bucket, or log the model to this server.")
    if scheme == "models":
        return await _model(call, source, rest.strip("/"), run, model)
    if scheme == "runs":
        id, _, path = rest.strip("/").partition("/")
        uri = await _run_uri(call, id, path)
        if uri and not model and id != run:
            raise _elsewhere(source, "run_id")
        return Source(source, uri, run, model)
    if scheme == "mlflow-artifacts":
        return await _proxied(call, source, run, model)
    return Source(source, None, run, model)


async def _model(call: Call, source: str, rest: str, run: str | None, model: str | None) -> Source:
    """models:/m-ID (a logged model) or models:/NAME/VERSION, models:/NAME@ALIAS (a version that is copied)."""
    if rest.startswith("m-") and "/" not in rest:
        if rest != model:
            raise _elsewhere(source, "model_id")
        try:
            logged = await call.ws.runs.model(call.who, rest)
        except NotFound:
            raise _elsewhere(source, "model_id") from None
        return Source(source, uri_of(logged), run or logged["run"], model)
    name, _, at = rest.partition("/") if "/" in rest else rest.partition("@")
    found = await call.ws.registry.get(call.who, name)
    if found["kind"] == "prompt":
        raise BadInput(f"Invalid model version source: '{source}'. Prompt versions cannot be used as model version sources.")
    if at.lower() == "latest" and found["latest"]:
        at = str(found["latest"][0]["version"])
    asset = await call.ws.registry.version(call.who, name, at)
    known = origin(asset)
    if (run or asset["run"] or "") != (asset["run"] or "") or (model or known.get("model") or "") != (known.get("model") or ""):
        raise BadInput(f"Invalid model version source: '{source}'. The run_id and model_id must match those of the version it names.")
    exact = f"models:/{name}/{asset['version']}"
    return Source(exact, known.get("artifact_uri") or asset_uri(asset), asset["run"], known.get("model"))


async def _run_uri(call: Call, id: str, path: str) -> str | None:
    """The URI of a folder of a run; None where the run is not one of ours, as MLflow's registry takes runs of other servers too."""
    try:
        run = await call.ws.runs.get(call.who, id)
    except NotFound:
        return None
    return f"mlflow-artifacts:/{run['experiment_id']}/{id}/artifacts/{path}".rstrip("/")


async def _proxied(call: Call, source: str, run: str | None, model: str | None) -> Source:
    sort, owner, _ = place(_path_of(source))
    if sort == "model":
        if model not in (None, owner):
            raise _elsewhere(source, "model_id")
        logged = await call.ws.runs.model(call.who, owner)
        return Source(source, source, run or logged["run"], owner)
    if sort == "run" and not model and owner != run:
        raise _elsewhere(source, "run_id")
    if sort == "other":
        raise _elsewhere(source, "model_id" if model else "run_id")
    return Source(source, source, run, model)


def _elsewhere(source: str, what: str) -> BadInput:
    return BadInput(f"Invalid model version source: '{source}'. The {what} request parameter must identify the resource that contains the source.")


def _path_of(uri: str) -> str:
    return re.sub(r"^mlflow-artifacts:(//[^/]*)?", "", uri).strip("/")
