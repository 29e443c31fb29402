"""Evaluation data sets as MLflow's clients know them: a name with tags and experiments, and records of inputs, outputs and expectations.

The records are a table, `dataset:ASSET@V`: each change makes a version of it, so that an evaluation says which records it used, and lineage,
profile and diff work as for any table. What may change without a version (tags, experiments) stands in one row.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from everloop.assets import run_filter
from everloop.core.errors import BadInput, NotFound
from everloop.core.refs import NAME_MAX, check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import assets, eval_sets

JSON_COLUMNS = ("inputs", "outputs", "expectations", "tags", "source")
COLUMNS = ("dataset_record_id", *JSON_COLUMNS, "created_time", "last_update_time", "created_by", "last_updated_by")
USER = "mlflow.user"
_TIMES = {
    **dict.fromkeys(("created_time", "creation_time"), ("created_at", "number")),
    **dict.fromkeys(("last_update_time", "updated_time"), ("updated_at", "number")),
}
SETS = run_filter.Grammar(
    "evaluation data sets",
    {
        "name": ("name", "list"),
        "dataset_id": ("id", "list"),
        "created_by": ("created_by", "text"),
        "last_updated_by": ("updated_by", "text"),
        **_TIMES,
    },
    {"attribute": "attribute", "attributes": "attribute", "tag": "tag", "tags": "tag"},
    {"tag": "text"},
)


def create(tx: Tx, name: str, experiments: Sequence[str], tags: Mapping[str, Any]) -> dict[str, Any]:
    """A new data set without records. BadInput for a name that cannot be one."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_MAX:
        raise BadInput(f"{name!r} cannot name an evaluation data set.", f"Use 1 to {NAME_MAX} characters.")
    id = f"d-{tx.clock.new_id()}"
    user = str(tags[USER]) if USER in tags else tx.who.name
    row = {
        "project": tx.project,
        "id": id,
        "name": name,
        "asset": _free_name(tx, name, id),
        "version": None,
        "count": 0,
        "tags": {str(k): str(v) for k, v in tags.items()},
        "experiments": [str(one) for one in experiments],
        "fields": {},
        "created_at": tx.now,
        "created_by": user,
        "updated_at": tx.now,
        "updated_by": user,
    }
    tx.run(eval_sets.insert().values(**row))
    audit.record(tx, "eval_set.create", f"eval_set:{id}", name=name)
    return row


def get(tx: Tx, id: str) -> dict[str, Any]:
    """A data set; NotFound if there is none with this id."""
    row = tx.row(sa.select(eval_sets).where(eval_sets.c.project == tx.project, eval_sets.c.id == id))
    if row is None:
        raise NotFound(f"Evaluation dataset with id '{id}' not found", "List them with mlflow.genai.datasets.search_datasets().")
    return row


def search(
    tx: Tx, experiments: Sequence[str] = (), filter: str = "", order: Sequence[str] = (), limit: int = 1000, offset: int = 0
) -> tuple[list[dict[str, Any]], bool]:
    """A page of data sets, newest first unless ordered otherwise, and whether there are more."""
    clauses, orders = run_filter.parse(filter, SETS), [run_filter.parse_order(one, SETS) for one in order or ["created_time DESC"]]
    if any(entity != "attribute" or key not in ("name", "created_at", "updated_at") for entity, key, _ in orders):
        raise BadInput("Evaluation data sets are ordered by name, created_time or last_update_time.")
    conditions = [eval_sets.c.project == tx.project]
    for one in clauses:
        column = eval_sets.c.tags[one.key].as_string() if one.entity == "tag" else eval_sets.c[one.key]
        value = run_filter.seconds(one.value) if isinstance(one.value, float) else one.value
        conditions.append(run_filter.condition(column, one.op, value, tx.conn.dialect.name))
    by = [eval_sets.c[key].asc() if up else eval_sets.c[key].desc() for _, key, up in orders]
    rows = tx.rows(sa.select(eval_sets).where(*conditions).order_by(*by, eval_sets.c.id.desc()))
    wanted = set(experiments)
    kept = [row for row in rows if not wanted or wanted & set(row["experiments"])]
    return kept[offset : offset + limit], len(kept) > offset + limit


def change(tx: Tx, id: str, **values: Any) -> dict[str, Any]:
    """Set columns of a data set; answers it."""
    get(tx, id)
    tx.run(eval_sets.update().where(eval_sets.c.project == tx.project, eval_sets.c.id == id).values(**{"updated_at": tx.now, **values}))
    audit.record(tx, "eval_set.change", f"eval_set:{id}", changed=sorted(values))
    return get(tx, id)


