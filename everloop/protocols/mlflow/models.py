"""Logged models over MLflow's API: what `log_model` makes before anything is registered."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput
from everloop.protocols.mlflow.wire import Call, lacking, ms, tag_list

STATUSES = {"1": "pending", "2": "ready", "3": "failed", "LOGGED_MODEL_PENDING": "pending", "LOGGED_MODEL_READY": "ready"}
STATUSES |= {"LOGGED_MODEL_UPLOAD_FAILED": "failed"}
NAMES = {"pending": "LOGGED_MODEL_PENDING", "ready": "LOGGED_MODEL_READY", "failed": "LOGGED_MODEL_UPLOAD_FAILED"}


async def create(call: Call) -> Any:
    """POST logged-models."""
    made = await call.ws.runs.create_model(
        call.who,
        call.need("experiment_id"),
        str(call.get("name", "")),
        kind=str(call.get("model_type", "")),
        run=call.get("source_run_id"),
        params=call.pairs("params"),
        tags=call.pairs("tags"),
    )
    return {"model": model_of(made)}


async def get(call: Call) -> Any:
    """GET logged-models/{id}."""
    return {"model": model_of(await call.ws.runs.model(call.who, call.path["id"]))}


async def finalize(call: Call) -> Any:
    """PATCH logged-models/{id}: the upload ended, well or not."""
    status = STATUSES.get(call.need("status"))
    if status is None:
        raise BadInput(f"Invalid model status: {call.get('status')}.", f"Expected statuses: {', '.join(NAMES.values())}.")
    return {"model": model_of(await call.ws.runs.change_model(call.who, call.path["id"], status=status))}


async def delete(call: Call) -> Any:
    """DELETE logged-models/{id}."""
    await call.ws.runs.delete_model(call.who, call.path["id"])


async def set_tags(call: Call) -> Any:
    """PATCH logged-models/{id}/tags."""
    return {"model": model_of(await call.ws.runs.change_model(call.who, call.path["id"], tags=call.pairs("tags")))}


async def delete_tag(call: Call) -> Any:
    """DELETE logged-models/{id}/tags/{key}."""
    await call.ws.runs.change_model(call.who, call.path["id"], tags={call.path["key"]: None})


async def log_params(call: Call) -> Any:
    """POST logged-models/{id}/params."""
    await call.ws.runs.change_model(call.who, call.path["id"], params=call.pairs("params"))


async def search(call: Call) -> Any:
    """POST logged-models/search."""
    call.need("experiment_ids")
    order = []
    for one in call.listed("order_by"):
        if not isinstance(one, dict) or not one.get("field_name"):
            raise BadInput("`field_name` in the `order_by` clause must be specified.")
        ascending = one.get("ascending", True) not in (False, "false")
        order.append((str(one["field_name"]), ascending, str(one.get("dataset_name") or ""), str(one.get("dataset_digest") or "")))
    datasets = []
    for one in call.listed("datasets"):
        if not isinstance(one, dict) or not one.get("dataset_name"):
            raise BadInput("`dataset_name` in the `datasets` clause must be specified.")
        datasets.append((str(one["dataset_name"]), str(one.get("dataset_digest") or "")))
    page = await call.ws.runs.search_models(
        call.who,
        [str(one) for one in call.listed("experiment_ids")],
        call.number("max_results", 100),
        call.get("page_token"),
        filter=str(call.get("filter", "")),
        order_by=order,
        datasets=datasets or None,
    )
    return lacking({"models": [model_of(one) for one in page["items"]], "next_page_token": page["next"]})


async def files(call: Call) -> Any:
    """GET logged-models/{id}/artifacts/directories: the children of one folder."""
    from everloop.protocols.mlflow.artifacts import children

    model = await call.ws.runs.model(call.who, call.path["id"])
    under = str(call.get("artifact_directory_path", ""))
    found = children(await call.ws.runs.folder(call.who, model["id"], under), under)
    return {"root_uri": uri_of(model), "files": [{**one, "path": f"{under}/{one['path']}" if under else one["path"]} for one in found]}


def uri_of(model: dict[str, Any]) -> str:
    """Where the files of a logged model are."""
    return f"mlflow-artifacts:/{model['experiment']}/models/{model['id']}/artifacts"


def model_of(model: dict[str, Any]) -> dict[str, Any]:
    """A logged model in MLflow's shape."""
    info = {
        "model_id": model["id"],
        "experiment_id": model["experiment"],
        "name": model["name"],
        "creation_timestamp_ms": ms(model["created_at"]),
        "last_updated_timestamp_ms": ms(model["updated_at"]),
        "artifact_uri": uri_of(model),
        "status": NAMES[model["status"]],
        "model_type": model["kind"] or None,
        "source_run_id": model["run"],
        "tags": tag_list(model["tags"]),
    }
    metrics = [
        lacking(
            {
                "key": one["key"],
                "value": one["value"],
                "timestamp": ms(one["at"]),
                "step": one["step"],
                "dataset_name": one["dataset_name"] or None,
                "dataset_digest": one["dataset_digest"] or None,
                "model_id": model["id"],
                "run_id": one["run"],
            }
        )
        for one in model["metrics"]
    ]
    return {"info": lacking(info), "data": {"params": tag_list(model["params"]), "metrics": metrics}}


ROUTES = [
    ("POST", "logged-models", create),
    ("POST", "logged-models/search", search),
    ("GET", "logged-models/{id}", get),
    ("PATCH", "logged-models/{id}", finalize),
    ("DELETE", "logged-models/{id}", delete),
    ("PATCH", "logged-models/{id}/tags", set_tags),
    ("DELETE", "logged-models/{id}/tags/{key}", delete_tag),
    ("POST", "logged-models/{id}/params", log_params),
    ("GET", "logged-models/{id}/artifacts/directories", files),
]
