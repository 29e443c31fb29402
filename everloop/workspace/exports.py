"""Selections of traces as files: put together in a temporary file that has no name, so that nothing of them stays on the server."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import orjson

from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import EXPORT_IDS, EXPORT_ROWS, PAGE_ROWS_MAX
from everloop.core.principal import Principal, Role
from everloop.evaluate import exports as made
from everloop.store import audit

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


@dataclass
class Export:
    """A file that is ready: `count` lines or rows; `left_out` counts traces by reason. Close it."""

    file: IO[bytes]
    name: str
    media: str
    count: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.seek(0, 2)


class Exports:
    """Facade over exports. They need the role viewer, and leave a row in the audit trail: what left the system is asked for later."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def traces(
        self,
        who: Principal,
        format: str = "jsonl",
        *,
        of: str = "traces",
        level: str | None = None,
        score: str | None = None,
        traces: Sequence[str] | None = None,
        limit: int | None = None,
        **filters: Any,
    ) -> Export:
        """Traces that the filters of `ws.traces.list` let through (or exactly `traces`), newest first, as a file.

        `format`: csv, jsonl or parquet (rows `of` traces, spans or predictions), openai-evals, openai-eval-items or fine-tuning (a line a conversation; `level`
        call or trace, see evaluate.exports). `score` is a condition such as `thumbs >= 1`. BadInput for what cannot be, TooLarge over EXPORT_ROWS.
        """
        who.need(Role.viewer)
        _check(format, of, level, traces, limit)
        condition = made.Condition.parse(score) if score else None
        level = level or ("call" if format == "fine-tuning" else "trace")
        name = made.file_name(format, of)
        await self.ws.telemetry.flush()  # what was acknowledged before is in the file
        file = await asyncio.to_thread(tempfile.TemporaryFile, dir=self.ws.scratch())
        export = Export(file, name, made.MEDIA.get(format, "application/jsonl"))
        try:
            await self._fill(who, export, format, of, level, condition, self._items(who, traces, limit, filters))
            told = {
                "format": format,
                "of": of,
                "count": export.count,
                **{k: str(v) for k, v in filters.items() if v},
                **({"score": score} if score else {}),
            }
            await self.ws.records.write(who, lambda tx: audit.record(tx, "traces.export", f"project:{tx.project}", **told))
        except BaseException:
            file.close()
            raise
        return export

    async def _items(
        self, who: Principal, traces: Sequence[str] | None, limit: int | None, filters: dict[str, Any]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """The selection, a page of a list at a time."""
        left, cursor = limit or EXPORT_ROWS + 1, None
        while left > 0:
            page = await self.ws.traces.list(who, limit=min(left, PAGE_ROWS_MAX), cursor=cursor, traces=traces, **filters)
            yield page["items"]
            left -= len(page["items"])
            if not (cursor := page["next"]):
                return

    async def _fill(
        self,
        who: Principal,
        export: Export,
        format: str,
        of: str,
        level: str,
        condition: made.Condition | None,
        pages: AsyncIterator[list[dict[str, Any]]],
    ) -> None:
        table = format in ("csv", "parquet")
        spool = await asyncio.to_thread(tempfile.TemporaryFile, dir=self.ws.scratch()) if table else export.file
        rows, whole = made.Table(spool), format in made.CONVERSATIONS or of != "traces"
        known: set[bytes] = set()
        try:
            async for page in pages:
                kept = [item for item in page if condition is None or condition.holds(item["scores"])]
                export.left_out.update({f"not {condition.name} {condition.sign} {condition.value}": len(page) - len(kept)} if condition else {})
                read = [(item, await self.ws.traces.get(who, item["trace_id"]) if whole else None) for item in kept]
                if format in made.CONVERSATIONS:
                    await asyncio.to_thread(_examples, export, format, level, read, known)
                else:
                    await asyncio.to_thread(_rows, export, None if not table else rows, of, read)
            if table:
                await asyncio.to_thread(rows.write, format, export.file)
        finally:
            if table:
                spool.close()
        export.left_out = +export.left_out


def _examples(export: Export, format: str, level: str, read: Sequence[tuple[dict[str, Any], dict[str, Any] | None]], known: set[bytes]) -> None:
    for item, trace in read:
        found = made.example(format, item, trace or {}, level)
        if isinstance(found, str):
            export.left_out[found] += 1
            continue
        same = _digest({key: value for key, value in found.items() if key != "trace_id"})
        if format == "fine-tuning" and same in known:
            export.left_out["the same as another"] += 1
            continue
        known.add(same)
        export.file.write(made.line(found))
        export.count += 1


def _rows(export: Export, table: made.Table | None, of: str, read: Sequence[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    for item, trace in read:
        rows = list(made.table_rows(of, item, trace))
        if table is not None:
            table.add(rows)
        else:
            export.file.writelines(made.line(row) for row in rows)
        export.count += len(rows)
        if export.count > EXPORT_ROWS:
            raise TooLarge(f"The selection has more than {EXPORT_ROWS} rows.", "Narrow the range of time and export in parts.")


def _digest(value: Any) -> bytes:
    import hashlib

    return hashlib.blake2b(orjson.dumps(value, default=str), digest_size=16).digest()


def _check(format: str, of: str, level: str | None, traces: Sequence[str] | None, limit: int | None) -> None:
    formats = (*made.TABLES, *made.CONVERSATIONS)
    if format not in formats:
        raise BadInput(f"Traces cannot be exported as {format!r}.", f"Formats: {', '.join(formats)}.")
    if of not in made.ROWS:
        raise BadInput(f"There are no rows of {of!r}.", f"Rows of: {', '.join(made.ROWS)}.")
    if of != "traces" and format in made.CONVERSATIONS:
        raise BadInput(f"{format} has a line a conversation, not one of {of}.", "Leave `of` out.")
    if level not in (None, *made.LEVELS):
        raise BadInput(f"There is no level {level!r}.", "call: the last call of an LLM, with all it was sent; trace: what the application was asked.")
    if traces is not None and len(traces) > EXPORT_IDS:
        raise BadInput(f"{len(traces)} traces are named; at most {EXPORT_IDS} can be.", "Use filters instead.")
    if limit is not None and limit < 1:
        raise BadInput(f"limit={limit} leaves nothing.", "Leave it out to export all.")
