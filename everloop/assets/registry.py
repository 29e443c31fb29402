"""Named models and prompts as MLflow's registry sees them: a name exists before it has a version, carries a description and tags, and may
be renamed or deleted. What belongs to a name is a document of kind `registry`; versions are assets of kind model or prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everloop.assets import aliases as moving
from everloop.assets import catalog, gates, lineage, removal, run_filter, webhooks
from everloop.core.errors import BadInput, Conflict, NotFound
from everloop.core.limits import VERSIONS_LISTED
from everloop.core.refs import Ref, check_name
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import alias_moves, aliases, assets, documents, edges

KIND = "registry"
KINDS = ("model", "prompt")
STAGE = "everloop.mlflow.stage"
"""The tag of a version that holds the stage a client of MLflow's put it in; traffic follows none."""
TOGETHER = 500
"""Names asked about in one query."""
STAGES = ("None", "Staging", "Production", "Archived")


def create(tx: Tx, name: str, kind: str, description: str = "", tags: dict[str, str] | None = None) -> dict[str, Any]:
    """A new name without versions; Conflict if it is taken by a model or prompt."""
    check_name(name, "name of a registered model")
    there = find(tx, name)
    if there is not None:
        if there["kind"] != kind:
            raise Conflict(f"The name {name!r} is taken by a {there['kind']}; a model and a prompt cannot share one.", "Choose another name.")
        raise Conflict(
            f"{'Prompt' if kind == 'prompt' else 'Registered Model'} (name={name}) already exists.",
            "Make a new version of it, or choose another name.",
        )
    _put(tx, name, {"kind": kind, "description": description, "tags": dict(tags or {}), "created_at": tx.now, "updated_at": tx.now})
    audit.record(tx, "registry.create", f"{kind}:{name}")
    webhooks.note(tx, kind, "name", "created", {"name": name, "tags": dict(tags or {}), "description": description})
    return get(tx, name)


def find(tx: Tx, name: str) -> dict[str, Any] | None:
    """A name with {"name", "kind", "description", "tags", "created_at", "updated_at"}, or None; assets made elsewhere have one too."""
    body = tx.value(sa.select(documents.c.body).where(*_document(tx, name)))
    if body is not None:
        return {"name": name, **body}
    row = tx.row(
        sa.select(assets.c.kind, sa.func.min(assets.c.created_at).label("first"), sa.func.max(assets.c.created_at).label("last"))
        .where(assets.c.project == tx.project, assets.c.kind.in_(KINDS), assets.c.name == name, assets.c.deleted_at.is_(None))
        .group_by(assets.c.kind)
        .order_by(assets.c.kind)
    )
    return _implied(name, row) if row else None


def get(tx: Tx, name: str) -> dict[str, Any]:
    """As `find`, with "aliases" and "latest" (the newest version of each stage, newest first); NotFound if there is none."""
    return full(tx, [_must(tx, name)])[0]


def search(tx: Tx) -> list[dict[str, Any]]:
    """All names by name, as `find` answers them."""
    rows = tx.rows(sa.select(documents.c.name, documents.c.body).where(documents.c.project == tx.project, documents.c.kind == KIND))
    found = {row["name"]: {"name": row["name"], **row["body"]} for row in rows}
    implied = tx.rows(
        sa.select(assets.c.name, assets.c.kind, sa.func.min(assets.c.created_at).label("first"), sa.func.max(assets.c.created_at).label("last"))
        .where(assets.c.project == tx.project, assets.c.kind.in_(KINDS), assets.c.deleted_at.is_(None))
        .group_by(assets.c.name, assets.c.kind)
    )
    for row in implied:
        found.setdefault(row["name"], _implied(row["name"], row))
    return [found[name] for name in sorted(found)]


