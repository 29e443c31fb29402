"""Search over whole traces: clauses of a filter become one SQL question to DuckDB, over what is known of traces, their spans and scores.

A trace that a client told us about has its row in `infos`. One that has none (an endpoint's call, an OpenTelemetry exporter's spans) is
read off its entry span, and belongs to the experiment "0".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from everloop.store.telemetry_infos import FIELDS, LISTS, MAPS
from everloop.store.telemetry_queries import get_trace, heads, scores_of

NATIVE = "0"
"""The experiment of traces that no client put into one."""
NAME_TAG, PROMPT_TAG = "mlflow.traceName", "mlflow.linkedPrompts"
SESSION_KEY, USER_KEY, RUN_KEY = "mlflow.trace.session", "mlflow.trace.user", "mlflow.sourceRun"
TYPE = "coalesce(json_extract_string(s.attributes, '$.\"mlflow.spanType\"'), s.kind)"
CONTENT = "concat_ws(' ', s.name, s.inputs, s.outputs, s.attributes, s.events)"
_COLUMNS = ("trace_id", *FIELDS, *MAPS, *LISTS)
_ATTRIBUTES = {
    "id": "t.id",
    "client_request_id": "t.client_request_id",
    "state": "t.state",
    "name": "t.name",
    "at_ms": "t.at_ms",
    "ms": "t.ms",
    "end_ms": "(t.at_ms + coalesce(t.ms, 0))",
    "experiment": "t.experiment",
    "run": f"t.metadata['{RUN_KEY}']",
}
SQL = tuple[str, list[Any]]


class Clause(Protocol):
    """A comparison, as the filter language has it. `op` is in capitals; the value is a number, a text, texts (IN), or None (IS NULL)."""

    @property
    def entity(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def value(self) -> Any: ...


class Found(NamedTuple):
    """A page of traces, and whether there are more."""

    items: list[dict[str, Any]]
    more: bool


def search(
    con: Any,
    project: str,
    experiments: Sequence[str],
    clauses: Sequence[Clause],
    order: Sequence[tuple[str, str, bool]] = (),
    limit: int = 100,
    offset: int = 0,
) -> Found:
    """Traces of these experiments for which all clauses hold, newest first unless ordered otherwise."""
    given, values = source(project, experiments)
    where, more = condition(project, clauses)
    orders = [_order(*one) for one in order]
    values += more + [v for _, vs in orders for v in vs]
    by = ", ".join([*(text for text, _ in orders), "t.at_ms DESC", "t.trace_id"])
    rows = _rows(con.execute(f"WITH t AS ({given}) SELECT t.* FROM t WHERE {where} ORDER BY {by} LIMIT ? OFFSET ?", [*values, limit + 1, offset]))
    return Found(_complete(con, project, rows[:limit]), len(rows) > limit)


def by_id(con: Any, project: str, traces: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of these traces, in this order; those that are not there are left out."""
    given, values = source(project, None, traces)
    found = {row["trace_id"]: row for row in _rows(con.execute(f"WITH t AS ({given}) SELECT t.* FROM t", values))}
    return _complete(con, project, [found[one] for one in dict.fromkeys(traces) if one in found])


def ids(con: Any, project: str, experiments: Sequence[str], clauses: Sequence[Clause], limit: int = -1, oldest: bool = False) -> list[str]:
    """Only the ids of the traces that `search` would find; with `oldest` in the order of their start."""
    given, values = source(project, experiments)
    where, more = condition(project, clauses)
    cut = (" LIMIT ?", [limit]) if limit >= 0 else ("", [])
    by = " ORDER BY t.at_ms, t.trace_id" if oldest else ""
    return [
        row[0] for row in con.execute(f"WITH t AS ({given}) SELECT t.trace_id FROM t WHERE {where}{by}{cut[0]}", [*values, *more, *cut[1]]).fetchall()
    ]


