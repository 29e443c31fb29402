"""The filter line of traces: what it selects, its histogram by status, completion, a trace's neighbours, and saved views."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from everloop.assets import trace_query, trace_views
from everloop.core.errors import BadInput
from everloop.core.limits import COMPLETIONS, FILTER_CHARS, TRACE_BUCKETS
from everloop.core.principal import Principal, Role
from everloop.store import telemetry_lines as lines
from everloop.store.telemetry import Telemetry
from everloop.store.telemetry_queries import Filter

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_TERM = re.compile(r"(-?)([A-Za-z_]+)(?:\.([^\s\":=!<>]*))?(>=|<=|!=|[:=<>])?(.*)", re.DOTALL)


async def select(telemetry: Telemetry, project: str, line: str, text: str = "") -> tuple[list[str] | None, tuple[lines.SQL, ...]]:
    """What a filter line lets through: ids of traces that have its words (None: all), and conditions. BadInput for a line that cannot be read."""
    asked = trace_query.parse(line)
    words = " ".join(part for part in (text.strip(), asked.text) if part)
    found = await asyncio.to_thread(telemetry.search, project, words) if words else None
    made = lines.conditions(project, asked.clauses)
    for word in asked.without:
        made.append(("trace_id NOT IN (SELECT unnest(?::VARCHAR[]))", [await asyncio.to_thread(telemetry.search, project, word)]))
    return found, tuple(made)


class TraceLines:
    """Facade over the table of traces beyond its rows. Reading needs viewer, saving a view editor."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def histogram(
        self, who: Principal, query: str = "", since: float | None = None, until: float | None = None, buckets: int = TRACE_BUCKETS
    ) -> dict[str, Any]:
        """Traces that fit by time and how they ended: {"total", "bucket_s", "since", "until", "items": [{"at", "ok", "error", "blocked", "refused"}]}.

        Times are epoch seconds; buckets have a round length and empty ones are left out. BadInput for a line that cannot be read.
        """
        who.need(Role.viewer)
        if not 1 <= buckets <= 1000:
            raise BadInput(f"A histogram has 1 to 1000 bars, not {buckets}.")
        wanted = await self._wanted(who, query, since, until)
        return await self.ws.telemetry.query(lambda con: lines.by_status(con, who.project, wanted, buckets), who.project, since, until)

    async def neighbours(
        self, who: Principal, trace_id: str, query: str = "", since: float | None = None, until: float | None = None
    ) -> dict[str, str | None]:
        """The next newer and the next older trace that fit: {"newer", "older"}."""
        who.need(Role.viewer)
        wanted = await self._wanted(who, query, since, until)
        return await self.ws.telemetry.query(lambda con: lines.neighbours(con, who.project, wanted, trace_id))

    async def _wanted(self, who: Principal, query: str, since: float | None, until: float | None) -> Filter:
        found, made = await select(self.ws.telemetry, who.project, query)
        return Filter(since=since, until=until, traces=found, lines=made)

    async def complete(self, who: Principal, line: str, at: int | None = None) -> dict[str, Any]:
        """What can stand at a place of a line: {"start", "end", "items": [{"text", "note"}]}; `text` takes the place of those characters."""
        who.need(Role.viewer)
        if len(line) > FILTER_CHARS:
            return {"start": 0, "end": 0, "items": []}
        at = len(line) if at is None else max(0, min(at, len(line)))
        start = _start(line, at)
        end = at
        while end < len(line) and not line[end].isspace():
            end += 1
        read = _TERM.fullmatch(line[start:at])
        if not read:
            return {"start": start, "end": end, "items": _fields("", "") if start == at else []}
        sign, name, key, op, value = read.groups()
        if op is None:
            items = await self._names(who, sign, name, key)
        elif name in trace_query.FIELDS or name in trace_query.KEYED:
            items = await self._values(who, f"{sign}{name}{'.' + key if key is not None else ''}{op}", name, key or "", value)
        else:
            items = []
        return {"start": start, "end": end, "items": items[:COMPLETIONS]}

    async def _names(self, who: Principal, sign: str, name: str, key: str | None) -> list[dict[str, str]]:
        if key is None:
            return _fields(sign, name.lower())
        if name not in trace_query.KEYED:
            return []
        found = await self.ws.telemetry.query(lambda con: lines.names_of(con, who.project, name, key, COMPLETIONS))
        return [{"text": f"{sign}{name}.{one}:", "note": f"{n:,} times"} for one, n in found if not re.search(r'[\s":=!<>]', one)]

    async def _values(self, who: Principal, before: str, name: str, key: str, value: str) -> list[dict[str, str]]:
        head, comma, last = value.rpartition(",") if not value.startswith('"') else ("", "", value.strip('"'))
        if name == "status":
            found: Sequence[tuple[str, int]] = [(one, 0) for one in trace_query.STATUSES if one.startswith(last)]
        elif name == "score":
            given = await self.ws.telemetry.query(lambda con: lines.scores_of_name(con, who.project, key, COMPLETIONS))
            found = [one for one in given if one[0].startswith(last)]
        else:
            found = await self.ws.telemetry.query(lambda con: lines.values_of(con, who.project, name, last, COMPLETIONS))
        return [{"text": f"{before}{head}{comma}{trace_query.quoted(v)}", "note": f"{n:,}" if n else ""} for v, n in found]

    async def views(self, who: Principal) -> list[dict[str, Any]]:
        """The project's saved views by name: {"name", "query" (of the page's address), "at", "by"}."""
        return await self.ws.records.read(who.need(Role.viewer), trace_views.listed)

    async def save_view(self, who: Principal, name: str, query: str) -> dict[str, Any]:
        """Keep a view for the whole project; one of that name is replaced."""
        return await self.ws.records.write(who.need(Role.editor, "save a view"), lambda tx: trace_views.put(tx, name, query))

    async def remove_view(self, who: Principal, name: str) -> None:
        """Take a saved view away; NotFound where there is none."""
        await self.ws.records.write(who.need(Role.editor, "remove a view"), lambda tx: trace_views.remove(tx, name))


def _start(line: str, at: int) -> int:
    """Where the part of the line begins in which a place is: after the last space that is not in quotes."""
    start, inside = 0, False
    for i, letter in enumerate(line[:at]):
        inside ^= letter == '"'
        if letter.isspace() and not inside:
            start = i + 1
    return start


def _fields(sign: str, begin: str) -> list[dict[str, str]]:
    made = [{"text": f"{sign}{name}{'>' if kind == 'number' else ':'}", "note": note} for name, (kind, note) in trace_query.FIELDS.items()]
    made[8:8] = [{"text": f"{sign}{name}.", "note": note} for name, note in trace_query.KEYED.items()]
    return [one for one in made if one["text"].removeprefix(sign).startswith(begin)]