def full(tx: Tx, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names of `search` with "aliases" and "latest", the newest version of each stage, newest first."""
    latest: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names = [one["name"] for one in found]
    for start in range(0, len(names), TOGETHER):
        newest = (
            sa.select(assets.c.kind, assets.c.name, sa.func.max(assets.c.version).label("version"))
            .where(assets.c.project == tx.project, assets.c.kind.in_(KINDS), assets.c.name.in_(names[start : start + TOGETHER]))
            .where(assets.c.deleted_at.is_(None))
            .group_by(assets.c.kind, assets.c.name, assets.c.tags[STAGE].as_string())
            .subquery()
        )
        same = sa.and_(*(assets.c[key] == newest.c[key] for key in ("kind", "name", "version")))
        rows = tx.rows(sa.select(assets).join(newest, same).where(assets.c.project == tx.project).order_by(assets.c.version.desc()))
        for asset in _shown(tx, rows):
            latest.setdefault((asset["kind"], asset["name"]), []).append(asset)
    named = _aliases(tx, names)
    return [{**one, "aliases": named.get((one["kind"], one["name"]), {}), "latest": latest.get((one["kind"], one["name"]), [])} for one in found]


def change(tx: Tx, name: str, *, description: str | None = None, tags: dict[str, str | None] | None = None) -> dict[str, Any]:
    """Change description and tags (None removes one) of a name; a new description counts as an update of it, a tag does not."""
    found = _must(tx, name)
    if description is not None:
        found |= {"description": description, "updated_at": tx.now}
    if tags:
        found["tags"] = {k: v for k, v in {**found["tags"], **tags}.items() if v is not None}
    _put(tx, name, {key: value for key, value in found.items() if key != "name"})
    audit.record(tx, "registry.change", f"{found['kind']}:{name}", description=description, tags=tags)
    for key, value in (tags or {}).items():
        webhooks.note(tx, found["kind"], "name_tag", *webhooks.tagged({"name": name}, key, value))
    return get(tx, name)


def touch(tx: Tx, name: str) -> None:
    """Note that a name changed now: one of its versions was made, deleted or put into another stage."""
    found = _must(tx, name)
    _put(tx, name, {**{key: value for key, value in found.items() if key != "name"}, "updated_at": tx.now})


def versions(tx: Tx, names: Sequence[str] | None = None, kind: str | None = None, limit: int = VERSIONS_LISTED) -> list[dict[str, Any]]:
    """Versions of these names (None: of all) and this kind (None: models and prompts), newest first, as asset dicts."""
    statement = _versions(tx, kind)
    if names is not None:
        statement = statement.where(assets.c.name.in_(names))
    return _shown(tx, tx.rows(statement.order_by(assets.c.created_at.desc(), assets.c.name, assets.c.version.desc()).limit(limit)))


def search_versions(
    tx: Tx, kind: str, clauses: Sequence[run_filter.Clause], order_by: Sequence[tuple[str, bool]], limit: int, offset: int = 0
) -> tuple[list[dict[str, Any]], bool]:
    """(versions of a kind of which all clauses hold, as asset dicts; whether there are more). A clause is on an attribute (name, run, version, source) or a
    tag, and holds of nothing that a version has not; `order_by` is [(attribute, ascending)]."""
    statement = _versions(tx, kind)
    for clause in clauses:
        column = run_filter.member(assets.c.tags, clause.key, tx.conn.dialect.name) if clause.entity == "tag" else _FIELDS[clause.key]
        statement = statement.where(run_filter.condition(column, clause.op, clause.value, tx.conn.dialect.name))
    for key, ascending in order_by:
        statement = statement.order_by(_FIELDS[key].asc() if ascending else _FIELDS[key].desc())
    rows = tx.rows(statement.limit(limit + 1).offset(offset))
    return _shown(tx, rows[:limit]), len(rows) > limit


_FIELDS: dict[str, Any] = {
    **{name: assets.c[name] for name in ("name", "run", "version", "created_at")},
    "updated_at": sa.func.coalesce(assets.c.updated_at, assets.c.created_at),
    "source": sa.func.coalesce(assets.c.manifest["mlflow"]["source"].as_string(), ""),
}
"""What versions are searched and sorted by."""


def _versions(tx: Tx, kind: str | None) -> Any:
    statement = sa.select(assets).where(assets.c.project == tx.project, assets.c.deleted_at.is_(None))
    return statement.where(assets.c.kind == kind if kind else assets.c.kind.in_(KINDS))


def _shown(tx: Tx, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as asset dicts, with the aliases of their names."""
    named = _aliases(tx, sorted({row["name"] for row in rows}))
    return [catalog.shown(row, named.get((row["kind"], row["name"]), {})) for row in rows]


def _aliases(tx: Tx, names: Sequence[str]) -> dict[tuple[str, str], dict[str, int]]:
    """{(kind, name): {alias: version}} of those names that have some."""
    c = aliases.c
    found: dict[tuple[str, str], dict[str, int]] = {}
    for start in range(0, len(names), TOGETHER):
        chosen = sa.select(aliases).where(c.project == tx.project, c.kind.in_(KINDS), c.name.in_(names[start : start + TOGETHER]))
        for row in tx.rows(chosen.order_by(c.alias)):
            found.setdefault((row["kind"], row["name"]), {})[row["alias"]] = row["version"]
    return found


def transition(tx: Tx, name: str, at: str, stage: str, archive: bool = False) -> dict[str, Any]:
    """Put a version into a stage, and with `archive` those that are in it into Archived; answers the version. BadInput for no such stage, or where
    `archive` is asked with a stage that is not Staging or Production."""
    asset = version(tx, name, at)
    known = next((one for one in STAGES if one.lower() == stage.lower()), None)
    if known is None:
        raise BadInput(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES)}.")
    if archive and known not in ("Staging", "Production"):
        raise BadInput(
            f"Model version transition cannot archive existing model versions because '{stage}' is not an Active stage.",
            "Active stages are Staging and Production.",
        )
    for other in versions(tx, [name]) if archive else []:
        if other["tags"].get(STAGE) == known and other["ref"] != asset["ref"]:
            _stage(tx, other, "Archived")
    _stage(tx, asset, known)
    touch(tx, name)
    return version(tx, name, at)


def _stage(tx: Tx, asset: dict[str, Any], stage: str) -> None:
    catalog.annotate(tx, asset["ref"], asset["description"], {STAGE: None if stage == "None" else stage})


