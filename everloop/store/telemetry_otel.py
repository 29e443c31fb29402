"""Questions to metric points and log records: SQL of DuckDB, each one function of a connection and a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import OTEL_NAMES, OTEL_POINTS, TRACE_LOGS

NS = 1_000_000_000
RESOURCE = "resource."
ALIASES = {
    "model": ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name"),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "operation": ("gen_ai.operation.name",),
    "token_type": ("gen_ai.token.type",),
    "service": ("resource.service.name",),
}
"""Short names for attributes that instrumentations spell in several ways; the first that is there counts."""
SEVERITIES = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
"""The lowest severity number of each level, as OpenTelemetry numbers them."""


@dataclass(frozen=True)
class Wanted:
    """Which points or records: times in epoch seconds, `where` attributes that must be equal ({"gen_ai.token.type": "input", "resource.service.name": ...})."""

    since: float | None = None
    until: float | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    def conditions(self) -> tuple[list[str], list[Any]]:
        """As SQL conditions and their values."""
        parts, values = list[str](), list[Any]()
        for bound, op in ((self.since, ">="), (self.until, "<")):
            if bound is not None:
                parts.append(f"at_ns {op} ?")
                values.append(int(bound * NS))
        for name, value in self.where.items():
            text, more = attribute(name)
            parts.append(f"{text} = ?")
            values += [*more, value]
        return parts, values


def attribute(name: str) -> tuple[str, list[str]]:
    """An attribute by its name or alias (`model`, `service`), or a resource's by `resource.NAME`, as SQL and its values."""
    texts, values = [], []
    for one in ALIASES.get(name, (name,)):
        column, key = ("resource", one.removeprefix(RESOURCE)) if one.startswith(RESOURCE) else ("attributes", one)
        texts.append(f"json_extract_string({column}, ?)")
        values.append('$."' + key.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return (texts[0] if len(texts) == 1 else f"coalesce({', '.join(texts)})"), values


def names(con: Any, project: str, text: str = "") -> list[dict[str, Any]]:
    """The metrics there are: {"name", "type", "unit", "temporality", "description", "points", "series", "first", "last"}, times in epoch seconds."""
    rows = con.execute(
        f"""SELECT name, type, any_value(unit), any_value(temporality), any_value(description), count(*), count(DISTINCT series), min(at_ns), max(at_ns)
            FROM metrics WHERE project = ? AND contains(lower(name), lower(?)) GROUP BY name, type ORDER BY name, type LIMIT {OTEL_NAMES}""",
        [project, text],
    ).fetchall()
    keys = ("name", "type", "unit", "temporality", "description", "points", "series")
    return [{**dict(zip(keys, row, strict=False)), "first": row[7] / NS, "last": row[8] / NS} for row in rows]


def points(con: Any, project: str, name: str, wanted: Wanted, by: Sequence[str] = (), before: bool = False) -> list[dict[str, Any]]:
    """A metric's points, series by series in the order of time, with `group` (the values of the attributes `by`). With `before` the last one before `since` of each
    series, too: what a cumulative count grew from. TooLarge where they are more than OTEL_POINTS."""
    reach = Wanted(None, wanted.until, wanted.where)
    parts, values = (reach if before else wanted).conditions()
    groups, asked = [], list[Any]()
    for one in by:
        text, more = attribute(one)
        groups.append(text)
        asked += more
    extra, bound = "", list[Any]()
    if before and wanted.since is not None:  # of what lies before, each series' last alone
        extra = "QUALIFY at_ns >= ? OR lead(at_ns, 1, 0) OVER (PARTITION BY series ORDER BY at_ns, since_ns) >= ?"
        bound = [int(wanted.since * NS)] * 2
    rows = con.execute(
        f"""SELECT type, unit, temporality, monotonic, series, at_ns, since_ns, value, count, sum, min, max, buckets,
                   [{", ".join(groups)}]::VARCHAR[] AS found
            FROM metrics WHERE {" AND ".join(["project = ?", "name = ?", *parts])} {extra} ORDER BY series, at_ns, since_ns LIMIT {OTEL_POINTS + 1}""",
        [*asked, project, name, *values, *bound],
    )
    keys = [column[0] for column in rows.description]
    found = [dict(zip(keys, row, strict=True)) for row in rows.fetchall()]
    if len(found) > OTEL_POINTS:
        raise TooLarge(f"{name} has more than {OTEL_POINTS} points there.", "Ask for a shorter time, or for fewer series with where.")
    for point in found:
        point["group"] = tuple(point.pop("found"))
        point["buckets"] = orjson.loads(point["buckets"]) if point["buckets"] else None
    return found


def latest(con: Any, project: str, name: str, wanted: Wanted, limit: int, cursor: str | None = None) -> dict[str, Any]:
    """Points as they were sent, newest first: {"items", "next"}."""
    parts, values = wanted.conditions()
    columns = "id, type, unit, temporality, at_ns, since_ns, value, count, sum, min, max, buckets, attributes, resource, scope"
    return _page(con, f"SELECT {columns} FROM metrics", ["project = ?", "name = ?", *parts], [project, name, *values], limit, cursor)


def logs(
    con: Any,
    project: str,
    wanted: Wanted,
    limit: int,
    cursor: str | None = None,
    *,
    level: str | None = None,
    text: str = "",
    trace: str | None = None,
    event: str | None = None,
) -> dict[str, Any]:
    """Log records, newest first: {"items", "next"}. `level` is the lowest (trace, debug, info, warn, error, fatal), `text` occurs in the body."""
    parts, values = wanted.conditions()
    if level is not None:
        if level.lower() not in SEVERITIES:
            raise BadInput(f"{level!r} is no level.", f"It can be: {', '.join(SEVERITIES)}.")
        parts.append("severity >= ?")
        values.append(SEVERITIES[level.lower()])
    if text:
        parts.append("contains(lower(body), lower(?))")
        values.append(orjson.dumps(text).decode()[1:-1])
    for column, value in (("trace_id", trace), ("event", event)):
        if value is not None:
            parts.append(f"{column} = ?")
            values.append(value)
    return _page(con, f"SELECT {_LOG} FROM logs", ["project = ?", *parts], [project, *values], limit, cursor)


def logs_of(con: Any, project: str, trace_id: str) -> list[dict[str, Any]]:
    """A trace's log records, oldest first, TRACE_LOGS at most."""
    rows = con.execute(f"SELECT {_LOG} FROM logs WHERE project = ? AND trace_id = ? ORDER BY at_ns, id LIMIT {TRACE_LOGS}", [project, trace_id])
    keys = [column[0] for column in rows.description]
    return [_told(dict(zip(keys, row, strict=True))) for row in rows.fetchall()]


def events_of(con: Any, project: str, traces: Sequence[str], since: float, until: float) -> dict[str, list[dict[str, Any]]]:
    """GenAI's event records of some traces between two times, oldest first, by trace id."""
    rows = con.execute(
        f"SELECT {_LOG} FROM logs WHERE project = ? AND at_ns BETWEEN ? AND ? AND starts_with(event, 'gen_ai.') "
        "AND trace_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY at_ns, id",
        [project, int(since * NS), int(until * NS), list(traces)],
    )
    keys = [column[0] for column in rows.description]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.fetchall():
        one = _told(dict(zip(keys, row, strict=True)))
        found.setdefault(one["trace_id"], []).append(one)
    return found


_LOG = "id, at_ns, severity, level, event, body, trace_id, span_id, attributes, resource, scope"


def _page(con: Any, question: str, parts: list[str], values: list[Any], limit: int, cursor: str | None) -> dict[str, Any]:
    if cursor is not None:
        at, _, id = cursor.partition(".")
        if not at.isdigit():
            raise BadInput(f"The cursor {cursor!r} is none of ours.", "Use `next` of the page before.")
        parts.append("(at_ns, id) < (?, ?)")
        values += [int(at), id]
    rows = con.execute(f"{question} WHERE {' AND '.join(parts)} ORDER BY at_ns DESC, id DESC LIMIT ?", [*values, limit + 1])
    keys = [column[0] for column in rows.description]
    found = [dict(zip(keys, row, strict=True)) for row in rows.fetchall()]
    page = found[:limit]
    following = f"{page[-1]['at_ns']}.{page[-1]['id']}" if len(found) > limit else None
    return {"items": [_told(one) for one in page], "next": following}


def _told(one: dict[str, Any]) -> dict[str, Any]:
    """A row as it is answered: JSON read, times in epoch seconds."""
    for name in ("body", "attributes", "resource", "buckets"):
        if name in one:
            one[name] = orjson.loads(one[name]) if one[name] is not None else None
    one["at"] = one.pop("at_ns") / NS
    if "since_ns" in one:
        since = one.pop("since_ns")
        one["since"] = None if since is None else since / NS
    return one
