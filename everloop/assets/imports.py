"""What an import from another tracker brings: experiments, runs, logged models and names as they were, with their ids and times.

Each function may be called again with the same body: what is there already stays as it is (`made` is False), so an import that was killed is simply
run again. What is whole is noted (`mark`), so that the next run skips it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import experiments, registry, runs
from everloop.core.errors import BadInput, Conflict
from everloop.core.limits import IMPORT_MARKS
from everloop.core.refs import check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import assets, documents, logged_models
from everloop.store.schema import experiments as experiment_rows
from everloop.store.schema import runs as run_rows

KIND = "import"


def experiment(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """{"id", "name", "tags", "created_at", "updated_at"} as an experiment of the same name: {"id", "made"}. The id is kept where it is free."""
    name = str(body.get("name") or "")
    there = experiments.find(tx, name)
    wanted = str(body.get("id") or "")
    if there is None and wanted == experiments.DEFAULT_ID:
        experiments.ensure_default(tx)
        return {"id": experiments.DEFAULT_ID, "made": False}
    if there is not None:
        return {"id": there["id"], "made": False}
    made = experiments.create(tx, name, {str(k): str(v) for k, v in (body.get("tags") or {}).items()})
    free = tx.value(sa.select(experiment_rows.c.id).where(experiment_rows.c.project == tx.project, experiment_rows.c.id == wanted)) is None
    values: dict[str, Any] = {key: float(body[key]) for key in ("created_at", "updated_at") if body.get(key) is not None}
    if wanted.isdigit() and free and len(wanted) <= 18:
        values["id"] = wanted
    if values:
        tx.run(experiment_rows.update().where(experiment_rows.c.project == tx.project, experiment_rows.c.id == made["id"]).values(**values))
    return {"id": values.get("id", made["id"]), "made": True}


def run(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """{"id", "experiment_id", "name", "status", "started_at", "ended_at", "params", "tags", "parent", "code"} as a run: {"id", "made"}."""
    id = _id(body)
    where = [run_rows.c.project == tx.project, run_rows.c.id == id]
    if tx.value(sa.select(run_rows.c.id).where(*where)):
        return {"id": id, "made": False}
    more = {key: body.get(key) for key in ("params", "tags", "code", "started_at") if body.get(key) is not None}
    runs.create(tx, str(body.get("name") or ""), "training", experiment_id=str(body["experiment_id"]), id=id, **more)
    status = str(body.get("status") or "finished")
    if status not in runs.STATUSES:
        raise BadInput(f"There is no status {status!r} of a run.", f"Statuses: {', '.join(runs.STATUSES)}.")
    tx.run(run_rows.update().where(*where).values(status=status, ended_at=body.get("ended_at"), parent=body.get("parent")))
    return {"id": id, "made": True}


def logged_model(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """{"id", "experiment_id", "run", "name", "kind", "status", "params", "tags", "created_at", "updated_at"} as a logged model: {"id", "made"}."""
    id = _id(body)
    if tx.value(sa.select(logged_models.c.id).where(logged_models.c.project == tx.project, logged_models.c.id == id)):
        return {"id": id, "made": False}
    experiments.get(tx, str(body["experiment_id"]))
    row = {
        "project": tx.project,
        "id": id,
        "experiment": str(body["experiment_id"]),
        "run": body.get("run") or None,
        "name": str(body.get("name") or id),
        "kind": str(body.get("kind") or ""),
        "status": str(body.get("status") or "ready"),
        "params": dict(body.get("params") or {}),
        "tags": dict(body.get("tags") or {}),
        "created_at": float(body.get("created_at") or tx.now),
        "updated_at": float(body.get("updated_at") or tx.now),
        "created_by": tx.who.name,
        "deleted_at": None,
    }
    tx.run(logged_models.insert().values(**row))
    return {"id": id, "made": True}


def name(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """{"name", "kind", "description", "tags", "created_at", "updated_at"} as a registered model or prompt: {"name", "made"}. Conflict where the name
    is taken by the other kind."""
    wanted, kind = check_name(str(body.get("name") or ""), "name of a registered model"), str(body.get("kind") or "model")
    there = registry.find(tx, wanted)
    if there is not None and there["kind"] != kind:
        raise Conflict(f"The name {wanted!r} is a {there['kind']} here and a {kind} there.", "Rename one of them first.")
    if there is not None:
        return {"name": wanted, "made": False}
    registry.create(tx, wanted, kind, str(body.get("description") or ""), body.get("tags") or {})
    times = {key: body.get(key) or tx.now for key in ("created_at", "updated_at")}
    registry.times(tx, wanted, **times)
    return {"name": wanted, "made": True}


def number(tx: Tx, kind: str, name: str, version: int) -> dict[str, Any] | None:
    """The version of that number if it is there (in sight or deleted), so that it is not brought twice."""
    where = [assets.c.project == tx.project, assets.c.kind == kind, assets.c.name == name, assets.c.version == version]
    return tx.row(sa.select(assets).where(*where))


def delete(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """Put out of sight what was deleted at the source: {"run" or "experiment": id}."""
    id = str(body.get("run") or body.get("experiment") or "")
    table = run_rows if body.get("run") else experiment_rows
    tx.run(table.update().where(table.c.project == tx.project, table.c.id == id, table.c.deleted_at.is_(None)).values(deleted_at=tx.now))
    return {"id": id, "made": True}


def mark(tx: Tx, body: dict[str, Any]) -> dict[str, Any]:
    """Note that something of a source is here whole: {"source", "keys": ["run:ID", ...]}; and with "end", that the import ended (audited)."""
    source = str(body.get("source") or "")
    if not source:
        raise BadInput("The source of an import is missing.")
    keys = sorted({*marked(tx, source), *map(str, body.get("keys") or ())})
    if len(keys) > IMPORT_MARKS:
        raise BadInput(f"An import notes up to {IMPORT_MARKS} things.", "Import part by part.")
    for start in range(0, max(len(keys), 1), _PART):
        row = {"project": tx.project, "kind": KIND, "name": f"{source[:200]}#{start // _PART}", "body": {"keys": keys[start : start + _PART]}}
        tx.upsert(documents, {**row, "updated_at": tx.now, "updated_by": tx.who.name})
    if body.get("end"):
        audit.record(tx, "import.mlflow", source, brought=len(keys))
    return {"id": source, "made": True}


_PART = 2_000


def marked(tx: Tx, source: str) -> list[str]:
    """What `mark` noted of a source."""
    rows = tx.rows(
        sa.select(documents.c.name, documents.c.body).where(
            documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name.startswith(f"{source[:200]}#", autoescape=True)
        )
    )
    return [key for row in rows for key in row["body"]["keys"]]


def _id(body: dict[str, Any]) -> str:
    id = str(body.get("id") or "")
    if not id or len(id) > 64 or any(c in id for c in "/\\ \n"):
        raise BadInput(f"{id!r} cannot be an id.", "Up to 64 characters without spaces or slashes.")
    return id


WHATS = {"experiment": experiment, "run": run, "logged-model": logged_model, "name": name, "delete": delete, "mark": mark}
"""What can be brought, by its name in the address."""
