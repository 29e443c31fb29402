"""What the filter line asks of the telemetry tables: comparisons as SQL, traces by status over time, neighbours of a trace, values for completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from everloop.store.telemetry_queries import NS, Filter, round_bucket

SQL = tuple[str, list[Any]]
STATE = "CASE WHEN blocked THEN 'blocked' WHEN refused THEN 'refused' WHEN status = 'error' THEN 'error' ELSE 'ok' END"
HEADS = ("endpoint", "release", "alias", "user", "session", "name", "principal")
"""Texts of a trace's row."""
FIGURES = {
    "ms": "(end_ns - start_ns) / 1e6",
    "tokens": "coalesce(tokens_in, 0) + coalesce(tokens_out, 0)",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
    "cost": "cost",
    "spans": "spans",
}
"""Numbers of a trace's row."""
SAMPLE = 2_000
"""Newest spans whose attributes are read for completion."""


class Clause(Protocol):
    """A comparison, as assets/trace_query reads it."""

    @property
    def field(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def values(self) -> tuple[Any, ...]: ...
    @property
    def negated(self) -> bool: ...


def conditions(project: str, clauses: Sequence[Clause]) -> list[SQL]:
    """Each clause as a condition on `trace_id`."""
    made = []
    for one in clauses:
        inner, values = _traces(project, one)
        made.append((f"trace_id {'NOT ' if one.negated else ''}IN ({inner})", values))
    return made


def _traces(project: str, one: Clause) -> SQL:
    """The traces for which a clause holds."""
    rows = "SELECT trace_id FROM traces WHERE project = ?"
    if one.field == "status":
        states = [v for v in one.values if v in ("blocked", "refused")]
        plain = [v for v in one.values if v not in states]
        parts = [*states, *(["status IN (SELECT unnest(?::VARCHAR[]))"] if plain else [])]
        return f"{rows} AND ({' OR '.join(parts)})", [project, *([plain] if plain else [])]
    if one.field in HEADS or one.field == "id":
        where, values = _fits("trace_id" if one.field == "id" else f'"{one.field}"', one.values)
        return f"{rows} AND {where}", [project, *values]
    if one.field in FIGURES:
        where, values = _compared(FIGURES[one.field], one)
        return f"{rows} AND {where}", [project, *values]
    if one.field in ("model", "kind", "error"):
        where, values = _fits(one.field, one.values)
        return f"SELECT trace_id FROM spans WHERE project = ? AND {where}", [project, *values]
    return _keyed(project, one)


def _keyed(project: str, one: Clause) -> SQL:
    if one.field == "score":
        numbers = [_number(v) for v in one.values]
        where, values = _compared('arg_max(value, ROW("at", id))', one) if None not in numbers else ("false", [])
        if one.op == ":":
            same, texts = _fits("json_extract_string(arg_max(raw, ROW(\"at\", id)), '$')", [str(v) for v in one.values])
            where, values = f"({where} OR {same})", [*values, *texts]
        return f"SELECT trace_id FROM scores WHERE project = ? AND name = ? GROUP BY trace_id, subject HAVING {where}", [project, one.key, *values]
    if one.field == "tag":
        where, values = _fits("tags[?]", [str(v) for v in one.values])
        marks = [value for v in values for value in (one.key, v)]
        return f"SELECT trace_id FROM infos WHERE project = ? AND {where}", [project, *marks]
    path = '$."' + one.key.replace('"', "") + '"'
    told = "json_extract_string(attributes, ?)"
    near = "contains(attributes, ?)"  # cheaper than reading JSON, so it goes first
    if one.op == ":":
        where, values = _fits(told, [str(v) for v in one.values])
        values = [value for v in values for value in (path, v)]
    else:
        where, values = f"try_cast({told} AS DOUBLE) {one.op} ?", [path, one.values[0]]
    return f"SELECT trace_id FROM spans WHERE project = ? AND {near} AND {where}", [project, one.key.replace('"', ""), *values]


def _fits(column: str, texts: Sequence[Any]) -> SQL:
    """One of the texts; `*` stands for anything, and capitals do not matter then."""
    parts, values = [], []
    for text in texts:
        if "*" in text:
            parts.append(f"{column} ILIKE ? ESCAPE '~'")
            values.append(text.replace("~", "~~").replace("%", "~%").replace("_", "~_").replace("*", "%"))
        else:
            parts.append(f"{column} = ?")
            values.append(text)
    return f"({' OR '.join(parts)})", values


def _compared(what: str, one: Clause) -> SQL:
    numbers = [_number(v) for v in one.values]
    if one.op == ":":
        return f"{what} IN (SELECT unnest(?::DOUBLE[]))", [numbers]
    return f"{what} {one.op} ?", numbers


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def by_status(con: Any, project: str, wanted: Filter, buckets: int) -> dict[str, Any]:
    """How many traces began when, and how they ended: {"total", "bucket_s", "since", "until", "items": [{"at", "ok", "error", "blocked", "refused"}]};
    empty buckets are left out."""
    where, values = wanted.where()
    first, last, total = con.execute(
        f"SELECT min(start_ns), max(start_ns), count(*) FROM traces WHERE project = ? AND {where}", [project, *values]
    ).fetchone()
    if not total:
        return {"total": 0, "bucket_s": 0.0, "since": wanted.since, "until": wanted.until, "items": []}
    since = first / NS if wanted.since is None else wanted.since
    until = max(last / NS + 1e-6, wanted.until if wanted.until is not None else last / NS + 1e-6)
    length = round_bucket(max(until - since, 1.0), buckets)
    start = since - since % length
    rows = con.execute(
        f"""SELECT CAST(floor((start_ns / 1e9 - ?) / ?) AS BIGINT) AS bucket, {STATE} AS state, count(*)
            FROM traces WHERE project = ? AND {where} GROUP BY bucket, state ORDER BY bucket""",
        [start, length, project, *values],
    ).fetchall()
    found: dict[int, dict[str, Any]] = {}
    for bucket, state, count in rows:
        empty = {"at": start + bucket * length, "ok": 0, "error": 0, "blocked": 0, "refused": 0}
        found.setdefault(bucket, empty)[state] = count
    return {"total": total, "bucket_s": length, "since": start, "until": until, "items": list(found.values())}


def neighbours(con: Any, project: str, wanted: Filter, trace_id: str) -> dict[str, str | None]:
    """The traces before and after one in the list: {"newer", "older"}; None at an end, and where the project has no such trace."""
    where, values = wanted.where()
    row = con.execute("SELECT max(start_ns) FROM traces WHERE project = ? AND trace_id = ?", [project, trace_id]).fetchone()
    if row[0] is None:
        return {"newer": None, "older": None}
    found: dict[str, str | None] = {}
    for name, sign, order in (("newer", ">", "ASC"), ("older", "<", "DESC")):
        near = con.execute(
            f"SELECT trace_id FROM traces WHERE project = ? AND {where} AND start_ns {sign}= ? AND trace_id <> ? "
            f"AND (start_ns {sign} ? OR trace_id {sign} ?) ORDER BY start_ns {order}, trace_id {order} LIMIT 1",
            [project, *values, row[0], trace_id, row[0], trace_id],
        ).fetchone()
        found[name] = near[0] if near else None
    return found


def values_of(con: Any, project: str, field: str, begin: str, limit: int) -> list[tuple[str, int]]:
    """Values that a field has, beginning with `begin`, the most frequent first, each with how many traces (models and kinds: spans) have it."""
    column = f'"{field}"' if field in (*HEADS, "model", "kind") else None
    if column is None:
        return []
    table = "traces" if field in HEADS else "spans"
    rows = con.execute(
        f"SELECT {column} AS v, count(*) FROM {table} WHERE project = ? AND {column} IS NOT NULL AND starts_with(lower({column}), lower(?)) "
        "GROUP BY v ORDER BY count(*) DESC, v LIMIT ?",
        [project, begin, limit],
    )
    return [(str(value), int(n)) for value, n in rows.fetchall()]


def names_of(con: Any, project: str, kind: str, begin: str, limit: int) -> list[tuple[str, int]]:
    """Names of scores (kind "score"), attributes ("attr") or tags ("tag") that begin so, with how often they are there."""
    if kind == "score":
        source, values = "SELECT name AS v FROM scores WHERE project = ?", [project]
    elif kind == "tag":
        source, values = "SELECT unnest(map_keys(tags)) AS v FROM infos WHERE project = ?", [project]
    else:
        source = f"""SELECT unnest(json_keys(attributes)) AS v FROM
            (SELECT attributes FROM spans WHERE project = ? AND attributes IS NOT NULL ORDER BY start_ns DESC LIMIT {SAMPLE})"""
        values = [project]
    rows = con.execute(
        f"SELECT v, count(*) FROM ({source}) WHERE starts_with(lower(v), lower(?)) GROUP BY v ORDER BY count(*) DESC, v LIMIT ?",
        [*values, begin, limit],
    )
    return [(str(value), int(n)) for value, n in rows.fetchall()]


def scores_of_name(con: Any, project: str, name: str, limit: int) -> list[tuple[str, int]]:
    """Values that a score has, the most frequent first."""
    rows = con.execute(
        "SELECT raw, count(*) FROM scores WHERE project = ? AND name = ? AND raw IS NOT NULL GROUP BY raw ORDER BY count(*) DESC, raw LIMIT ?",
        [project, name, limit],
    ).fetchall()
    read = [(orjson.loads(raw), int(n)) for raw, n in rows]
    return [(str(value), n) for value, n in read if isinstance(value, str | int | float | bool)]
