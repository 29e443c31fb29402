"""What was made of traces that are erased: labels, and versions of datasets and suites. Items of queues go; a version that holds some of them is
made anew without, and deleted for good with its bytes, where nothing needs it."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from everloop.assets import removal
from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import ERASE_TABLE_BYTES
from everloop.core.principal import Principal
from everloop.store import sweep, telemetry_erase
from everloop.store.schema import assets, eval_sets, queue_items, queue_labels
from everloop.workspace import data_gc

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_LOOK = "Look for the user in it yourself."
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_TRACE = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def forget_items(tx: Any, traces: Sequence[str]) -> dict[str, int]:
    """Take traces out of all queues, with their labels: {queue: items}."""
    counts: dict[str, int] = {}
    for i in range(0, len(traces), 500):
        some = list(traces[i : i + 500])
        where = (queue_items.c.project == tx.project, queue_items.c.item.in_(some))
        for row in tx.rows(sa.select(queue_items.c.queue, sa.func.count().label("n")).where(*where).group_by(queue_items.c.queue)):
            counts[row["queue"]] = counts.get(row["queue"], 0) + int(row["n"])
        tx.run(queue_items.delete().where(*where))
        tx.run(queue_labels.delete().where(queue_labels.c.project == tx.project, queue_labels.c.item.in_(some)))
    return counts


async def forget_versions(ws: Workspace, who: Principal, traces: set[str], ids: set[str]) -> dict[str, Any]:
    """Make datasets and suites anew without these traces and users: {"remade": [{"ref", "new", "left_out"}], "purged": [ref], "kept": [{"ref", "why"}]}."""
    told: dict[str, Any] = {"remade": [], "purged": [], "kept": []}
    rows = await ws.records.read(who, _candidates)
    newest: set[tuple[str, str]] = set()
    freed: set[str] = set()
    for row in rows:  # the newest version of a name first
        ref, name = f"{row['kind']}:{row['name']}@{row['version']}", (row["kind"], row["name"])
        last = row["deleted_at"] is None and name not in newest
        if last:
            newest.add(name)
        try:
            kept, gone = await asyncio.to_thread(_split, ws, who.project, row, traces, ids)
        except EverloopError as error:
            told["kept"].append({"ref": ref, "why": f"it was not looked into: {error.what}"})
            continue
        if not gone:
            continue
        try:
            new = await _remade(ws, who, row, kept) if last and kept is not None else None
            if new is not None:
                told["remade"].append({"ref": ref, "new": new, "left_out": gone})
            told["purged"] += await _repoint(ws, who, [one for one in rows if one["manifest"].get("dataset") == ref], new)
            await ws.records.write(who, lambda tx, ref=ref: removal.purge(tx, ref))
        except EverloopError as error:
            told["kept"].append({"ref": ref, "why": f"{error.what} {gone} of its rows are of these traces."})
            continue
        told["purged"].append(ref)
        freed.update(_DIGEST.findall(orjson.dumps(row["manifest"]).decode()))
    live = await data_gc.live_objects(ws, who)
    freed = (freed - live) | await asyncio.to_thread(_loose, ws, who.project, live, traces, ids)
    if freed:
        await asyncio.to_thread(sweep.erase, ws.objects, who.project, freed)
    return told


def _loose(ws: Workspace, project: str, live: set[str], traces: set[str], ids: set[str]) -> set[str]:
    """Objects that nothing refers to and that hold what is erased: uploads that were registered in another form, or never."""
    found, needle = set(), telemetry_erase.pattern(ids)
    for digest in sweep.orphans(ws.objects, project, live):
        try:
            data = ws.objects.get(project, digest)
        except NotFound:
            continue
        if data[:4] == b"PAR1":
            gone = _rows(data, traces, ids)[1]
        else:
            gone = any(one.decode() in traces for one in _TRACE.findall(data)) or needle.search(data) is not None
        if gone:
            found.add(digest)
    return found


def _candidates(tx: Any) -> list[dict[str, Any]]:
    where = (assets.c.project == tx.project, assets.c.kind.in_(("dataset", "suite")))
    found = tx.rows(sa.select(assets).where(*where).order_by(assets.c.kind, assets.c.name, assets.c.version.desc()))
    return [row for row in found if row["manifest"] != removal.PURGED]


def _split(ws: Workspace, project: str, row: Mapping[str, Any], traces: set[str], ids: set[str]) -> tuple[bytes | None, int]:
    """(a version's contents without what is erased, None where nothing is left; how many rows or cases that are). BadInput, TooLarge for one that is not looked into."""
    manifest = row["manifest"]
    if row["kind"] == "suite":
        digest = (manifest.get("cases") or {}).get("digest")
        return (None, 0) if not digest else _lines(ws.objects.get(project, digest), traces, ids)
    files = [one for one in manifest.get("files") or [] if str(one.get("path", "")).endswith(".parquet")]
    if manifest.get("format") != "table" or len(files) != 1:
        raise BadInput("it is no table of one file.", _LOOK)
    if int(files[0].get("size") or 0) > ERASE_TABLE_BYTES:
        raise TooLarge(f"it has more than {ERASE_TABLE_BYTES} bytes.", _LOOK)
    return _rows(ws.objects.get(project, files[0]["digest"]), traces, ids)


def _lines(data: bytes, traces: set[str], ids: set[str]) -> tuple[bytes | None, int]:
    quoted = [orjson.dumps(one) for one in ids]
    kept, gone = [], 0
    for line in data.splitlines():
        if any(found.decode() in traces for found in _TRACE.findall(line)) or any(one in line for one in quoted):
            gone += 1
        elif line.strip():
            kept.append(line)
    return (b"\n".join(kept) + b"\n" if kept else None), gone


def _rows(data: bytes, traces: set[str], ids: set[str]) -> tuple[bytes | None, int]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    theirs: Any = None
    for column in table.columns:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        text = column.cast(pa.string())
        mask = pc.or_(
            pc.is_in(pc.utf8_slice_codeunits(text, 0, 32), pa.array(sorted(traces), pa.string())), pc.is_in(text, pa.array(sorted(ids), pa.string()))
        )
        theirs = mask if theirs is None else pc.or_(theirs, mask)
    gone = int(pc.sum(theirs).as_py() or 0) if theirs is not None and table.num_rows else 0
    if not gone:
        return None, 0
    kept = table.filter(pc.invert(theirs))
    out = io.BytesIO()
    pq.write_table(kept, out, compression="zstd")
    return (out.getvalue() if kept.num_rows else None), gone


async def _repoint(ws: Workspace, who: Principal, suites: Sequence[Mapping[str, Any]], new: str | None) -> list[str]:
    """Let suites of a dataset's version be of the one that takes its place (new versions of them; the old ones go): what went."""
    gone = []
    for suite in suites:
        if new is not None and suite["deleted_at"] is None:
            manifest = {**suite["manifest"], "dataset": new}
            await ws.assets.register(who, "suite", suite["name"], manifest, description=suite["description"], tags=suite["tags"] or None, reads=[new])
        ref = f"suite:{suite['name']}@{suite['version']}"
        await ws.records.write(who, lambda tx, ref=ref: removal.purge(tx, ref))
        gone.append(ref)
    return gone


async def _remade(ws: Workspace, who: Principal, row: Mapping[str, Any], kept: bytes) -> str:
    """Register what is left as the next version; answers its reference. An evaluation set that stood on the old one stands on it."""
    manifest, more = row["manifest"], {"description": row["description"], "tags": row["tags"] or None}
    if row["kind"] == "suite":
        put = await ws.assets.put_object(who, kept)
        made = await ws.assets.register(who, "suite", row["name"], {**manifest, "cases": {**manifest["cases"], **put}}, **more)
    else:
        made = await ws.data.add_table(who, row["name"], kept, "data.parquet", roles=manifest.get("roles") or {}, **more)

    def follow(tx: Any) -> None:
        where = (eval_sets.c.project == tx.project, eval_sets.c.asset == row["name"], eval_sets.c.version == row["version"])
        tx.run(eval_sets.update().where(*where).values(version=made["version"], count=made["manifest"].get("rows", 0)))

    if row["kind"] == "dataset":
        await ws.records.write(who, follow)
    return str(made["ref"])
