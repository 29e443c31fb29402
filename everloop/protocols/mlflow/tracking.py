"""Runs with params, metrics and tags over MLflow's API."""

from __future__ import annotations

from typing import Any

from everloop.assets.run_metrics import Point
from everloop.assets.runs import ARTIFACTS, CLIENT_USER, HIDDEN
from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.protocols.mlflow import fields, inputs
from everloop.protocols.mlflow.experiments import check_id, id_of, view_of
from everloop.protocols.mlflow.wire import Call, lacking, ms, seconds, tag_list

STATUSES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
NAME, USER = "mlflow.runName", "mlflow.user"


async def create_run(call: Call) -> Any:
    """runs/create."""
    tags = {key: fields.check_tag("key", key, value) for key, value in call.pairs().items()}
    name = str(call.get("run_name", ""))
    if name and tags.get(NAME, name) != name:
        raise BadInput(
            f"Both 'run_name' argument and '{NAME}' tag are specified, but with different values (run_name='{name}', {NAME}='{tags[NAME]}')."
        )
    name = name or tags.get(NAME, "")
    if call.get("user_id") and USER not in tags:
        tags[CLIENT_USER] = str(call.get("user_id"))
    parent = tags.get("mlflow.parentRunId")
    made = await call.ws.runs.create(
        call.who,
        name,
        tags.get("everloop.kind", "training"),
        experiment_id=id_of(call) if call.get("experiment_id") else "0",
        parent=parent if parent and await _is_run(call, parent) else None,
        tags={**tags, NAME: name} if name else tags,
        started_at=seconds(call.get("start_time"), "start_time"),
        code={k: v for k, v in (("commit", tags.get("mlflow.source.git.commit")), ("entry", tags.get("mlflow.source.name"))) if v},
    )
    return {"run": run_of({**made, "points": []}, None)}


async def get_run(call: Call) -> Any:
    """runs/get."""
    id = call.run_id
    run = await call.ws.runs.get(call.who, id, True)
    links = await call.ws.runs.links(call.who, [id])
    return {"run": run_of(run, links.get(id))}


async def update_run(call: Call) -> Any:
    """runs/update: status, end, name."""
    id = call.run_id
    changes: dict[str, Any] = {}
    if call.get("status") is not None:
        changes["status"] = status_of(call.get("status"))
    if call.get("end_time") is not None:
        changes["ended_at"] = seconds(call.get("end_time"), "end_time")
    if call.get("run_name"):
        changes["name"] = str(call.get("run_name"))
        await call.ws.runs.log(call.who, id, tags={NAME: changes["name"]})
    run = await call.ws.runs.update(call.who, id, **changes)
    return {"run_info": run_of({**run, "points": []}, None)["info"]}


async def delete_run(call: Call) -> Any:
    """runs/delete."""
    await call.ws.runs.delete(call.who, call.run_id)


async def restore_run(call: Call) -> Any:
    """runs/restore."""
    await call.ws.runs.restore(call.who, call.run_id)


async def log_metric(call: Call) -> Any:
    """runs/log-metric."""
    await _log(call, call.run_id, *points_of([call.body], ""))


async def log_param(call: Call) -> Any:
    """runs/log-parameter."""
    key = call.need("key")
    await _log(call, call.run_id, params={key: fields.check_param("key", key, str(call.get("value", "")))})


async def log_batch(call: Call) -> Any:
    """runs/log-batch, all or nothing: metrics and tags and params of a batch are one write."""
    metrics, params, tags = call.listed("metrics"), call.listed("params"), call.listed("tags")
    fields.check_sizes(metrics, params, tags)
    points, tied = points_of(metrics, "metrics[%d].")
    given, twice = _keyed(params, "params[%d].", fields.check_param)
    if twice:
        raise BadInput(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request contains only one param value per param key."
        )
    await _log(call, call.run_id, points, tied, given, _keyed(tags, "tags[%d].", fields.check_tag)[0])


async def set_tag(call: Call) -> Any:
    """runs/set-tag; the tag mlflow.runName is the run's name too."""
    key = call.need("key")
    await _log(call, call.run_id, tags={key: fields.check_tag("key", key, str(call.get("value", "")))})


async def delete_tag(call: Call) -> Any:
    """runs/delete-tag."""
    await call.ws.runs.delete_tag(call.who, call.run_id, call.need("key"))


async def search_runs(call: Call) -> Any:
    """runs/search."""
    most = int(call.get("max_results", 1000))
    if most > 50_000:
        raise fields.invalid("max_results", call.get("max_results"), f" It must be at most 50000.{fields.SEE}")
    if most <= 0:
        raise BadInput(f"Invalid value {most} for parameter 'max_results' supplied. It must be a positive integer.")
    ids = [str(one) for one in call.listed("experiment_ids")]
    for id in ids:
        check_id(id)
    page = await call.ws.runs.search(
        call.who,
        str(call.get("filter", "")),
        None,
        most,
        call.get("page_token") or None,
        experiment_ids=ids,
        view=view_of(call, "run_view_type"),
        order_by=call.listed("order_by"),
        points=True,
    )
    links = await call.ws.runs.links(call.who, [run["id"] for run in page["items"]]) if page["items"] else {}
    return lacking({"runs": [run_of(run, links.get(run["id"])) for run in page["items"]], "next_page_token": page["next"]})


