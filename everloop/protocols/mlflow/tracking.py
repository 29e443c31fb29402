"""Experiments, runs, params, metrics and tags over MLflow's API."""

from __future__ import annotations

from typing import Any

from everloop.assets.run_metrics import Point
from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.protocols.mlflow.wire import Call, lacking, ms, seconds, tag_list

LOCATION = "everloop.artifact_location"
"""The tag that keeps an experiment's artifact location; never shown as a tag."""
VIEWS = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all", "1": "active", "2": "deleted", "3": "all"}
STATUSES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
BATCH_METRICS, BATCH_PARAMS, BATCH_TAGS, BATCH_ALL = 1000, 100, 100, 1000
PARAM_CHARS = 6000


async def create_experiment(call: Call) -> Any:
    """experiments/create."""
    tags = call.pairs()
    if call.get("artifact_location"):
        location = str(call.get("artifact_location"))
        if any(mark in location for mark in ("#", "?", "..")):
            raise BadInput(f"Invalid artifact location {location!r}: it may hold no fragment, query or '..'.")
        tags[LOCATION] = location
    made = await call.ws.runs.create_experiment(call.who, call.need("name"), tags)
    return {"experiment_id": made["id"]}


async def get_experiment(call: Call) -> Any:
    """experiments/get."""
    return {"experiment": experiment_of(await call.ws.runs.experiment(call.who, call.need("experiment_id")))}