def spans_of(con: Any, project: str, traces: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The spans of each trace, root first, then by start."""
    found = {}
    for one in traces:
        trace = get_trace(con, project, one)
        spans = trace["spans"] if trace else []
        found[one] = sorted(spans, key=lambda s: (s["parent_id"] is not None, s["start_ns"]))
    return found


def source(project: str, experiments: Sequence[str] | None, traces: Sequence[str] | None = None) -> SQL:
    """All traces of the experiments (or with these ids) as one table."""
    values: list[Any] = [project]
    told = "SELECT " + ", ".join(f'"{name}"' for name in _COLUMNS) + " FROM infos WHERE project = ?"
    if experiments is not None:
        told += " AND experiment IN (SELECT unnest(?::VARCHAR[]))"
        values.append(list(experiments))
    if traces is not None:
        told += " AND trace_id IN (SELECT unnest(?::VARCHAR[]))"
        values.append(list(traces))
    if experiments is not None and NATIVE not in experiments:
        return told, values
    which = "AND trace_id IN (SELECT unnest(?::VARCHAR[]))" if traces is not None else ""
    read = f"""SELECT trace_id, 'tr-' || trace_id AS id, '{NATIVE}' AS experiment, CASE WHEN status = 'error' THEN 'ERROR' ELSE 'OK' END AS state,
          first_ns // 1000000 AS at_ms, (last_ns - first_ns) // 1000000 AS ms, NULL AS client_request_id, NULL AS request_preview,
          NULL AS response_preview, name, session, "user", MAP {{}} AS tags, MAP {{}} AS metadata, []::VARCHAR[] AS runs, []::VARCHAR[] AS prompts,
          NULL AS final
        FROM traces s WHERE project = ? {which} AND NOT EXISTS (SELECT 1 FROM infos i WHERE i.project = s.project AND i.trace_id = s.trace_id)"""
    return f"{told} UNION ALL BY NAME {read}", [*values, project, *([list(traces)] if traces is not None else [])]


def _complete(con: Any, project: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add tokens, cost and scores; where previews are missing, what the entry span read and answered."""
    traces = [row["trace_id"] for row in rows]
    if not traces:
        return []
    names = ("trace_id", "span_id", "start_ns", "tokens_in", "tokens_out", "tokens_cached", "cost", "spans")
    sums = con.execute(f"SELECT {', '.join(names)} FROM traces WHERE project = ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))", [project, traces])
    totals = {one[0]: dict(zip(names, one, strict=True)) for one in sums.fetchall()}
    said = heads(con, project, list(totals.values()))
    scores = scores_of(con, project, traces)
    for row in rows:
        total = totals.get(row["trace_id"], {})
        row |= {name: total.get(name) for name in names[3:]} | {"spans": total.get("spans", 0)}
        inputs, outputs = said.get((row["trace_id"], total.get("span_id", "")), (None, None))
        row["scores"] = scores.get(row["trace_id"], [])
        if not row["final"]:
            row["request_preview"] = row["request_preview"] or _preview(inputs)
            row["response_preview"] = row["response_preview"] or _preview(outputs)
    return rows


PREVIEW_CHARS = 1000


def _preview(text: str | None) -> str | None:
    """The first characters of what a span read or answered."""
    if text is None:
        return None
    value = orjson.loads(text)
    shown = value if isinstance(value, str) else text
    return shown if len(shown) <= PREVIEW_CHARS else shown[: PREVIEW_CHARS - 3] + "..."


def _rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _order(entity: str, key: str, ascending: bool) -> SQL:
    column, values = _column(entity, key)
    return f"{column} {'ASC' if ascending else 'DESC'} NULLS LAST", values


def _column(entity: str, key: str) -> SQL:
    """A trace's attribute, tag or piece of metadata as an expression."""
    if entity == "tag":
        return ("t.name", []) if key == NAME_TAG else ("map_extract_value(t.tags, ?)", [key])
    if entity == "metadata":
        if key in (SESSION_KEY, USER_KEY):
            return ("t.session" if key == SESSION_KEY else 't."user"'), []
        return "map_extract_value(t.metadata, ?)", [key]
    return _ATTRIBUTES[key], []


def condition(project: str, clauses: Sequence[Clause]) -> SQL:
    """All clauses as one condition. Those about spans must hold of one and the same span."""
    parts, values, spans, span_values = ["true"], [], [], []
    for one in clauses:
        if one.entity == "span" or (one.entity, one.key) == ("attribute", "text"):
            text, more = _span(one)
            spans.append(text)
            span_values += more
        else:
            text, more = _about(project, one)
            parts.append(text)
            values += more
    if spans:
        parts.append(f"EXISTS (SELECT 1 FROM spans s WHERE s.project = ? AND s.trace_id = t.trace_id AND {' AND '.join(spans)})")
        values += [project, *span_values]
    return " AND ".join(parts), values


def _about(project: str, one: Clause) -> SQL:
    if one.entity in ("feedback", "expectation", "issue"):
        return _judged(project, one)
    if one.key == "prompt" or (one.entity == "tag" and one.key == PROMPT_TAG):
        return "list_contains(t.prompts, ?)", [one.value]
    if one.op == "=" and (one.entity, one.key) in (("attribute", "run"), ("metadata", RUN_KEY)):
        return f"(list_contains(t.runs, ?) OR t.metadata['{RUN_KEY}'] = ?)", [one.value, one.value]
    column, values = _column(one.entity, one.key)
    text, more = _compare(column, one.op, one.value)
    return text, values + more


def _span(one: Clause) -> SQL:
    if one.key in ("text", "content"):
        return _compare(CONTENT, one.op, one.value)
    if one.key.startswith("attributes."):
        return _span_attribute(one.key.removeprefix("attributes."), one)
    column = {"name": "s.name", "type": TYPE, "status": "upper(s.status)"}[one.key]
    return _compare(column, one.op, one.value)


def _span_attribute(name: str, one: Clause) -> SQL:
    name = name.strip("`")
    if name in ("mlflow.spanInputs", "mlflow.spanOutputs"):
        return _compare("s.inputs" if name == "mlflow.spanInputs" else "s.outputs", one.op, one.value)
    text, more = _compare("json_extract_string(s.attributes, ?)", one.op, one.value)
    return text, ['$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"', *more]


def _judged(project: str, one: Clause) -> SQL:
    """A clause about feedback or an expectation. One given to a whole session holds for all traces of it."""
    kind = "coalesce(json_extract_string(a.details, '$.type'), 'feedback') = ?"
    parts = [f"a.project = ? AND {kind} AND a.name = ? AND coalesce(json_extract_string(a.details, '$.valid'), 'true') = 'true'"]
    values: list[Any] = [project, one.entity, one.value if one.entity == "issue" else one.key]
    if one.entity != "issue" and one.op not in ("IS NULL", "IS NOT NULL"):
        text, more = _value(one)
        parts.append(text)
        values += more
    held = " AND ".join(parts)
    of_session = "a.details LIKE '%\"mlflow.trace.session\":%'"
    text = f"""(EXISTS (SELECT 1 FROM scores a WHERE a.trace_id = t.trace_id AND {held}) OR (t.session IS NOT NULL AND t.session IN (
        SELECT coalesce(i.session, '') FROM scores a JOIN infos i ON i.project = a.project AND i.trace_id = a.trace_id WHERE {of_session} AND {held})))"""
    return (f"NOT {text}" if one.op == "IS NULL" else text), values * 2


def _value(one: Clause) -> SQL:
    if one.op in ("<", "<=", ">", ">="):
        return f"(a.raw NOT IN ('true', 'false') AND a.raw NOT LIKE '\"%' AND a.value {one.op} ?)", [float(one.value)]
    if one.op in ("=", "!="):
        texts = [orjson.dumps(one.value).decode()] if isinstance(one.value, str) else []
        text = "(a.raw = ? OR a.raw = ?)" if texts else "(a.value = ? AND a.raw NOT IN ('true', 'false'))"
        return (f"NOT {text}" if one.op == "!=" else text), [one.value, *texts]
    return _compare("a.raw", one.op, one.value)


def _compare(column: str, op: str, value: Any) -> SQL:
    """`column op value` in DuckDB's words."""
    if op in ("IS NULL", "IS NOT NULL"):
        return f"{column} {op}", []
    if op in ("IN", "NOT IN"):
        return f"{column} {op} (SELECT unnest(?::VARCHAR[]))", [list(value)]
    if op == "RLIKE":
        return f"regexp_matches({column}, ?)", [value]
    if op in ("LIKE", "ILIKE"):
        return f"{column} {op} ?", [value]
    return f"{column} {op} ?", [
        int(value) if isinstance(value, float) and value.is_integer() and column.startswith(("t.at", "t.ms", "(t.at")) else value
    ]
