"""Deleting versions: out of sight and restorable (`delete`, `restore`), or for good (`purge`).

A version that something live needs stays: an alias (with the endpoints that follow it), a release, a gate, a suite, a pipeline. A version that
was purged keeps its number, digest and time, so that no other ever takes its number and the record still proves what it was; its manifest, and
with it every file that nothing else names, is gone.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog
from everloop.core.errors import Conflict, NotFound
from everloop.core.limits import PAGE_ROWS_MAX
from everloop.core.refs import Ref
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import assets, edges, endpoints, gates, pipelines

PURGED = {"purged": True}
"""The manifest of a version that was deleted for good."""


def needed_by(tx: Tx, ref: Ref | str) -> list[str]:
    """What needs a version now, in words: ["release release:credit@2 pins it", ...]; empty where nothing does."""
    ref = Ref.parse(str(ref))
    text, held = str(ref), [alias for alias, at in catalog.aliases_of(tx, ref.kind, ref.name).items() if at == ref.version]
    found = [f"it is {ref.kind}:{ref.name}@{alias}" for alias in held]
    if ref.kind == "release":
        for row in tx.rows(sa.select(endpoints).where(endpoints.c.project == tx.project)):
            spec = row["spec"]
            followed = [one["alias"] for one in spec.get("split") or []] + [spec.get("shadow")]
            found += [f"endpoint {row['name']} serves it as {alias}" for alias in held if spec.get("release") == ref.name and alias in followed]
    found += [f"release {one} pins it" for one in _pinned_by(tx, text, gone=False)]
    for row in tx.rows(sa.select(gates).where(gates.c.project == tx.project)):
        if row["spec"].get("suite") in (text, *([f"suite:{ref.name}"] if ref.kind == "suite" and _is_last(tx, ref) else [])):
            found.append(f"the gate of {row['kind']}:{row['name']}@{row['alias']} tests with it")
    live = (assets.c.project == tx.project, assets.c.deleted_at.is_(None))
    for key, kind in (("dataset", "suite"), ("documents", "index")):
        users = sa.select(assets.c.name, assets.c.version).where(*live, assets.c.kind == kind, assets.c.manifest[key].as_string() == text)
        if ref.kind == "dataset":
            found += [f"{kind}:{row['name']}@{row['version']} is made of it" for row in tx.rows(users)]
    for row in tx.rows(sa.select(pipelines).where(pipelines.c.project == tx.project)):
        if text in (row["spec"].get("code"), row["spec"].get("dataset"), *(row["spec"].get("params") or {}).values()):
            found.append(f"pipeline {row['name']} uses it")
    return found


def delete(tx: Tx, ref: Ref | str) -> dict[str, Any]:
    """Put a version out of sight; answers it. NotFound if there is none, Conflict naming all that needs it."""
    asset = catalog.get(tx, ref)
    _refuse(tx, asset["ref"], "deleted")
    _set(tx, Ref.parse(asset["ref"]), deleted_at=tx.now)
    audit.record(tx, "asset.delete", asset["ref"], digest=asset["digest"])
    return asset


def restore(tx: Tx, ref: Ref | str) -> dict[str, Any]:
    """Bring a deleted version back; answers it. NotFound if none such was deleted, Conflict if it was purged."""
    exact, row = _deleted(tx, ref)
    if row["manifest"] == PURGED:
        raise Conflict(f"{exact} was deleted for good; its contents are gone.", "Register it again: that makes a new version.")
    _set(tx, exact, deleted_at=None)
    audit.record(tx, "asset.restore", str(exact))
    return catalog.get(tx, exact)


def purge(tx: Tx, ref: Ref | str) -> dict[str, Any]:
    """Delete a version for good, seen or already out of sight; answers {"ref", "digest", "files", "bytes"}: what garbage collection may now free.

    Conflict where something live needs it, or a deleted release pins it that could be restored: purge that one first.
    """
    try:
        asset = catalog.get(tx, ref)
        exact, row = Ref.parse(asset["ref"]), asset
    except NotFound:
        exact, row = _deleted(tx, ref)
    _refuse(tx, str(exact), "deleted for good")
    pinned = _pinned_by(tx, str(exact), gone=True)
    if pinned:
        raise Conflict(f"{exact} cannot be deleted for good: the deleted {', '.join(pinned)} could be restored, and pins it.", "Purge that first.")
    files = [one for one in row["manifest"].get("files") or [] if isinstance(one, dict)]
    size = sum(int(one.get("size") or 0) for one in files)
    _set(tx, exact, manifest=PURGED, description="", tags={}, deleted_at=tx.now)
    audit.record(tx, "asset.purge", str(exact), digest=row["digest"], files=len(files), bytes=size)
    return {"ref": str(exact), "digest": row["digest"], "files": len(files), "bytes": size}


def deleted(tx: Tx, kind: str | None = None, limit: int = PAGE_ROWS_MAX) -> list[dict[str, Any]]:
    """Versions that can be restored, last deleted first: [{"ref", "kind", "name", "version", "digest", "description", "deleted_at"}]."""
    keep = [assets.c[key] for key in ("kind", "name", "version", "digest", "description", "deleted_at", "manifest")]
    statement = sa.select(*keep).where(assets.c.project == tx.project, assets.c.deleted_at.is_not(None))
    if kind:
        statement = statement.where(assets.c.kind == kind)
    rows = tx.rows(statement.order_by(assets.c.deleted_at.desc(), assets.c.kind, assets.c.name, assets.c.version).limit(limit))
    shown = [{"ref": f"{row['kind']}:{row['name']}@{row['version']}", **row} for row in rows if row["manifest"] != PURGED]
    return [{key: value for key, value in row.items() if key != "manifest"} for row in shown]


def _refuse(tx: Tx, ref: str, what: str) -> None:
    users = needed_by(tx, ref)
    if users:
        raise Conflict(f"{ref} cannot be {what}: {'; '.join(users)}.", "Move the alias, or delete what needs it, first.", needed_by=users)


def _pinned_by(tx: Tx, ref: str, gone: bool) -> list[str]:
    """Releases that pin a version: those in sight, or those that were deleted and could come back."""
    found = []
    query = sa.select(edges.c.target).where(edges.c.project == tx.project, edges.c.source == ref, edges.c.relation == "pins")
    for row in tx.rows(query.order_by(edges.c.target)):
        release = Ref.parse(row["target"])
        where = [assets.c.project == tx.project, assets.c.kind == release.kind, assets.c.name == release.name, assets.c.version == release.version]
        stands = tx.row(sa.select(assets.c.deleted_at, assets.c.manifest).where(*where))
        if stands is not None and (stands["deleted_at"] is not None) == gone and stands["manifest"] != PURGED:
            found.append(str(release))
    return found


def _is_last(tx: Tx, ref: Ref) -> bool:
    return [one["version"] for one in catalog.versions(tx, ref.kind, ref.name, 2)] == [ref.version]


def _deleted(tx: Tx, ref: Ref | str) -> tuple[Ref, dict[str, Any]]:
    exact = Ref.parse(str(ref))
    where = [assets.c.project == tx.project, assets.c.kind == exact.kind, assets.c.name == exact.name, assets.c.version == exact.version]
    row = tx.row(sa.select(assets).where(*where, assets.c.deleted_at.is_not(None))) if exact.version else None
    if row is None:
        raise NotFound(f'No deleted version is called "{exact}".', "Name it with its number: model:credit@3. List them: everloop models deleted")
    return exact, row


def _set(tx: Tx, ref: Ref, **values: Any) -> None:
    where = [assets.c.project == tx.project, assets.c.kind == ref.kind, assets.c.name == ref.name, assets.c.version == ref.version]
    tx.run(assets.update().where(*where).values(**values))
