"""MLflow's evaluation data sets and registered scorers. A data set's records are versions of a table `dataset:NAME@V` of ours."""

from __future__ import annotations

from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.protocols.mlflow.wire import Call, lacking, ms


def dataset(row: dict[str, Any]) -> dict[str, Any]:
    """A Dataset in MLflow's shape; tags, schema and profile are JSON texts there."""
    return lacking(
        {
            "dataset_id": row["id"],
            "name": row["name"],
            "tags": orjson.dumps(row["tags"]).decode(),
            "schema": orjson.dumps(row["fields"]).decode() if row["fields"] else None,
            "profile": orjson.dumps({"num_records": row["count"]}).decode() if row["count"] else None,
            "digest": f"{row['asset']}@{row['version'] or 0}"[-64:],
            "created_time": ms(row["created_at"]),
            "last_update_time": ms(row["updated_at"]),
            "created_by": row["created_by"],
            "last_updated_by": row["updated_by"],
            "experiment_ids": row["experiments"],
        }
    )


def record(row: dict[str, Any], id: str) -> dict[str, Any]:
    """A DatasetRecord in MLflow's shape."""
    source = row["source"] if isinstance(row["source"], dict) else None
    data = (source or {}).get("source_data") or {}
    found = {
        **row,
        "dataset_id": id,
        "tags": row["tags"] or {},
        "source": source,
        "source_type": (source or {}).get("source_type"),
        "source_id": data.get("trace_id") or data.get("source_id"),
    }
    return lacking(found)


async def create(call: Call) -> Any:
    """datasets/create."""
    experiments = [str(one) for one in call.listed("experiment_ids")]
    return {"dataset": dataset(await call.ws.eval_sets.create(call.who, call.need("name"), experiments, _object(call, "tags")))}


async def get(call: Call) -> Any:
    """GET datasets/{id}."""
    return {"dataset": dataset(await call.ws.eval_sets.get(call.who, call.path["id"]))}


async def delete(call: Call) -> Any:
    """DELETE datasets/{id}."""
    await call.ws.eval_sets.delete(call.who, call.path["id"])


async def search(call: Call) -> Any:
    """POST datasets/search."""
    limit, token = call.number("max_results", 1000), str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    found, more = await call.ws.eval_sets.search(
        call.who,
        experiments=[str(one) for one in call.listed("experiment_ids")],
        filter=str(call.get("filter_string", "") or ""),
        order=[str(one) for one in call.listed("order_by")],
        limit=limit,
        offset=int(token),
    )
    return lacking({"datasets": [dataset(one) for one in found], "next_page_token": str(int(token) + limit) if more else None})


async def set_tags(call: Call) -> Any:
    """PATCH datasets/{id}/tags."""
    await call.ws.eval_sets.tag(call.who, call.path["id"], {k: str(v) for k, v in _object(call, "tags").items() if v is not None})


async def delete_tag(call: Call) -> Any:
    """DELETE datasets/{id}/tags/{key}."""
    await call.ws.eval_sets.tag(call.who, call.path["id"], {call.path["key"]: None})


async def upsert_records(call: Call) -> Any:
    """POST datasets/{id}/records."""
    try:
        records = orjson.loads(call.need("records"))
    except ValueError:
        records = None
    if not isinstance(records, list):
        raise BadInput("Invalid value for parameter 'records' supplied: it must be a JSON list of records, as text.")
    added, changed = await call.ws.eval_sets.merge(call.who, call.path["id"], records)
    return {"inserted_count": added, "updated_count": changed}


async def get_records(call: Call) -> Any:
    """GET datasets/{id}/records, a page of them."""
    limit, token = call.number("max_results", 1000), str(call.get("page_token", "") or "0")
    if not token.isdigit():
        raise BadInput(f"Invalid page token {token!r}.", "Use the next_page_token of an earlier answer.")
    found = await call.ws.eval_sets.records(call.who, call.path["id"])
    start = int(token)
    shown = [record(one, call.path["id"]) for one in found[start : start + limit]]
    return lacking({"records": orjson.dumps(shown).decode(), "next_page_token": str(start + limit) if len(found) > start + limit else None})


async def delete_records(call: Call) -> Any:
    """DELETE datasets/{id}/records."""
    return {"deleted_count": await call.ws.eval_sets.remove(call.who, call.path["id"], [str(one) for one in call.listed("dataset_record_ids")])}


async def experiment_ids(call: Call) -> Any:
    """GET datasets/{id}/experiment-ids."""
    return {"experiment_ids": (await call.ws.eval_sets.get(call.who, call.path["id"]))["experiments"]}


async def add_experiments(call: Call) -> Any:
    """POST datasets/{id}/add-experiments."""
    ids = [str(one) for one in call.listed("experiment_ids")]
    return {"dataset": dataset(await call.ws.eval_sets.place(call.who, call.path["id"], add=ids))}


async def remove_experiments(call: Call) -> Any:
    """POST datasets/{id}/remove-experiments."""
    ids = [str(one) for one in call.listed("experiment_ids")]
    return {"dataset": dataset(await call.ws.eval_sets.place(call.who, call.path["id"], remove=ids))}


