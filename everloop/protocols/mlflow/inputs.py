"""What runs read and made, over MLflow's API: data sets, logged models."""

from __future__ import annotations

from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.protocols.mlflow import fields
from everloop.protocols.mlflow.wire import Call, lacking, tag_list

HISTORY = "mlflow.log-model.history"
"""The tag in which older clients keep the models that a run logged."""
EXPERIMENTS = 20
"""Experiments whose data sets one request may ask for."""
DATASETS = 1_000
"""Data sets of one request."""
SIZES = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
"""Characters of a data set's fields at most."""


async def log_inputs(call: Call) -> Any:
    """runs/log-inputs: data sets and logged models that a run read."""
    given = call.listed("datasets")
    if len(given) > DATASETS:
        raise BadInput(f"A batch logging request can contain at most {DATASETS} datasets. Got {len(given)} datasets.")
    await call.ws.runs.log_inputs(call.who, call.run_id, [_read(one) for one in given], _models(call))


async def log_outputs(call: Call) -> Any:
    """runs/outputs: logged models that a run made."""
    await call.ws.runs.log_outputs(call.who, call.run_id, _models(call))


async def log_model(call: Call) -> Any:
    """runs/log-model: the older way, kept as MLflow does in a tag."""
    id, text = call.run_id, call.need("model_json")
    try:
        model = orjson.loads(text)
    except ValueError:
        raise BadInput(f"Malformed model info. \n {text[:500]} \n is not a valid JSON.") from None
    missing = [name for name in ("artifact_path", "flavors", "utc_time_created", "run_id") if not isinstance(model, dict) or name not in model]
    if missing:
        raise BadInput(f"Model json is missing mandatory fields: {missing}")
    run = await call.ws.runs.get(call.who, id)
    history = orjson.loads(run["tags"].get(HISTORY, "[]"))
    await call.ws.runs.log(call.who, id, tags={HISTORY: orjson.dumps([*history, model]).decode()})


async def search_datasets(call: Call) -> Any:
    """experiments/search-datasets."""
    ids = [str(one) for one in call.listed("experiment_ids")]
    if not ids:
        raise BadInput("SearchDatasets request must specify at least one experiment_id.")
    if len(ids) > EXPERIMENTS:
        raise BadInput(f"SearchDatasets request cannot specify more than {EXPERIMENTS} experiment_ids. Received {len(ids)} experiment_ids.")
    found = await call.ws.runs.datasets(call.who, ids)
    return {"dataset_summaries": [{str(name): value for name, value in one.items() if value != ""} for one in found]}


def shown(links: dict[str, Any] | None) -> dict[str, Any]:
    """`inputs` and `outputs` of a run in MLflow's shape."""
    if not links:
        return {"inputs": {}, "outputs": {}}
    return {
        "inputs": {
            "dataset_inputs": [_dataset(one) for one in links["datasets"]],
            "model_inputs": [{"model_id": m["model"]} for m in links["inputs"]],
        },
        "outputs": {"model_outputs": [{"model_id": m["model"], "step": m["step"]} for m in links["outputs"]]},
    }


def _read(one: Any) -> dict[str, Any]:
    """A data set of a request, looked over."""
    if not isinstance(one, dict) or not isinstance(one.get("dataset"), dict):
        raise fields.invalid("datasets", one, f" Each needs a dataset.{fields.SEE}")
    dataset = one["dataset"]
    for name in ("name", "digest", "source_type", "source"):
        if not dataset.get(name):
            raise BadInput(f"Dataset {name} cannot be None", "Give it a text.")
    for name, most in SIZES.items():
        if dataset.get(name) is not None and len(str(dataset[name])) > most:
            raise fields.too_long(name, most)
    tags = {str(tag.get("key") or ""): str(tag.get("value") or "") for tag in one.get("tags") or []}
    for key, value in tags.items():
        if len(key) > 255:
            raise fields.too_long("key", 255)
        if len(value) > 500:
            raise fields.too_long("value", 500)
    return {**dataset, "tags": tags, "context": tags.get("mlflow.data.context", "")}


def _dataset(one: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {"tags": tag_list(one.get("tags") or {}), "dataset": lacking({key: one.get(key) for key in names})}


def _models(call: Call) -> list[tuple[str, int]]:
    try:
        return [(str(one["model_id"]), int(one.get("step") or 0)) for one in call.listed("models") if one.get("model_id")]
    except (TypeError, ValueError, AttributeError):
        raise fields.invalid("models", call.get("models"), f" Each needs a model_id.{fields.SEE}") from None


ROUTES = [
    ("POST", "experiments/search-datasets", search_datasets),
    ("POST", "runs/log-inputs", log_inputs),
    ("POST", "runs/outputs", log_outputs),
    ("POST", "runs/log-model", log_model),
]