def version(tx: Tx, name: str, at: str) -> dict[str, Any]:
    """One version, by number or alias; NotFound in MLflow's words."""
    found = get(tx, name)
    try:
        return catalog.get(tx, Ref(found["kind"], name, at))
    except NotFound as error:
        what = f"(name={name}, version={at}) not found" if at.isdigit() else f"alias {at} not found."
        raise (NotFound(f"Model Version {what}") if at.isdigit() else BadInput(f"Registered model {what}")) from error


def delete_version(tx: Tx, name: str, at: str) -> None:
    """Put a version out of sight, as `removal.delete` allows; aliases of it that no gate guards go with it."""
    asset = version(tx, name, at)
    kind = asset["kind"]
    for alias in asset["aliases"]:
        if gates.gate_for(tx, kind, name, alias) is None:
            moving.remove(tx, kind, name, alias, "its version was deleted")
    removal.delete(tx, asset["ref"])
    touch(tx, name)


def delete(tx: Tx, name: str) -> None:
    """Delete a name with all its versions, as `delete_version` allows."""
    found = get(tx, name)
    for one in versions(tx, [name]):
        delete_version(tx, name, str(one["version"]))
    tx.run(documents.delete().where(*_document(tx, name)))
    audit.record(tx, "registry.delete", f"{found['kind']}:{name}")


def rename(tx: Tx, name: str, new: str) -> dict[str, Any]:
    """Give a name another name, with its versions, aliases and lineage; Conflict if the new one is taken, a release pins a version, or a
    gate guards an alias (both name it)."""
    found = get(tx, name)
    kind = found["kind"]
    check_name(new, "new name")
    if find(tx, new) is not None:
        raise Conflict(f"Registered Model (name={new}) already exists.")
    old = f"{kind}:{name}@"
    numbers = [one["version"] for one in versions(tx, [name])]
    refs = [f"{old}{number}" for number in numbers]
    held = tx.value(sa.select(edges.c.target).where(edges.c.project == tx.project, edges.c.source.in_(refs), edges.c.relation == "pins"))
    guarded = [one for one in gates.listed(tx) if one["kind"] == kind and one["name"] == name]
    if held or guarded:
        raise Conflict(f"{kind}:{name} cannot be renamed: {held or 'a gate'} names it.", "Register it under the new name instead.")
    for table in (assets, aliases, alias_moves):
        tx.run(table.update().where(table.c.project == tx.project, table.c.kind == kind, table.c.name == name).values(name=new))
    for number in numbers:
        before, after = f"{old}{number}", f"{kind}:{new}@{number}"
        tx.run(edges.update().where(edges.c.project == tx.project, edges.c.source == before).values(source=after))
        tx.run(edges.update().where(edges.c.project == tx.project, edges.c.target == before).values(target=after))
    tx.run(documents.delete().where(*_document(tx, name)))
    _put(tx, new, {**{k: found[k] for k in ("kind", "description", "tags", "created_at")}, "updated_at": tx.now})
    audit.record(tx, "registry.rename", f"{kind}:{name}", to=new)
    return get(tx, new)


def add_version(
    tx: Tx,
    name: str,
    manifest: dict[str, Any],
    *,
    run: str | None,
    description: str,
    tags: dict[str, str],
    number: int | None = None,
    created_at: float | None = None,
    updated_at: float | None = None,
) -> dict[str, Any]:
    """A new version of a name that exists; answers the asset. The run, where told, need not be one of ours.

    An import gives the version's `number` and times as they were at its source; Conflict if the number is taken.
    """
    found = get(tx, name)
    made = catalog.register(tx, found["kind"], name, manifest, run=run, description=description, tags=tags, number=number)
    if created_at is not None:
        where = [assets.c.project == tx.project, assets.c.kind == found["kind"], assets.c.name == name, assets.c.version == made["version"]]
        tx.run(assets.update().where(*where).values(created_at=created_at, updated_at=updated_at))
        made = version(tx, name, str(made["version"]))
    if run:
        lineage.link(tx, f"run:{run}", made["ref"], "made")
    if number is None:
        touch(tx, name)
    return made


def times(tx: Tx, name: str, created_at: float, updated_at: float) -> None:
    """Set when a name was made and last changed, as an import knows it."""
    found = _must(tx, name)
    _put(tx, name, {**{key: value for key, value in found.items() if key != "name"}, "created_at": created_at, "updated_at": updated_at})


def _must(tx: Tx, name: str) -> dict[str, Any]:
    found = find(tx, name)
    if found is None:
        raise NotFound(f"Registered Model with name={name} not found")
    return found


def _implied(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "kind": row["kind"], "description": "", "tags": {}, "created_at": row["first"], "updated_at": row["last"]}


def _document(tx: Tx, name: str) -> list[Any]:
    return [documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == name]


def _put(tx: Tx, name: str, body: dict[str, Any]) -> None:
    row = {"project": tx.project, "kind": KIND, "name": name, "body": body, "updated_at": tx.now, "updated_by": tx.who.name}
    tx.upsert(documents, row)
