"""Experiments over MLflow's API."""

from __future__ import annotations

import os
import urllib.parse
from typing import Any

from everloop.assets.experiments import LOCATION
from everloop.core.errors import BadInput, NotFound
from everloop.protocols.mlflow import fields
from everloop.protocols.mlflow.wire import Call, lacking, ms, tag_list

VIEWS = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all", "1": "active", "2": "deleted", "3": "all"}


async def create(call: Call) -> Any:
    """experiments/create."""
    tags = call.pairs()
    for key, value in tags.items():
        fields.check_experiment_tag(key, value)
    name = call.need("name")
    if len(name) > 500:
        raise fields.too_long("name", 500)
    if call.get("artifact_location"):
        tags[LOCATION] = location_of(call.need("artifact_location"))
    return {"experiment_id": (await call.ws.runs.create_experiment(call.who, name, tags))["id"]}


async def get(call: Call) -> Any:
    """experiments/get."""
    return {"experiment": experiment_of(await call.ws.runs.experiment(call.who, id_of(call)))}


async def get_by_name(call: Call) -> Any:
    """experiments/get-by-name: a deleted one too."""
    name = call.need("experiment_name")
    found = await call.ws.runs.experiment(call.who, name=name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return {"experiment": experiment_of(found)}


async def search(call: Call) -> Any:
    """experiments/search."""
    most = call.number("max_results", 1000)
    page = await call.ws.runs.experiments(
        call.who, str(call.get("filter", "")), most, call.get("page_token") or None, view_of(call, "view_type"), call.listed("order_by") or None
    )
    return lacking({"experiments": [experiment_of(one) for one in page["items"]], "next_page_token": page["next"]})


async def update(call: Call) -> Any:
    """experiments/update: a new name."""
    name = call.need("new_name")
    if len(name) > 500:
        raise fields.too_long("name", 500)
    await call.ws.runs.change_experiment(call.who, id_of(call), name=name)


async def delete(call: Call) -> Any:
    """experiments/delete; one that is deleted already is not there."""
    await _be(call, deleted=False)
    await call.ws.runs.change_experiment(call.who, id_of(call), deleted=True)


async def restore(call: Call) -> Any:
    """experiments/restore; one that is not deleted is not there."""
    await _be(call, deleted=True)
    await call.ws.runs.change_experiment(call.who, id_of(call), deleted=False)


async def set_tag(call: Call) -> Any:
    """experiments/set-experiment-tag."""
    key, value = call.need("key"), str(call.get("value", ""))
    fields.check_experiment_tag(key, value)
    await call.ws.runs.change_experiment(call.who, id_of(call), tags={key: value})


async def delete_tag(call: Call) -> Any:
    """experiments/delete-experiment-tag."""
    await call.ws.runs.change_experiment(call.who, id_of(call), tags={call.need("key"): None})


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


def id_of(call: Call) -> str:
    """The experiment asked for; BadInput where it is not a number, as MLflow's ids are."""
    return check_id(call.need("experiment_id"))


def check_id(id: str) -> str:
    """The id as it is; BadInput where it is not a number."""
    if not id.isdigit():
        raise BadInput(f"Invalid experiment ID '{id}'. Experiment ID must be a valid integer.")
    return id


def location_of(location: str) -> str:
    """Where an experiment's artifacts go: a URL as it is, a path on a disk made absolute. BadInput for one that cannot be used.

    Files go through the proxy only where it is a `mlflow-artifacts:` URL; elsewhere MLflow's client reads and writes them itself.
    """
    parts = urllib.parse.urlparse(location)
    if parts.scheme == "runs":
        raise BadInput(f"Artifact location cannot be a runs:/ URI. Given: '{location}'")
    if parts.fragment or parts.params or (parts.query and parts.scheme in ("", "file", "mlflow-artifacts")):
        raise BadInput("'artifact_location' URL can't include fragments or params.")
    if parts.scheme == "mlflow-artifacts" and ".." in urllib.parse.unquote(urllib.parse.unquote(parts.path)).split("/"):
        raise BadInput("Invalid path: an artifact location may hold no '..'.")
    return location if parts.scheme else os.path.abspath(location)


def view_of(call: Call, name: str) -> str:
    """The view asked for."""
    asked = str(call.get(name, "ACTIVE_ONLY"))
    if asked not in VIEWS:
        raise fields.invalid(name, call.get(name), f" Use one of: {', '.join(list(VIEWS)[:3])}.{fields.SEE}")
    return VIEWS[asked]


async def _be(call: Call, deleted: bool) -> None:
    id = id_of(call)
    found = await call.ws.runs.experiment(call.who, id)
    if (found["deleted_at"] is not None) is not deleted:
        raise NotFound(f"No Experiment with id={id} exists", f"It is {'not deleted' if deleted else 'deleted already'}.")


ROUTES = [
    ("POST", "experiments/create", create),
    ("GET", "experiments/get", get),
    ("GET", "experiments/get-by-name", get_by_name),
    ("POST", "experiments/search", search),
    ("GET", "experiments/search", search),
    ("POST", "experiments/update", update),
    ("POST", "experiments/delete", delete),
    ("POST", "experiments/restore", restore),
    ("POST", "experiments/set-experiment-tag", set_tag),
    ("POST", "experiments/delete-experiment-tag", delete_tag),
]
