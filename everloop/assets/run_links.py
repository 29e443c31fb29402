"""What runs read and made beyond assets: data sets and logged models, as clients describe them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog, derivations, lineage
from everloop.assets.runs import active
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PAGE_ROWS_MAX
from everloop.core.refs import cut_part
from everloop.store.records import Tx
from everloop.store.schema import assets, run_inputs, run_models, runs

INPUT = "input"
"""How a lineage node begins that is a client's data set and no version of ours."""


def put_inputs(tx: Tx, run: str, datasets: list[dict[str, Any]]) -> None:
    """Note data sets that a run read: [{"name", "digest", "context", "source_type", "source", "schema", "profile", "tags"}].

    A lineage edge is made too: from our dataset version where the digest (or a name that is its reference) is one's, else from `input:NAME#DIGEST`.
    """
    active(tx, run)
    for one in datasets:
        name, digest = str(one.get("name") or ""), str(one.get("digest") or "")
        if not name or not digest or len(name) > 500 or len(digest) > 100:
            raise BadInput("A data set needs a name (up to 500 characters) and a digest (up to 100).")
        body = {key: one.get(key) for key in ("source_type", "source", "schema", "profile", "tags")}
        row = {
            "project": tx.project,
            "run": run,
            "name": name,
            "digest": digest,
            "context": str(one.get("context") or ""),
            "body": body,
            "at": tx.now,
        }
        tx.upsert(run_inputs, row)
        known = tx.row(
            sa.select(assets.c.name, assets.c.version).where(
                assets.c.project == tx.project, assets.c.kind == "dataset", assets.c.name == name, assets.c.digest.startswith(digest, autoescape=True)
            )
        )
        source = f"dataset:{known['name']}@{known['version']}" if known else _named(tx, name) or f"{INPUT}:{name}#{digest}"[:300]
        lineage.link(tx, source, f"run:{run}", "read")


def read(tx: Tx, run: str, refs: list[str]) -> list[str]:
    """Note asset versions that a run read, as lineage; answers the exact references. NotFound for a run or version that is not there."""
    active(tx, run)
    cut = [cut_part(ref) for ref in refs]
    exact = [(str(catalog.resolve(tx, head)), part) for head, part in cut]
    for ref, part in exact:
        lineage.link(tx, ref, f"run:{run}", "read")
        if part:
            derivations.declare_part(tx, ref, part, catalog.get(tx, ref)["manifest"], f"run:{run}", None, run)
    return [ref + (f"#{part}" if part else "") for ref, part in exact]


def _named(tx: Tx, name: str) -> str | None:
    """The dataset version that a name is the reference of, or None: a client may call its data `dataset:credit@3`."""
    if not name.startswith("dataset:"):
        return None
    try:
        return str(catalog.resolve(tx, cut_part(name)[0]))
    except (BadInput, NotFound):
        return None


def put_models(tx: Tx, run: str, models: list[tuple[str, int]], direction: str) -> None:
    """Note logged models that a run read (`input`) or made (`output`): [(id, step)]."""
    active(tx, run)
    rows = [{"project": tx.project, "run": run, "model": model, "direction": direction, "step": step, "at": tx.now} for model, step in models]
    tx.upsert(run_models, rows)


def of(tx: Tx, ids: list[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By run id: {"datasets": [...], "inputs": [{"model", "step"}], "outputs": [...]}; runs with none are left out."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in tx.rows(sa.select(run_inputs).where(run_inputs.c.project == tx.project, run_inputs.c.run.in_(ids)).order_by(run_inputs.c.at)):
        into = found.setdefault(row["run"], {"datasets": [], "inputs": [], "outputs": []})
        into["datasets"].append({"name": row["name"], "digest": row["digest"], "context": row["context"], **row["body"]})
    for row in tx.rows(sa.select(run_models).where(run_models.c.project == tx.project, run_models.c.run.in_(ids)).order_by(run_models.c.at)):
        into = found.setdefault(row["run"], {"datasets": [], "inputs": [], "outputs": []})
        into["inputs" if row["direction"] == "input" else "outputs"].append({"model": row["model"], "step": row["step"]})
    return found


def datasets(tx: Tx, experiment_ids: list[str]) -> list[dict[str, Any]]:
    """Data sets that runs of these experiments read: [{"experiment_id", "name", "digest", "context"}], each once."""
    statement = (
        sa.select(runs.c.experiment.label("experiment_id"), run_inputs.c.name, run_inputs.c.digest, run_inputs.c.context)
        .distinct()
        .select_from(run_inputs.join(runs, sa.and_(runs.c.project == run_inputs.c.project, runs.c.id == run_inputs.c.run)))
        .where(run_inputs.c.project == tx.project, runs.c.experiment.in_(experiment_ids), runs.c.deleted_at.is_(None))
        .order_by(run_inputs.c.name)
        .limit(PAGE_ROWS_MAX)
    )
    return tx.rows(statement)