async def get_experiment_by_name(call: Call) -> Any:
    """experiments/get-by-name: a deleted one too."""
    name = call.need("experiment_name")
    found = await call.ws.runs.experiment(call.who, name=name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return {"experiment": experiment_of(found)}


async def search_experiments(call: Call) -> Any:
    """experiments/search."""
    page = await call.ws.runs.experiments(
        call.who,
        str(call.get("filter", "")),
        call.number("max_results", 1000),
        call.get("page_token"),
        view_of(call, "view_type"),
        call.listed("order_by") or None,
    )
    return lacking({"experiments": [experiment_of(one) for one in page["items"]], "next_page_token": page["next"]})


async def update_experiment(call: Call) -> Any:
    """experiments/update: a new name."""
    await call.ws.runs.change_experiment(call.who, call.need("experiment_id"), name=call.need("new_name"))


async def delete_experiment(call: Call) -> Any:
    """experiments/delete."""
    await call.ws.runs.change_experiment(call.who, call.need("experiment_id"), deleted=True)


async def restore_experiment(call: Call) -> Any:
    """experiments/restore."""
    await call.ws.runs.change_experiment(call.who, call.need("experiment_id"), deleted=False)


async def set_experiment_tag(call: Call) -> Any:
    """experiments/set-experiment-tag."""
    await call.ws.runs.change_experiment(call.who, call.need("experiment_id"), tags={call.need("key"): str(call.get("value", ""))})


async def delete_experiment_tag(call: Call) -> Any:
    """experiments/delete-experiment-tag."""
    await call.ws.runs.change_experiment(call.who, call.need("experiment_id"), tags={call.need("key"): None})


async def create_run(call: Call) -> Any:
    """runs/create."""
    tags = call.pairs()
    name = str(call.get("run_name", "")) or tags.get("mlflow.runName", "")
    if call.get("user_id"):
        tags.setdefault("mlflow.user", str(call.get("user_id")))
    if name:
        tags["mlflow.runName"] = name
    made = await call.ws.runs.create(
        call.who,
        name,
        tags.get("everloop.kind", "training"),
        experiment_id=str(call.get("experiment_id", "0")),
        parent=tags.get("mlflow.parentRunId"),
        tags=tags,
        started_at=seconds(call.get("start_time"), "start_time"),
        code={k: v for k, v in (("commit", tags.get("mlflow.source.git.commit")), ("entry", tags.get("mlflow.source.name"))) if v},
    )
    return {"run": run_of({**made, "points": []}, None)}


async def get_run(call: Call) -> Any:
    """runs/get."""
    id = call.need("run_id", "run_uuid")
    run = await call.ws.runs.get(call.who, id, True)
    links = await call.ws.runs.links(call.who, [id])
    return {"run": run_of(run, links.get(id))}


async def update_run(call: Call) -> Any:
    """runs/update: status, end, name."""
    id = call.need("run_id", "run_uuid")
    changes: dict[str, Any] = {}
    if call.get("status") is not None:
        changes["status"] = status_of(call.get("status"))
    if call.get("end_time") is not None:
        changes["ended_at"] = seconds(call.get("end_time"), "end_time")
    if call.get("run_name"):
        changes["name"] = str(call.get("run_name"))
        await call.ws.runs.log(call.who, id, tags={"mlflow.runName": changes["name"]})
    run = await call.ws.runs.update(call.who, id, **changes)
    return {"run_info": run_of({**run, "points": []}, None)["info"]}


async def delete_run(call: Call) -> Any:
    """runs/delete."""
    await call.ws.runs.delete(call.who, call.need("run_id"))


async def restore_run(call: Call) -> Any:
    """runs/restore."""
    await call.ws.runs.restore(call.who, call.need("run_id"))


async def log_metric(call: Call) -> Any:
    """runs/log-metric."""
    id = call.need("run_id", "run_uuid")
    if call.get("value") is None:
        raise BadInput("Missing value for required parameter 'value'.", "See the API docs for more information about request parameters.")
    if call.get("timestamp") is None:
        raise BadInput("Missing value for required parameter 'timestamp'.")
    call.need("key")
    await _log_metrics(call, id, [call.body])


async def log_param(call: Call) -> Any:
    """runs/log-parameter."""
    key, value = call.need("key"), str(call.get("value", ""))
    _length("param", key, value, PARAM_CHARS)
    await _params(call, call.need("run_id", "run_uuid"), {key: value})


async def log_batch(call: Call) -> Any:
    """runs/log-batch, all or nothing: metrics and tags and params of a batch are one write."""
    id = call.need("run_id")
    metrics, params, tags = call.listed("metrics"), call.listed("params"), call.listed("tags")
    for what, rows, most in (("metrics", metrics, BATCH_METRICS), ("params", params, BATCH_PARAMS), ("tags", tags, BATCH_TAGS)):
        if len(rows) > most:
            raise BadInput(
                f"A batch logging request can contain at most {most} {what}. Got {len(rows)} {what}. Please split up {what} across multiple."
            )
    if len(metrics) + len(params) + len(tags) > BATCH_ALL:
        raise BadInput(f"A batch logging request can contain at most {BATCH_ALL} metrics, params and tags together.")
    given: dict[str, str] = {}
    for key, value in ((str(one.get("key", "")), str(one.get("value", ""))) for one in params):
        _length("param", key, value, PARAM_CHARS)
        if given.get(key, value) != value:
            raise BadInput(f"Duplicate parameter keys have been submitted: {key}. Please ensure the request contains only one value per param name.")
        given[key] = value
    tagged = call.pairs("tags")
    for key, value in tagged.items():
        _length("tag", key, value, 100_000)
    await _log_metrics(call, id, metrics, given, tagged)


async def set_tag(call: Call) -> Any:
    """runs/set-tag; the tag mlflow.runName is the run's name too."""
    id, key, value = call.need("run_id", "run_uuid"), call.need("key"), str(call.get("value", ""))
    await call.ws.runs.log(call.who, id, tags={key: value})
    if key == "mlflow.runName" and value:
        await call.ws.runs.update(call.who, id, name=value)


async def delete_tag(call: Call) -> Any:
    """runs/delete-tag."""
    await call.ws.runs.delete_tag(call.who, call.need("run_id"), call.need("key"))


async def search_runs(call: Call) -> Any:
    """runs/search."""
    page = await call.ws.runs.search(
        call.who,
        str(call.get("filter", "")),
        None,
        call.number("max_results", 1000),
        call.get("page_token"),
        experiment_ids=[str(one) for one in call.listed("experiment_ids")],
        view=view_of(call, "run_view_type"),
        order_by=call.listed("order_by"),
        points=True,
    )
    links = await call.ws.runs.links(call.who, [run["id"] for run in page["items"]]) if page["items"] else {}
    return lacking({"runs": [run_of(run, links.get(run["id"])) for run in page["items"]], "next_page_token": page["next"]})


async def metric_history(call: Call) -> Any:
    """metrics/get-history."""
    id, key = call.need("run_id", "run_uuid"), call.need("metric_key")
    limit = call.number("max_results", 25_000) if call.get("max_results") is not None else 25_000
    points, following = await call.ws.runs.history_points(call.who, id, key, limit, call.get("page_token"))
    while following and call.get("max_results") is None and len(points) < 1_000_000:
        more, following = await call.ws.runs.history_points(call.who, id, key, limit, following)
        points += more
    shown = [{"key": key, "value": value, "timestamp": round(at * 1000), "step": step} for value, step, at in points]
    return lacking({"metrics": shown, "next_page_token": following})


async def metric_history_bulk(call: Call) -> Any:
    """metrics/get-history-bulk-interval: several runs' series, thinned to max_results points each."""
    key, most = call.need("metric_key"), call.number("max_results", 320, 1, 2500)
    low, high = int(call.get("start_step", -(2**62))), int(call.get("end_step", 2**62))
    shown: list[dict[str, Any]] = []
    for id in call.listed("run_ids")[:100]:
        points, _ = await call.ws.runs.history_points(call.who, str(id), key, 25_000, None)
        inside = [point for point in points if low <= point[1] <= high]
        every = max(1, -(-len(inside) // most))
        kept = inside[::every] + (inside[-1:] if inside and (len(inside) - 1) % every else [])
        shown += [{"key": key, "value": v, "timestamp": round(at * 1000), "step": step, "run_id": str(id)} for v, step, at in kept]
    return {"metrics": shown}


async def log_inputs(call: Call) -> Any:
    """runs/log-inputs: data sets and logged models read."""
    datasets = []
    for one in call.listed("datasets"):
        tags = {str(tag.get("key")): str(tag.get("value", "")) for tag in one.get("tags") or []}
        datasets.append({**(one.get("dataset") or {}), "tags": tags, "context": tags.get("mlflow.data.context", "")})
    await call.ws.runs.log_inputs(call.who, call.need("run_id"), datasets, _models(call))


async def log_outputs(call: Call) -> Any:
    """runs/outputs: logged models made."""
    await call.ws.runs.log_outputs(call.who, call.need("run_id"), _models(call))


async def log_model(call: Call) -> Any:
    """runs/log-model: the older way, kept as MLflow does in the tag mlflow.log-model.history."""
    import orjson

    id = call.need("run_id")
    try:
        model = orjson.loads(call.need("model_json"))
    except ValueError:
        raise BadInput("Malformed model info. It must be JSON.") from None
    missing = [name for name in ("artifact_path", "flavors", "utc_time_created", "run_id") if name not in model]
    if missing:
        raise BadInput(f"Model json is missing mandatory fields: {', '.join(missing)}")
    run = await call.ws.runs.get(call.who, id)
    history = orjson.loads(run["tags"].get("mlflow.log-model.history", "[]"))
    await call.ws.runs.log(call.who, id, tags={"mlflow.log-model.history": orjson.dumps([*history, model]).decode()})


async def search_datasets(call: Call) -> Any:
    """experiments/search-datasets."""
    return {"dataset_summaries": await call.ws.runs.datasets(call.who, [str(one) for one in call.listed("experiment_ids")])}


def experiment_of(one: dict[str, Any]) -> dict[str, Any]:
    """An experiment in MLflow's shape."""
    tags = dict(one["tags"])
    return {
        "experiment_id": one["id"],
        "name": one["name"],
        "artifact_location": tags.pop(LOCATION, f"mlflow-artifacts:/{one['id']}"),
        "lifecycle_stage": "deleted" if one["deleted_at"] else "active",
        "creation_time": ms(one["created_at"]),
        "last_update_time": ms(one["updated_at"]),
        "tags": tag_list(tags),
    }


def run_of(run: dict[str, Any], links: dict[str, Any] | None) -> dict[str, Any]:
    """A run (with points) in MLflow's shape."""
    tags = run["tags"] if "mlflow.runName" in run["tags"] else {**run["tags"], "mlflow.runName": run["name"]}
    info = {
        "run_id": run["id"],
        "run_uuid": run["id"],
        "run_name": run["name"],
        "experiment_id": run["experiment_id"],
        "user_id": tags.get("mlflow.user", run["created_by"]),
        "status": run["status"].upper(),
        "start_time": ms(run["started_at"]),
        "artifact_uri": f"mlflow-artifacts:/{run['experiment_id']}/{run['id']}/artifacts",
        "lifecycle_stage": "deleted" if run["deleted_at"] else "active",
    }
    if run["ended_at"] is not None:
        info["end_time"] = ms(run["ended_at"])
    data = {
        "metrics": [{"key": key, "value": value, "timestamp": round(at * 1000), "step": step} for key, value, step, at in run["points"]],
        "params": tag_list(run["params"]),
        "tags": tag_list(tags),
    }
    shown = {"info": info, "data": data, "inputs": {}, "outputs": {}}
    if links:
        shown["inputs"] = {
            "dataset_inputs": [_dataset(one) for one in links["datasets"]],
            "model_inputs": [{"model_id": m["model"]} for m in links["inputs"]],
        }
        shown["outputs"] = {"model_outputs": [{"model_id": m["model"], "step": m["step"]} for m in links["outputs"]]}
    return shown


def view_of(call: Call, name: str) -> str:
    """The view asked for."""
    asked = str(call.get(name, "ACTIVE_ONLY"))
    if asked not in VIEWS:
        raise BadInput(f"Invalid value {asked!r} for parameter '{name}' supplied.", f"Use one of: {', '.join(list(VIEWS)[:3])}.")
    return VIEWS[asked]


def status_of(value: Any) -> str:
    """MLflow's status, by name or number, as ours."""
    name = STATUSES.get(str(value), str(value))
    if name not in STATUSES.values():
        raise BadInput(f"Invalid value {value!r} for parameter 'status' supplied.", f"Use one of: {', '.join(STATUSES.values())}.")
    return name.lower()


def _dataset(one: dict[str, Any]) -> dict[str, Any]:
    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    return {"tags": tag_list(one.get("tags") or {}), "dataset": lacking({key: one.get(key) for key in fields})}


def _models(call: Call) -> list[tuple[str, int]]:
    return [(str(one["model_id"]), int(one.get("step") or 0)) for one in call.listed("models") if one.get("model_id")]


def _length(what: str, key: str, value: str, most: int) -> None:
    if not key:
        raise BadInput(f"Missing value for required parameter 'key' of a {what}.")
    if len(value) > most:
        raise BadInput(f"{what.capitalize()} value '{value[:30]}...' had length {len(value)}, which exceeded length limit of {most}")


async def _log_metrics(
    call: Call, id: str, metrics: list[dict[str, Any]], params: dict[str, str] | None = None, tags: dict[str, str] | None = None
) -> None:
    points, tied, now = [], [], call.ws.clock.now()
    for one in metrics:
        try:
            at = one.get("timestamp")
            point = Point(one["key"], float(one["value"]), int(one.get("step") or 0), now if at is None else int(at) / 1000.0)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise BadInput(f"Invalid metric {str(one)[:200]} supplied: it needs a key, a number as value, a timestamp in ms and a step.") from None
        if not isinstance(point.key, str) or not point.key:
            raise BadInput("Missing value for required parameter 'key' of a metric.")
        if one.get("model_id"):
            tied.append((str(one["model_id"]), point, str(one.get("dataset_name") or ""), str(one.get("dataset_digest") or "")))
        else:
            points.append(point)
    await _params(call, id, params, points, tags)
    if tied:
        await call.ws.runs.log_model_metrics(call.who, id, tied)
    if tags and tags.get("mlflow.runName"):
        await call.ws.runs.update(call.who, id, name=tags["mlflow.runName"])


async def _params(call: Call, id: str, params: dict[str, str] | None, points: list[Point] | None = None, tags: dict[str, str] | None = None) -> None:
    try:
        await call.ws.runs.log_points(call.who, id, points, params, tags)
    except Conflict as error:
        raise BadInput(error.what) from None


ROUTES = [
    ("POST", "experiments/create", create_experiment),
    ("GET", "experiments/get", get_experiment),
    ("GET", "experiments/get-by-name", get_experiment_by_name),
    ("POST", "experiments/search", search_experiments),
    ("GET", "experiments/search", search_experiments),
    ("POST", "experiments/update", update_experiment),
    ("POST", "experiments/delete", delete_experiment),
    ("POST", "experiments/restore", restore_experiment),
    ("POST", "experiments/set-experiment-tag", set_experiment_tag),
    ("POST", "experiments/delete-experiment-tag", delete_experiment_tag),
    ("POST", "experiments/search-datasets", search_datasets),
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
    ("POST", "runs/log-inputs", log_inputs),
    ("POST", "runs/outputs", log_outputs),
    ("POST", "runs/log-model", log_model),
    ("GET", "metrics/get-history", metric_history),
    ("GET", "metrics/get-history-bulk-interval", metric_history_bulk),
]
