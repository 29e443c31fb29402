"""Tables and documents: load, look at, read back. Each load is a dataset version; the same content answers the same version."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop.assets import contracts, table_parts, table_roles, table_stats, table_stream, tables
from everloop.assets import splits as parting
from everloop.core import trees
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import DOCUMENTS_PAGE_CHARS, INDEX_PREVIEW_ROWS, INDEXES_KEPT, OBJECT_GRACE_SECONDS, TABLE_PREVIEW_ROWS
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, check_name, cut_part
from everloop.workspace import data_diff, data_files, data_gc, data_store

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

FILE = "data.parquet"
PASSAGE = ("chunk", "document", "path", "title", "heading", "position", "page", "text")
"""What is told of a stored passage, where its index has it."""


class Data:
    """Facade over assets/tables, assets/documents and the object store."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._searched: list[Any] = []
        self.mover = data_store.Mover(ws)

    async def add_table(
        self,
        who: Principal,
        name: str,
        source: Path | bytes,
        filename: str = "",
        *,
        roles: Mapping[str, Any] | None = None,
        description: str = "",
        run: str | None = None,
        reads: Iterable[str] = (),
        contract: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        splits: Mapping[str, Any] | None = None,
        keep_file: bool = False,
    ) -> dict[str, Any]:
        """Load a table's file as the next version of `dataset:name`; answers the asset, its manifest with schema, statistics and notes.

        `roles` (target, time, positive, protected, id): None takes those of the version before; {} means none. `contract` must hold, or nothing is
        loaded; None takes the contract of the version before. `origin` is kept in the manifest's source (where the data came from).
        `splits` (see assets/splits) name parts of its rows; None splits as the version before. With `keep_file` the file as it came is kept beside it.
        Raises BadInput, TooLarge (see assets/tables, assets/table_roles); nothing is registered then.
        """
        who.need(Role.editor, "load data")
        check_name(name)
        before = await self._latest(who, name)
        if before is not None and before.get("format") != "table":
            raise BadInput(f"dataset:{name} holds {_what(before)}; a table cannot become a version of it.", "Choose another name.")
        held = before or {}
        manifest = await asyncio.to_thread(
            self._prepare,
            who.project,
            source,
            filename,
            held.get("roles") if roles is None else roles,
            held.get("contract") if contract is None else contract,
            dict(origin or {}),
            (held.get("splits") or {}).get("spec") if splits is None else splits,
        )
        if keep_file:
            digest, size = await asyncio.to_thread(self.ws.objects.put, who.project, source)
            manifest["files"].append({"path": Path(filename).name, "digest": digest, "size": size})
        shown = {**({"filename": Path(filename).name} if filename else {}), **(tags or {})}
        return await self.ws.assets.register(who, "dataset", name, manifest, run=run, reads=reads, description=description, tags=shown)

    async def add_documents(
        self,
        who: Principal,
        name: str,
        files: Sequence[tuple[str, bytes]],
        *,
        description: str = "",
        run: str | None = None,
        reads: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Load files (PDF, HTML, Markdown, text ...) as the next version of a documents dataset; what cannot be read is listed in `skipped`, with why.

        BadInput where no file at all can be read.
        """
        who.need(Role.editor, "load documents")
        check_name(name)
        before = await self._latest(who, name)
        if before is not None and before.get("format") != "documents":
            raise BadInput(f"dataset:{name} holds {_what(before)}; documents cannot become a version of it.", "Choose another name.")
        manifest = await asyncio.to_thread(self._prepare_documents, who.project, list(files))
        return await self.ws.assets.register(who, "dataset", name, manifest, run=run, reads=reads, description=description)

    async def split(self, who: Principal, ref: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Name parts of a version's rows (or files) as `spec` says (see assets/splits): the next version, alike but for them; answers it."""
        who.need(Role.editor, "split data")
        asset = await self._dataset(who, ref)
        manifest = {k: v for k, v in asset["manifest"].items() if k != "part"}
        made = await asyncio.to_thread(self._parts, who.project, manifest, spec)
        more = {"reads": [asset["ref"]], "description": asset["description"], "tags": asset["tags"]}
        named = await self.ws.assets.register(who, "dataset", asset["name"], {**manifest, "splits": made}, **more)
        if named["ref"] != asset["ref"]:
            await self.ws.govern.derive(who, named["ref"], {asset["ref"]: "all"}, why="the same rows, with names for parts of them")
        return named

    def _parts(self, project: str, manifest: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        if manifest.get("format") == "table":
            columns = [str(spec[k]) for k in ("stratify", "group", "time") if spec.get(k)]
            names = [c for c in columns if c in (column["name"] for column in manifest["schema"])] or [manifest["schema"][0]["name"]]
            table = self._table(project, manifest, names)
        else:
            table = data_files.as_table(data_files.listed(self.ws, project, manifest))
        return parting.record(table, spec, lambda data: self.ws.objects.put(project, data))

    async def add_files(self, who: Principal, name: str, tree: str, **more: Any) -> dict[str, Any]:
        """Register files as they are, listed by the object `tree`; see workspace/data_files."""
        before = await self._latest(who, name)
        if before is not None and before.get("format") != trees.FORMAT:
            raise BadInput(f"dataset:{name} holds {_what(before)}; files as they are cannot become a version of it.", "Choose another name.")
        return await data_files.add(self.ws, who, name, tree, **more)

    async def files(self, who: Principal, ref: str, prefix: str = "", limit: int = 100, after: str = "") -> dict[str, Any]:
        """Files of a version, page by page; see workspace/data_files."""
        return await data_files.page(self.ws, who, ref, prefix, limit, after)

    async def preview(self, who: Principal, ref: str, limit: int = 50, offset: int = 0) -> dict[str, Any]:
        """Some rows of a table (or of a document set's list): {"ref", "columns", "rows", "total", "next"}; values are JSON's, None where missing."""
        asset = await self._dataset(who, ref)
        manifest = asset["manifest"]
        limit, offset = max(1, min(limit, TABLE_PREVIEW_ROWS)), max(0, offset)
        if manifest["format"] == "documents":
            found = manifest["documents"][offset : offset + limit]
            names = ["path", "title", "type", "chars", "pages"]
            rows, total = [[d.get(n) for n in names] for d in found], len(manifest["documents"])
        elif manifest["format"] == trees.FORMAT:
            names = ["path", "size", "digest", "link"]
            total = sum(manifest[n] for n in ("count", "links", "folders")) if "tree" in manifest else len(manifest["files"])
            listed = lambda: list(islice(data_files.listed(self.ws, who.project, manifest), offset, offset + limit))
            rows = [[entry.get(n) for n in names] for entry in await asyncio.to_thread(listed)]
        else:
            cut = await asyncio.to_thread(self._slice, who.project, manifest, offset, limit)
            names, total = list(cut), manifest["splits"]["names"][manifest["part"]] if "part" in manifest else manifest["rows"]
            rows = [list(row) for row in zip(*cut.values(), strict=True)]
        return {"ref": asset["ref"], "columns": names, "rows": rows, "total": total, "next": offset + limit if offset + limit < total else None}

    async def documents(self, who: Principal, ref: str, limit: int = 100, offset: int = 0) -> dict[str, Any]:
        """Texts of a documents dataset: {"ref", "items": [{"id", "path", "title", "type", "text", "headings", "pages"}], "total", "next"}.

        `headings` are [offset, level] and `pages` offsets of page starts in the text. A page ends early once it holds DOCUMENTS_PAGE_CHARS.
        """
        asset = await self._dataset(who, ref)
        manifest = asset["manifest"]
        if manifest.get("format") != "documents":
            raise BadInput(f"{asset['ref']} holds {_what(manifest)}, not documents.", "Load documents with: everloop data add-documents NAME FOLDER")
        limit, offset = max(1, min(limit, TABLE_PREVIEW_ROWS)), max(0, offset)
        items = await asyncio.to_thread(self._texts, who.project, manifest, limit, offset)
        total = len(manifest["documents"])
        reached = offset + len(items)
        return {"ref": asset["ref"], "items": items, "total": total, "next": reached if items and reached < total else None}

    async def search(self, who: Principal, ref: str, query: str, k: int = 4, mode: str = "hybrid", min_score: float = 0.0) -> dict[str, Any]:
        """The best passages of an index for a question: {"ref", "items"}; BadInput for settings that cannot be. The last few indexes stay in memory."""
        from everloop.serve.retrieve import checked, load_index

        asset = await self.ws.assets.get(who, Ref.parse(ref, "index"))
        asked = checked({"k": k, "mode": mode, "min_score": min_score})
        project = who.project
        index = await asyncio.to_thread(load_index, asset["manifest"], lambda digest: self.ws.objects.get(project, digest))
        self._searched = [index, *(one for one in self._searched if one is not index)][:INDEXES_KEPT]
        found = await asyncio.to_thread(index.search, query, asked["k"], asked["mode"])
        return {"ref": asset["ref"], "items": [p for p in found if p["score"] >= asked["min_score"]]}

    async def passages(self, who: Principal, ref: str, limit: int = INDEX_PREVIEW_ROWS, offset: int = 0) -> dict[str, Any]:
        """Some of an index's passages as they are stored: {"ref", "items": [{"document", "title", "text", ...}], "next": offset or None}.

        BadInput for an index that names no stored passages.
        """
        asset = await self.ws.assets.get(who.need(Role.viewer), Ref.parse(ref, "index"))
        chunks = asset["manifest"].get("chunks")
        if not isinstance(chunks, Mapping) or not isinstance(chunks.get("digest"), str):
            raise BadInput(f"{asset['ref']} names no stored passages.", "Build one with the pipeline step everloop.build.index:build.")
        limit, offset = max(1, min(limit, INDEX_PREVIEW_ROWS)), max(0, offset)
        rows = await asyncio.to_thread(self._passages, who.project, chunks["digest"], offset, limit + 1)
        return {"ref": asset["ref"], "items": rows[:limit], "next": offset + limit if len(rows) > limit else None}

    async def diff(self, who: Principal, old: str, new: str, key: Sequence[str] = (), limit: int = 10) -> dict[str, Any]:
        """What differs between two versions; see workspace/data_diff."""
        return await data_diff.diff(self.ws, who, old, new, key, limit)

    async def gc(self, who: Principal, *, grace: float = OBJECT_GRACE_SECONDS, dry_run: bool = False) -> dict[str, Any]:
        """Delete objects that nothing refers to; see workspace/data_gc."""
        return await data_gc.collect(self.ws, who, grace=grace, dry_run=dry_run)

    async def verify(self, who: Principal, ref: str | None = None) -> dict[str, Any]:
        """Read and check every object, or those of one version; see workspace/data_gc."""
        return await data_gc.verify(self.ws, who, ref)

    async def mend(self, who: Principal, *, places: Sequence[str] = (), scan: bool = True) -> dict[str, Any]:
        """Take damaged bytes out and put again what is still somewhere; see workspace/data_store."""
        return await data_store.mend(self.ws, who, places=places, scan=scan)

    async def stop(self) -> None:
        """End a move of objects that runs."""
        await self.mover.stop()

    async def columns(self, who: Principal, ref: str, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """A table's columns as Python values, None for missing, datetimes as ISO text. NotFound for a column that is not there."""
        asset = await self._dataset(who, ref)
        manifest = _need_table(asset)
        known = [c["name"] for c in manifest["schema"]]
        for name in names or ():
            if name not in known:
                raise NotFound(f"{asset['ref']} has no column {name!r}.", f"Columns: {', '.join(known)}.")
        return await asyncio.to_thread(lambda: table_stats.columns(self._table(who.project, manifest, names), names))

    def column(self, project: str, manifest: Mapping[str, Any], name: str) -> list[Any]:
        """One column of a table as Python values, in the order of its rows. Blocking."""
        return table_stats.columns(self._table(project, manifest, [name]), [name])[name]

    async def frame(self, who: Principal, ref: str) -> Any:
        """A table as a pandas DataFrame."""
        manifest = _need_table(await self._dataset(who, ref))
        return await asyncio.to_thread(lambda: self._table(who.project, manifest).to_pandas())

    async def _dataset(self, who: Principal, ref: str) -> dict[str, Any]:
        """The version that `name@at` means, with "part" where `#part` names one of its splits."""
        head, part = cut_part(ref)
        asset = await self.ws.assets.get(who.need(Role.viewer), Ref.parse(head, "dataset"))
        if not part:
            return asset
        return {**asset, "manifest": {**asset["manifest"], "part": parting.need_part(asset["manifest"], asset["ref"], part)}}

    async def _latest(self, who: Principal, name: str) -> dict[str, Any] | None:
        try:
            return dict((await self.ws.assets.get(who, Ref("dataset", name)))["manifest"])
        except NotFound:
            return None

    def _prepare(
        self,
        project: str,
        source: Path | bytes,
        filename: str,
        roles: Mapping[str, Any] | None,
        contract: Mapping[str, Any] | None,
        origin: dict[str, Any],
        parts: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Read, check and store a table; answers its manifest. Blocking. A large one goes through in batches, never whole in memory."""
        name = Path(filename).name or "the table"
        scratch = Path(tempfile.mkdtemp(prefix="table-", dir=self.ws.scratch()))
        try:
            table: Any
            if isinstance(source, Path) and table_stream.is_large(source, filename):
                when = str((roles or {}).get("time") or "") or None
                table, told, said = table_stream.stage(source, filename, scratch / FILE, scratch / "unpacked", when)
                table, found, notes = table_roles.apply(table, roles)
            else:
                loaded = tables.read(source, filename)
                table, found, notes = table_roles.apply(loaded.table, roles)
                told, said = loaded.source, loaded.notes
                table_parts.write(table, scratch / FILE)
            put = lambda data: self.ws.objects.put(project, data)
            report = contracts.need_contract(table, contract, name, put, scratch)
            digest, size = put(scratch / FILE)
            manifest = {
                "format": "table",
                "files": [{"path": FILE, "digest": digest, "size": size}],
                "schema": table_stats.schema(table),
                "rows": table.num_rows,
                "stats": table_stats.statistics(table, scratch),
                "roles": found,
                "task": table_roles.infer_task(table, found["target"], found["positive"]) if found["target"] else None,
                "source": {**told, **origin},
                "notes": said + notes,
            }
            if parts:
                manifest["splits"] = parting.record(table, parts, put)
            return {**manifest, "contract": dict(contract), "contract_report": report} if contract else manifest
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _prepare_documents(self, project: str, files: list[tuple[str, bytes]]) -> dict[str, Any]:
        from everloop.assets import documents

        return documents.manifest(files, lambda data: self.ws.objects.put(project, data))

    def _texts(self, project: str, manifest: Mapping[str, Any], limit: int, offset: int) -> list[dict[str, Any]]:
        from everloop.assets import documents

        items: list[dict[str, Any]] = []
        room = DOCUMENTS_PAGE_CHARS
        with self.ws.objects.open(project, manifest["text"]["digest"]) as lines:
            for one in documents.texts(lines, offset, limit):
                room -= len(one["text"])
                if items and room < 0:
                    break
                items.append(one)
        return items

    def _table(self, project: str, manifest: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        import pyarrow.parquet as pq

        file = next(f for f in manifest["files"] if f["path"] == FILE)
        found = pq.read_table(str(self.ws.objects.path(project, file["digest"])), columns=None if names is None else list(names))
        if "part" not in manifest:
            return found
        return found.filter(parting.mask(self.ws.objects.get(project, manifest["splits"]["digest"]), manifest["part"]))

    def _passages(self, project: str, digest: str, offset: int, limit: int) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(str(self.ws.objects.path(project, digest)))
        held = [name for name in PASSAGE if name in file.schema_arrow.names]
        return list(file.read(columns=held).slice(offset, limit).to_pylist())

    def _slice(self, project: str, manifest: Mapping[str, Any], offset: int, limit: int) -> dict[str, list[Any]]:
        if "part" in manifest:
            return table_stats.columns(self._table(project, manifest).slice(offset, limit))
        file = next(f for f in manifest["files"] if f["path"] == FILE)
        return table_stats.columns(table_parts.Stored(self.ws.objects.path(project, file["digest"])).slice(offset, limit))


def _what(manifest: Mapping[str, Any]) -> str:
    return {"table": "a table", "documents": "documents", trees.FORMAT: "files as they are"}.get(str(manifest.get("format")), "something else")


def _need_table(asset: Mapping[str, Any]) -> dict[str, Any]:
    manifest = dict(asset["manifest"])
    if manifest.get("format") != "table":
        raise BadInput(f"{asset['ref']} holds {_what(manifest)}, not a table.", "Name a dataset that was loaded from CSV or Parquet.")
    return manifest
