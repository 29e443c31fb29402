"""Lineage of rows and documents: what steps declare of where an output came from, and what some rows or documents reached."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from everloop.assets import catalog, derivations, splits
from everloop.core.errors import BadInput, NotFound, TooLarge
from everloop.core.labels import label
from everloop.core.limits import DERIVED_ROWS, DERIVED_SOURCES, PART_VERSIONS
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, cut_part
from everloop.govern import questions
from everloop.govern.reach import Reach

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

SPECS = "all, none, {rows}, {keys} or {part}"
SHOWN = 20
"""Row numbers that an answer lists at most."""


async def derive(ws: Workspace, who: Principal, output: str, sources: Mapping[str, Any], run: str = "", why: str = "") -> list[dict[str, Any]]:
    """Keep from which rows or documents a version came: `sources` is {dataset version (or a part of one): spec}; answers what is kept.

    A spec is "all", "none", {"keys": [...]} (values of the id column; of documents their ids or paths), {"rows": [...], "to"?: [...]} or {"object": digest
    of a Parquet file with columns row and to?, "of"?: rows that the source must have}. Rows are in the output's order where there are as many. BadInput
    for what cannot be, NotFound for a version, run or key that is not there; nothing is kept then.
    """
    who.need(Role.editor, "declare lineage")
    if not sources or len(sources) > DERIVED_SOURCES:
        raise BadInput(f"{len(sources)} sources are declared.", f"Name 1 to {DERIVED_SOURCES} versions that the output came from.")
    made = await ws.assets.get(who, output)
    if run:
        await ws.runs.get(who, run)
    into = derivations.rows_in(made["manifest"])
    kept = []
    for ref, spec in sources.items():
        head, part = cut_part(ref)
        asset = await ws.assets.get(who, head)
        if asset["ref"] == made["ref"]:
            raise BadInput(f"{made['ref']} cannot come from itself.")
        kept.append((asset["ref"], *await asyncio.to_thread(_form, ws, who.project, asset, part, spec, into)))

    def work(tx: Any) -> list[dict[str, Any]]:
        for source, _, _ in kept:
            derivations.forget_parts(tx, source, made["ref"], run)
        return [derivations.declare(tx, source, made["ref"], form, run=run, why=why, into=into, **more) for source, form, more in kept]

    return await ws.records.write(who, work)


async def declared(ws: Workspace, who: Principal, ref: str) -> list[dict[str, Any]]:
    """What was declared of where a version (or `run:ID`) came from."""

    def work(tx: Any) -> list[dict[str, Any]]:
        return derivations.of(tx, ref if ref.startswith("run:") else str(catalog.resolve(tx, ref)))

    return await ws.records.read(who.need(Role.viewer), work)


async def impact(ws: Workspace, who: Principal, ref: str) -> dict[str, Any]:
    """What the rows or documents that `ref` names reached, and what not: the shape of `questions.impact`, with "part", "not_reached" and "upper_bound"."""
    who.need(Role.viewer)
    head, part = cut_part(ref)
    starts, told = await _named(ws, who, Ref.parse(head), part)

    def work(tx: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found = questions.resting(tx, list(starts))
        return found, derivations.among(tx, [node["ref"] for node in found["nodes"]])

    found, said = await ws.records.read(who, work)
    reach = await asyncio.to_thread(lambda: Reach(found["edges"], said, _follower(ws, who.project)).walk(starts))
    how = {node["ref"]: reach.how(node["ref"]) for node in found["nodes"]}
    nodes = [{**node, "reach": how[node["ref"]], **_rows_told(reach.rows(node["ref"]))} for node in found["nodes"] if how[node["ref"]] != "no"]
    left = [{**node, "why": _left_out(node["ref"], reach, found["edges"], how)} for node in found["nodes"] if how[node["ref"]] == "no"]
    releases = [one for one in found["releases"] if how[one] != "no"]
    edges = [e for e in found["edges"] if how.get(e["source"]) != "no" and how.get(e["target"]) != "no"]
    return {
        "subject": ref,
        "part": told,
        "nodes": nodes,
        "not_reached": left,
        "upper_bound": "may" in how.values(),
        "edges": edges,
        "cut": found["cut"],
        "releases": releases,
        "live": [{**one, "reach": how[one["release"]]} for one in found["live"] if one["release"] in releases],
        "decisions": [one for one in found["decisions"] if how.get(one["suite"], "no") != "no"],
    }


async def _named(ws: Workspace, who: Principal, ref: Ref, part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """({exact version: sorted rows}, what was asked for) of a row, a document or a split; without a version a row or document is looked up in all."""
    sort, _, key = part.partition("=")
    if ref.kind != "dataset":
        raise BadInput(f"{ref} has no rows or documents of its own.", "Ask about a dataset: dataset:NAME@3#row=KEY, #document=PATH or #SPLIT.")
    every = not ref.at and sort in ("row", "document")
    assets = await ws.assets.versions(who, "dataset", ref.name, PART_VERSIONS) if every else [await ws.assets.get(who, ref)]
    starts: dict[str, Any] = {}
    for asset in assets:
        try:
            rows = await asyncio.to_thread(_rows, ws, who.project, asset, part)
        except (NotFound, BadInput):
            if not every or (asset is assets[-1] and not starts):
                raise
            continue
        starts[asset["ref"]] = rows
    split = sort not in ("row", "number", "document") or part in ((assets[0]["manifest"].get("splits") or {}).get("names") or {})
    told = {"kind": "split" if split else sort, "key": part if split else key, "versions": list(starts), "count": sum(map(len, starts.values()))}
    return starts, {**told, "of": sum(derivations.rows_in(a["manifest"]) or 0 for a in assets if a["ref"] in starts)}


def _rows(ws: Workspace, project: str, asset: Mapping[str, Any], part: str) -> Any:
    """The sorted rows (or documents) of a version that a part names. Blocking."""
    import numpy as np

    manifest, sort, key = asset["manifest"], *part.partition("=")[::2]
    of = derivations.rows_in(manifest)
    if of is None:
        raise BadInput(f"{asset['ref']} holds files as they are; lineage knows rows of tables and documents.", "Ask about the whole version.")
    names = (manifest.get("splits") or {}).get("names") or {}
    if part in names or sort not in ("row", "number", "document"):
        splits.need_part(manifest, asset["ref"], part)
        return _flat(derivations.of_part(ws.objects.get(project, manifest["splits"]["digest"]), part, None))
    if (sort == "document") != (manifest["format"] == "documents"):
        right = "#document=PATH" if manifest["format"] == "documents" else "#row=KEY or #number=N"
        raise BadInput(f"{asset['ref']} holds {'documents' if sort != 'document' else 'a table'}, so it has no {sort}.", f"Write it as {right}.")
    if sort == "number":
        if not key.isdigit() or int(key) >= of:
            raise NotFound(f"{asset['ref']} has no row number {key}.", f"Its {of:,} rows count from 0 to {of - 1:,}.")
        return np.array([int(key)])
    return np.array(sorted(_find(ws, project, asset, [key])))


def _find(ws: Workspace, project: str, asset: Mapping[str, Any], keys: Sequence[Any]) -> list[int]:
    """Numbers of the rows (or documents) with these keys, in the keys' order; NotFound names one that is not there. Blocking."""
    manifest, ref = asset["manifest"], asset["ref"]
    places: dict[str, list[int]] = {}
    if manifest["format"] == "documents":
        what = "document"
        for i, one in enumerate(manifest["documents"]):
            for name in {str(one["id"]), str(one["path"])}:
                places.setdefault(name, []).append(i)
    else:
        column = manifest["roles"].get("id")
        if not column:
            hint = f"Name it by number (from 0): {ref}#number=17; or load the table with --id COLUMN, and name rows by that column's values."
            raise BadInput(f"{ref} has no id column, so its rows have no keys.", hint)
        what = f"row with {column} ="
        for i, value in enumerate(ws.data.column(project, manifest, column)):
            places.setdefault(str(label(value)), []).append(i)
    found: list[int] = []
    for key in keys:
        here = places.get(str(label(key)))
        if here is None:
            near = get_close_matches(str(key), list(places)[:10_000], 3) or list(places)[:3]
            raise NotFound(f"{ref} has no {what} {str(key)!r}.", f"There are: {', '.join(near)}, among {len(places):,}.")
        found += here
    return found


