"""Two versions of a dataset compared, whatever they hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop.assets import file_diff, table_diff
from everloop.core.errors import BadInput
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.workspace import data_files

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


async def diff(ws: Workspace, who: Principal, old: str, new: str, key: Sequence[str] = (), limit: int = 10) -> dict[str, Any]:
    """Compare two versions of a dataset (or two datasets): {"from", "to", "format", "same", ...}.

    Tables: "schema", "rows" (matched by `key`, else by the dataset's id column, else by content), "columns" (statistics side by side).
    Files and documents: "files" by path. `limit` examples of each sort of row are shown. BadInput where one is a table and the other is not.
    """
    first, second = [await ws.assets.get(who.need(Role.viewer), Ref.parse(ref, "dataset")) for ref in (old, new)]
    before, after = first["manifest"], second["manifest"]
    answer = {
        "from": _shown(first),
        "to": _shown(second),
        "format": after.get("format"),
        "same": first["digest"] == second["digest"],
    }
    if "table" in (before.get("format"), after.get("format")):
        if before.get("format") != after.get("format"):
            raise BadInput(f"{first['ref']} is {before.get('format')} and {second['ref']} {after.get('format')}; they cannot be compared.")
        found = await asyncio.to_thread(_tables, ws, who.project, before, after, list(key), limit)
        return {**answer, **found}
    return {**answer, "files": await asyncio.to_thread(_compared, ws, who.project, before, after)}


def _tables(ws: Workspace, project: str, before: Mapping[str, Any], after: Mapping[str, Any], key: list[str], limit: int) -> dict[str, Any]:
    old, new = (ws.objects.path(project, m["files"][0]["digest"]) for m in (before, after))
    scratch = Path(tempfile.mkdtemp(prefix="diff-", dir=ws.scratch()))
    try:
        known = [m["roles"]["id"] for m in (after, before) if (m.get("roles") or {}).get("id")]
        names = [{c["name"] for c in m["schema"]} for m in (before, after)]
        by = key or [n for n in known[:1] if all(n in have for have in names)]
        rows = table_diff.rows(old, new, before, after, key=by, asked=bool(key), scratch=scratch, limit=limit)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"schema": table_diff.schema(before, after), "rows": rows, "columns": table_diff.columns(before, after)}


def _compared(ws: Workspace, project: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return file_diff.compare(data_files.listed(ws, project, before), data_files.listed(ws, project, after))


def _shown(asset: Mapping[str, Any]) -> dict[str, Any]:
    return {k: asset[k] for k in ("ref", "version", "digest", "created_at", "created_by", "description", "aliases")}