def delete(tx: Tx, id: str) -> None:
    """Forget a data set; the versions of its table stay, since runs may name them. One that is not there is gone already."""
    if tx.run(eval_sets.delete().where(eval_sets.c.project == tx.project, eval_sets.c.id == id)):
        audit.record(tx, "eval_set.delete", f"eval_set:{id}")


def merged(old: Sequence[dict[str, Any]], new: Sequence[Mapping[str, Any]], now_ms: int) -> tuple[list[dict[str, Any]], int, int]:
    """(records, how many were added, how many changed): a new record with the inputs of an old one is merged into it."""
    records = {_key(one["inputs"]): one for one in old}
    added = changed = 0
    for one in new:
        if not isinstance(one, Mapping) or any(not isinstance(one.get(part) or {}, Mapping) for part in ("inputs", "expectations", "tags", "source")):
            raise BadInput(
                "A record is an object; its `inputs`, `expectations`, `tags` and `source` are objects too.",
                'For example {"inputs": {"question": "..."}, "expectations": {...}}.',
            )
        key, user = _key(one.get("inputs") or {}), (one.get("tags") or {}).get(USER)
        there = records.get(key)
        if there is None:
            records[key] = _record(one, user, now_ms)
            added += 1
            continue
        changes: dict[str, Any] = {"last_update_time": now_ms}
        if "outputs" in one:
            changes["outputs"] = one["outputs"]
        for name in ("expectations", "tags"):
            if one.get(name):
                changes[name] = {**(there[name] or {}), **one[name]}
        if user:
            changes["last_updated_by"] = str(user)
        records[key] = {**there, **changes}
        changed += 1
    return list(records.values()), added, changed


def _record(one: Mapping[str, Any], user: Any, now_ms: int) -> dict[str, Any]:
    return {
        "dataset_record_id": f"dr-{uuid.uuid4().hex}",
        "inputs": dict(one.get("inputs") or {}),
        "outputs": one.get("outputs", {}),
        "expectations": one.get("expectations"),
        "tags": one.get("tags"),
        "source": one.get("source"),
        "created_time": now_ms,
        "last_update_time": now_ms,
        "created_by": None if user is None else str(user),
        "last_updated_by": None if user is None else str(user),
    }


def fields_of(known: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields that records have, with their types, as MLflow tells them; what is known already stays."""
    found: dict[str, Any] = {part: dict(known.get(part) or {}) for part in ("inputs", "outputs", "expectations")}
    for one in records:
        for part, fields in found.items():
            if isinstance(one.get(part), Mapping):
                for name, value in one[part].items():
                    fields.setdefault(name, _type(value))
    return {**found, "version": "1.0"}


def _type(value: Any) -> str:
    kinds = ((bool, "boolean"), (int, "integer"), (float, "float"), (str, "string"), (list, "array"), (dict, "object"))
    return "null" if value is None else next((name for kind, name in kinds if isinstance(value, kind)), "unknown")


def to_parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as a Parquet file; what is nested is JSON text."""
    import pyarrow as pa

    from everloop.assets.table_parts import write

    columns: dict[str, Any] = {}
    for name in COLUMNS:
        values = [one[name] for one in records]
        if name in JSON_COLUMNS:
            values = [None if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode() for value in values]
        columns[name] = pa.array(values, pa.int64() if name.endswith("_time") else pa.string())
    target = io.BytesIO()
    write(pa.table(columns), target)
    return target.getvalue()


def from_columns(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Records from the columns of their table."""
    names = [name for name in COLUMNS if name in columns]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [{n: orjson.loads(v) if n in JSON_COLUMNS and v is not None else v for n, v in zip(names, row, strict=True)} for row in rows]


def _key(inputs: Mapping[str, Any]) -> bytes:
    return orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)


def _free_name(tx: Tx, name: str, id: str) -> str:
    """A name for the table: the data set's own, made fit, unless something else has it."""
    fit = check_name(re.sub(r"[\x00-\x1f\x7f:@/]+", "-", name).strip() or id)
    taken = sa.select(assets.c.name).where(assets.c.project == tx.project, assets.c.kind == "dataset", assets.c.name == fit)
    other = sa.select(eval_sets.c.id).where(eval_sets.c.project == tx.project, eval_sets.c.asset == fit)
    return f"{fit[:230]}-{id[-12:]}" if tx.value(taken) is not None or tx.value(other) is not None else fit