def _form(ws: Workspace, project: str, asset: Mapping[str, Any], part: str, spec: Any, into: int | None) -> tuple[str, dict[str, Any]]:
    """(form, what is kept beside it) of one source's spec. Blocking."""
    import numpy as np

    manifest, ref = asset["manifest"], asset["ref"]
    of = derivations.rows_in(manifest)
    held = manifest.get("splits") or {}
    if part:
        splits.need_part(manifest, ref, part)
    if spec == "none":
        return "none", {"count": 0, "of": of}
    if spec == "all" and part:
        return "part", {"part": part, "digest": held["digest"], "count": held["names"][part], "of": of}
    if spec == "all":
        return "all", {"count": of, "of": of}
    if of is None:
        raise BadInput(f"{ref} has no rows or documents that could be named.", 'Declare "all" or "none" of it.')
    rows, to = _numbers(ws, project, asset, spec)
    if part:
        places = _flat(derivations.of_part(ws.objects.get(project, held["digest"]), part, None))
        _need(rows, len(places), f"{ref}#{part}", "rows")
        rows = np.where(rows < 0, -1, places[np.maximum(rows, 0)])
    _need(rows, of, ref, "rows")
    if to is None and into == len(rows):
        to = np.arange(into)
    if to is not None:
        _need(to, into or 0, "the output", "to")
        to = to[rows >= 0]
    runs = derivations.runs_of(rows[rows >= 0], to)
    digest, _ = ws.objects.put(project, derivations.pack(runs))
    return "rows", {"digest": digest, "count": len(np.unique(rows[rows >= 0])), "of": of}