def run_of(run: dict[str, Any], links: dict[str, Any] | None) -> dict[str, Any]:
    """A run (with points) in MLflow's shape."""
    tags = run["tags"] if NAME in run["tags"] else {**run["tags"], NAME: run["name"]}
    info = {
        "run_id": run["id"],
        "run_uuid": run["id"],
        "run_name": run["name"],
        "experiment_id": run["experiment_id"],
        "user_id": tags.get(USER) or tags.get(CLIENT_USER) or run["created_by"],
        "status": run["status"].upper(),
        "start_time": ms(run["started_at"]),
        "artifact_uri": artifact_uri(run),
        "lifecycle_stage": "deleted" if run["deleted_at"] else "active",
    }
    if run["ended_at"] is not None:
        info["end_time"] = ms(run["ended_at"])
    data = {
        "metrics": [{"key": key, "value": value, "timestamp": round(at * 1000), "step": step} for key, value, step, at in run["points"]],
        "params": tag_list(run["params"]),
        "tags": [{"key": key, "value": value} for key, value in tags.items() if key not in HIDDEN],
    }
    return {"info": info, "data": data, **inputs.shown(links)}


def artifact_uri(run: dict[str, Any]) -> str:
    """Where the files of a run are: below its experiment's location, where that has one of its own."""
    own = run["tags"].get(ARTIFACTS)
    return own or f"mlflow-artifacts:/{run['experiment_id']}/{run['id']}/artifacts"


def status_of(value: Any) -> str:
    """MLflow's status, by name or number, as ours."""
    name = STATUSES.get(str(value), str(value))
    if name not in STATUSES.values():
        raise fields.invalid("status", value, f" Use one of: {', '.join(STATUSES.values())}.{fields.SEE}")
    return name.lower()


Tied = tuple[str, Point, str, str]


def points_of(metrics: list[dict[str, Any]], where: str) -> tuple[list[Point], list[Tied]]:
    """(points, points tied to a logged model as (model, point, data set's name, its digest)) of a request's metrics, each looked over.

    `where` is how the request names one of them, with %d for its place, for errors.
    """
    points, tied = [], []
    for i, one in enumerate(metrics):
        path = where % i if where else ""
        if not isinstance(one, dict):
            raise fields.invalid(path.rstrip("."), one)
        for name in ("key", "value", "timestamp"):
            if one.get(name) is None or one[name] == "":
                raise fields.missing(path + name)
        key, step = one["key"], one.get("step")
        if not isinstance(key, str):
            raise fields.invalid(path + "key", key)
        fields.check_name(path + "name", key)
        if len(key) > fields.KEY_CHARS:
            raise fields.too_long("Metric name", fields.KEY_CHARS)
        point = Point(key, _number(path, "value", one), int(_whole(path, "step", one) if step is not None else 0), _time(path, one))
        if one.get("model_id"):
            tied.append((str(one["model_id"]), point, str(one.get("dataset_name") or ""), str(one.get("dataset_digest") or "")))
        else:
            points.append(point)
    return points, tied


def _number(path: str, name: str, one: dict[str, Any]) -> float:
    try:
        return float(one[name])
    except (TypeError, ValueError, OverflowError):
        raise fields.invalid(path + name, one[name], " Please specify value as a valid double (64-bit floating point)") from None


def _whole(path: str, name: str, one: dict[str, Any]) -> int:
    try:
        found = int(one[name])
    except (TypeError, ValueError, OverflowError):
        found = 2**63
    if not -(2**63) < found < 2**63:
        raise fields.invalid(path + name, one[name], f" {name.capitalize()} must be a valid long (64-bit integer).")
    return found


def _time(path: str, one: dict[str, Any]) -> float:
    found = _whole(path, "timestamp", one)
    if found < 0:
        raise fields.invalid(
            path + "timestamp", found, f"metric '{one['key']}' (value={one['value']}). Timestamp must be a nonnegative long (64-bit integer) "
        )
    return found / 1000.0


def _keyed(rows: list[Any], where: str, check: Any) -> tuple[dict[str, str], list[str]]:
    """(value by key, keys that came twice) of params or tags."""
    found: dict[str, str] = {}
    twice: list[str] = []
    for i, one in enumerate(rows):
        path = where % i
        key = one.get("key") if isinstance(one, dict) else None
        if key is None or key == "":
            raise fields.missing(path + "key")
        value = one.get("value")
        if not isinstance(key, str) or not isinstance(value, str | None):
            raise fields.invalid(path + ("value" if isinstance(key, str) else "key"), value if isinstance(key, str) else key)
        if key in found:
            twice.append(key)
        found[key] = check(path + "key", key, value or "")
    return found, twice


async def _is_run(call: Call, id: str) -> bool:
    """Whether a run is there: a client's tag may name a parent that everloop has never seen."""
    try:
        await call.ws.runs.get(call.who, id)
    except NotFound:
        return False
    return True


async def _log(
    call: Call,
    id: str,
    points: list[Point] | None = None,
    tied: list[Tied] | None = None,
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    try:
        if points or params or tags or not tied:
            await call.ws.runs.log_points(call.who, id, points, params, tags)
    except Conflict as error:
        raise BadInput(error.what) from None
    if tied:
        await call.ws.runs.log_model_metrics(call.who, id, tied)
    if tags and tags.get(NAME):
        await call.ws.runs.update(call.who, id, name=tags[NAME])


ROUTES = [
    ("POST", "runs/create", create_run),
    ("GET", "runs/get", get_run),
    ("POST", "runs/update", update_run),
    ("POST", "runs/delete", delete_run),
    ("POST", "runs/restore", restore_run),
    ("POST", "runs/log-metric", log_metric),
    ("POST", "runs/log-parameter", log_param),
    ("POST", "runs/log-batch", log_batch),
    ("POST", "runs/set-tag", set_tag),
    ("POST", "runs/delete-tag", delete_tag),
    ("POST", "runs/search", search_runs),
]