def scorer(row: dict[str, Any]) -> dict[str, Any]:
    """A Scorer in MLflow's shape."""
    return {
        "experiment_id": int(row["experiment"]),
        "scorer_name": row["name"],
        "scorer_version": row["version"],
        "serialized_scorer": row["body"],
        "creation_time": ms(row["created_at"]),
        "scorer_id": row["id"],
    }


async def register(call: Call) -> Any:
    """scorers/register."""
    row = await call.ws.eval_sets.register_scorer(call.who, call.need("experiment_id"), call.need("name"), call.need("serialized_scorer"))
    made = scorer(row)
    return {
        "version": made["scorer_version"],
        "scorer_id": made["scorer_id"],
        "experiment_id": row["experiment"],
        "name": made["scorer_name"],
        "serialized_scorer": made["serialized_scorer"],
        "creation_time": made["creation_time"],
    }


async def list_scorers(call: Call) -> Any:
    """scorers/list: the newest version of each."""
    one, many = call.get("experiment_id"), call.listed("experiment_ids")
    if one and "experiment_ids" in call.body:
        raise BadInput("Cannot specify both 'experiment_id' and 'experiment_ids'.", "Use 'experiment_ids' for several experiments.")
    wanted = [str(one)] if one else [str(x) for x in many] if "experiment_ids" in call.body else None
    return {"scorers": [scorer(row) for row in await call.ws.eval_sets.scorers(call.who, wanted)]}


async def scorer_versions(call: Call) -> Any:
    """scorers/versions."""
    return {"scorers": [scorer(row) for row in await call.ws.eval_sets.scorer_versions(call.who, call.need("experiment_id"), call.need("name"))]}


async def get_scorer(call: Call) -> Any:
    """scorers/get."""
    return {"scorer": scorer(await call.ws.eval_sets.scorer(call.who, call.need("experiment_id"), call.need("name"), _version(call)))}


async def delete_scorer(call: Call) -> Any:
    """scorers/delete: one version, or all."""
    await call.ws.eval_sets.delete_scorer(call.who, call.need("experiment_id"), call.need("name"), _version(call))


async def online_configs(call: Call) -> Any:
    """scorers/online-configs."""
    found = await call.ws.eval_sets.scorer_configs(call.who, [str(one) for one in call.listed("scorer_ids")])
    return {"configs": [config(one) for one in found]}


async def set_online_config(call: Call) -> Any:
    """PUT scorers/online-config: kept, so that a client reads back what it set; live traces are judged by monitors here."""
    try:
        rate = float(call.need("sample_rate"))
    except ValueError:
        raise BadInput(f"Invalid value {call.get('sample_rate')!r} for parameter 'sample_rate' supplied: it must be a number.") from None
    filter = call.get("filter_string")
    if filter is not None and not isinstance(filter, str):
        raise BadInput(f"Invalid value {filter!r} for parameter 'filter_string' supplied: it must be a text.")
    made = await call.ws.eval_sets.configure_scorer(call.who, call.need("experiment_id"), call.need("name"), rate, filter)
    return {"config": config(made)}


def config(row: dict[str, Any]) -> dict[str, Any]:
    """An OnlineScoringConfig in MLflow's shape."""
    return {
        "online_scoring_config_id": row["id"],
        "scorer_id": row["scorer"],
        "sample_rate": row["sample_rate"],
        "experiment_id": row["experiment"],
        "filter_string": row["filter"],
    }


def _version(call: Call) -> int | None:
    return call.number("version", 0, 1, 2**31) if call.get("version") is not None else None


def _object(call: Call, name: str) -> dict[str, Any]:
    """A field that is JSON text of an object (an object itself will do)."""
    given = call.get(name, {})
    try:
        found = orjson.loads(given) if isinstance(given, str) and given else given or {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(f"Invalid value for parameter '{name}' supplied: it must be a JSON object, as text.")
    return found


ROUTES = [
    ("POST", "datasets/create", create),
    ("POST", "datasets/search", search),
    ("GET", "datasets/search", search),
    ("GET", "datasets/{id}", get),
    ("DELETE", "datasets/{id}", delete),
    ("PATCH", "datasets/{id}/tags", set_tags),
    ("DELETE", "datasets/{id}/tags/{key}", delete_tag),
    ("GET", "datasets/{id}/records", get_records),
    ("POST", "datasets/{id}/records", upsert_records),
    ("DELETE", "datasets/{id}/records", delete_records),
    ("GET", "datasets/{id}/experiment-ids", experiment_ids),
    ("POST", "datasets/{id}/add-experiments", add_experiments),
    ("POST", "datasets/{id}/remove-experiments", remove_experiments),
    ("POST", "scorers/register", register),
    ("GET", "scorers/list", list_scorers),
    ("GET", "scorers/versions", scorer_versions),
    ("GET", "scorers/get", get_scorer),
    ("DELETE", "scorers/delete", delete_scorer),
    ("GET", "scorers/online-configs", online_configs),
    ("PUT", "scorers/online-config", set_online_config),
]