def _numbers(ws: Workspace, project: str, asset: Mapping[str, Any], spec: Any) -> tuple[Any, Any]:
    """(row numbers as they were given, their places in the output or None)."""
    import numpy as np

    if not isinstance(spec, Mapping) or not {"rows", "keys", "object"} & set(spec):
        raise BadInput(f"What {asset['ref']} gave cannot be read: {str(spec)[:80]!r}.", f"Give one of: {SPECS}.")
    if "keys" in spec:
        return np.array(_find(ws, project, asset, list(spec["keys"])), dtype=np.int64), None
    of = derivations.rows_in(asset["manifest"])
    if spec.get("of") not in (None, of):
        raise BadInput(f"The mask has {spec['of']:,} values; {asset['ref']} has {of:,} rows.", "Give one value a row of the version itself.")
    try:
        if "object" in spec:
            import pyarrow.parquet as pq

            file = pq.ParquetFile(io.BytesIO(ws.objects.get(project, str(spec["object"]))))
            if file.metadata.num_rows > DERIVED_ROWS:
                raise TooLarge(f"{file.metadata.num_rows:,} rows are declared; at most {DERIVED_ROWS:,} are taken.")
            table = file.read()
            columns = {name: table.column(name).to_numpy().astype(np.int64, casting="safe") for name in table.column_names}
            return columns["row"], columns.get("to")
        rows = np.array(spec["rows"], dtype=np.int64)
        return rows, None if spec.get("to") is None else np.array(spec["to"], dtype=np.int64).reshape(rows.shape)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"The rows of {asset['ref']} cannot be read: {error}.", "Give whole numbers, as many in `to` as in `rows`.") from None


def _need(numbers: Any, of: int, ref: str, what: str) -> None:
    if len(numbers) and (numbers.max() >= of or numbers.min() < -1):
        worst = int(numbers.max() if numbers.max() >= of else numbers.min())
        raise BadInput(f"`{what}` names {worst:,}; {ref} has {of:,}.", "Count from 0; -1 stands for none.")


def _flat(runs: derivations.Runs) -> Any:
    """The rows of stretches, one by one."""
    import numpy as np

    within = np.arange(int(runs.length.sum())) - np.repeat(np.cumsum(runs.length) - runs.length, runs.length)
    return np.repeat(runs.start, runs.length) + within


def _follower(ws: Workspace, project: str) -> Any:
    """`Reach`'s way from rows of a source to those of its target; each object is read once."""

    @lru_cache(maxsize=16)
    def runs(digest: str, part: str, into: int | None) -> Any:
        data = ws.objects.get(project, digest)
        return derivations.of_part(data, part, into) if part else derivations.unpack(data)

    return lambda said, rows: derivations.follow(runs(said["digest"], said["part"], said["into"] if said["part"] else None), rows)


def _rows_told(rows: Any) -> dict[str, Any]:
    return {} if rows is None else {"rows": [int(i) for i in rows[:SHOWN]], "rows_count": len(rows)}


def _left_out(node: str, reach: Reach, edges: Sequence[Mapping[str, Any]], how: Mapping[str, str]) -> str:
    """Why a node was not reached, in words."""
    said = reach.left_out.get(node)
    if said:
        one = said[0]
        counted = f"it took {one['count']:,} of {one['of']:,}" if one["count"] is not None and one["of"] else "it took nothing of it"
        return f"declared by {one['by']}: {counted} of {one['source']}{', ' + one['why'] if one['why'] else ''}"
    through = list(dict.fromkeys(e["source"] for e in edges if e["target"] == node and how.get(e["source"]) == "no"))
    through = [source for source in through if not source.startswith("run:")] or through
    return f"it rests only on {', '.join(through[:3])}{' and others' if len(through) > 3 else ''}, not reached either"
