"""The garbage collector's first half: which objects of a project something refers to. The second half deletes the others (store/sweep.py).

A digest counts as referred to wherever it stands: in any text or JSON of any row of the project, whatever table, also of versions that were deleted
and can be restored; in spans, predictions and scores; and in the lists of files that datasets name. So a new table, or a new kind of asset, is
safe without a line here.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.assets import uploads
from everloop.core.errors import BadInput
from everloop.core.limits import OBJECT_GRACE_MIN_SECONDS, OBJECT_GRACE_SECONDS, VERIFY_SHOWN
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.store import audit, sweep
from everloop.store.schema import assets, metadata
from everloop.workspace import data_files

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
NAMES_NONE = {"audit", "keys", "sessions", "users", "members", "projects", "edges", "run_metrics", "metric_blocks", "model_metrics"}
"""Tables that never are why an object is needed: what they tell stands elsewhere, or is no object. The audit record names what is long gone."""


async def collect(ws: Workspace, who: Principal, *, grace: float = OBJECT_GRACE_SECONDS, dry_run: bool = False) -> dict[str, Any]:
    """Delete the project's objects that nothing refers to and that are older than `grace` seconds: {"kept", "deleted", "deleted_bytes", "young",
    "live", "dry_run", ...}. Admins alone. BadInput for a grace under OBJECT_GRACE_MIN_SECONDS: an upload under way would lose what it sent.
    """
    who.need(Role.admin, "collect garbage")
    if grace < OBJECT_GRACE_MIN_SECONDS:
        raise BadInput(f"A grace of {grace:g} s is too short.", f"Give at least {OBJECT_GRACE_MIN_SECONDS:g}: uploads under way need it.")
    if not dry_run:
        await ws.records.write(who, uploads.forget_old)
    before = time.time() - grace
    live = await live_objects(ws, who)
    done = await asyncio.to_thread(sweep.sweep, ws.objects, who.project, live, before, dry_run)
    told = {**done.to_json(), "live": len(live), "grace": grace, "dry_run": dry_run}
    if not dry_run:
        await ws.records.write(who, lambda tx: audit.record(tx, "objects.gc", "objects", deleted=done.deleted, bytes=done.deleted_bytes))
    return told


async def live_objects(ws: Workspace, who: Principal) -> set[str]:
    """Digests of all that something in the project refers to. An admin's alone."""
    who.need(Role.admin, "list what is referred to")
    live, trees = await ws.records.read(who, _in_records)
    live |= await ws.telemetry.query(lambda con: _in_telemetry(con, who.project), who.project)
    return live | await asyncio.to_thread(_in_trees, ws, who.project, trees)


async def verify(ws: Workspace, who: Principal, ref: str | None = None) -> dict[str, Any]:
    """Read every object of the project (or of one dataset version) and check it: {"checked", "bytes", "damaged": [{"key" or "path", "error"}]}."""
    who.need(Role.editor, "verify objects")
    if ref is None:
        return await asyncio.to_thread(_verified, ws, who.project, None)
    asset = await ws.assets.get(who, Ref.parse(ref, "dataset"))
    return {"ref": asset["ref"], **await asyncio.to_thread(_verified, ws, who.project, asset["manifest"])}


def _verified(ws: Workspace, project: str, manifest: dict[str, Any] | None) -> dict[str, Any]:
    paths = None
    if manifest is not None:
        paths = {entry["digest"]: entry["path"] for entry in data_files.listed(ws, project, manifest) if "digest" in entry}
    checked = size = count = 0
    damaged: list[dict[str, Any]] = []
    for one in sweep.verify(ws.objects, project, iter(paths) if paths is not None else None):
        checked, size = checked + 1, size + one["bytes"]
        if one["error"]:
            count += 1
            if len(damaged) < VERIFY_SHOWN:
                damaged.append({**one, **({"path": paths[one["digest"]]} if paths else {})})
    return {"checked": checked, "bytes": size, "damaged": damaged, "damaged_count": count}


def _in_records(tx: Any) -> tuple[set[str], set[str]]:
    """(digests named anywhere in the project's rows, those of lists of files)."""
    live: set[str] = set()
    for table in metadata.sorted_tables:
        if table.name in NAMES_NONE or "project" not in table.c:
            continue
        texts = [c for c in table.c if isinstance(c.type, sa.String | sa.Text | sa.JSON) and c.name not in ("project", "name")]
        chosen = sa.select(*(sa.cast(c, sa.Text) for c in texts)).where(table.c.project == tx.project)
        for row in tx.conn.execution_options(yield_per=200).execute(chosen):
            for cell in row:
                if cell and len(cell) >= 64:
                    live.update(_DIGEST.findall(cell))
    trees = sa.select(assets.c.manifest["tree"]["digest"].as_string()).where(assets.c.project == tx.project, assets.c.kind == "dataset")
    return live, {row[0] for row in tx.conn.execute(trees) if row[0]}


def _in_telemetry(con: Any, project: str) -> set[str]:
    """Digests that spans, predictions and scores name."""
    from everloop.store.telemetry_tables import TABLES

    live: set[str] = set()
    for table in TABLES:
        found = con.execute("select column_name from information_schema.columns where table_name = ? and data_type = 'VARCHAR'", [table]).fetchall()
        for (column,) in found:
            if column != "project":
                rows = con.execute(
                    f"select distinct unnest(regexp_extract_all(\"{column}\", '[0-9a-f]{{64}}')) from {table} where project = ?", [project]
                )
                live.update(digest for (digest,) in rows.fetchall())
    return live


def _in_trees(ws: Workspace, project: str, trees: set[str]) -> set[str]:
    """Digests of files that lists name. A list that cannot be read raises: nothing may be deleted then."""
    return {entry["digest"] for tree in trees for entry in data_files.entries(ws, project, tree) if "digest" in entry}
