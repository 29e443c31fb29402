"""Retrieval indexes, looked into: the passages they hold, and what a question finds, without an endpoint or an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput
from everloop.core.limits import INDEX_PREVIEW_ROWS, TRY_CHARS
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

COLUMNS = ("chunk", "document", "path", "title", "heading", "position", "page", "text")
"""What is told of a passage, where its index has it."""


class Indexes:
    """Facade over an index's stored passages and its search."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def search(self, who: Principal, ref: str, query: str, k: int = 4, mode: str = "hybrid") -> list[dict[str, Any]]:
        """The best k passages for a question, as a release that pins this index would find them: [{"n", "title", "text", "score", ...}].

        BadInput for an empty or too long question, or for k or mode that cannot be.
        """
        from everloop.serve.retrieve import checked, load_index

        asset = await self.ws.assets.get(who.need(Role.viewer), Ref.parse(ref, "index"))
        if not query.strip() or len(query) > TRY_CHARS:
            raise BadInput(f"The question has {len(query)} characters.", f"Give 1 to {TRY_CHARS}.")
        settings = checked({"k": k, "mode": mode})

        def look() -> list[dict[str, Any]]:
            index = load_index(asset["manifest"], lambda digest: self.ws.objects.get(who.project, digest))
            return index.search(query, settings["k"], settings["mode"])

        return await asyncio.to_thread(look)

    async def passages(self, who: Principal, ref: str, limit: int = INDEX_PREVIEW_ROWS, offset: int = 0) -> dict[str, Any]:
        """Some of the passages as they are stored: {"items": [{"document", "title", "text", ...}], "next": offset or None}."""
        asset = await self.ws.assets.get(who.need(Role.viewer), Ref.parse(ref, "index"))
        chunks = asset["manifest"].get("chunks")
        if not isinstance(chunks, dict) or not isinstance(chunks.get("digest"), str):
            raise BadInput(f"{asset['ref']} names no stored passages.", "Build one with the pipeline step everloop.build.index:build.")
        limit, offset = max(1, min(limit, INDEX_PREVIEW_ROWS)), max(0, offset)
        rows = await asyncio.to_thread(self._rows, who.project, chunks["digest"], offset, limit + 1)
        return {"items": rows[:limit], "next": offset + limit if len(rows) > limit else None}

    def _rows(self, project: str, digest: str, offset: int, limit: int) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(str(self.ws.objects.path(project, digest)))
        held = [name for name in COLUMNS if name in file.schema_arrow.names]
        return list(file.read(columns=held).slice(offset, limit).to_pylist())
