"""Figures over many traces: what each model, user, endpoint or release took and cost, and sessions. SQL of DuckDB, each one function of a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.store.telemetry_queries import NS, Filter, loads

BY = ("endpoint", "release", "alias", "model", "provider", "user", "session", "principal", "name")
"""What figures can be broken down by."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_FIRST = '"gen_ai\\.response\\.time_to_first_chunk":([0-9.eE+-]+)'
_FLAGS = '"everloop.flags":['


def breakdown(con: Any, project: str, by: str, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """Figures by one of BY, the busiest first: {"key" (None: not told), "calls", "errors", "blocked", "flagged", "p50_ms" ... "p999_ms",
    "first_ms", "tokens_in", "tokens_out", "cost", "up", "down"}.

    A call is a trace, with what all of its spans used; by model and provider it is a span that names one. A trace that has several of a key (roots, or
    calls of a model) has its tokens, cost and thumb counted once for it. `first_ms` is the median time to the
    first token of calls that streamed. Costs are US dollars. BadInput for another `by`.
    """
    if by not in BY:
        raise BadInput(f"Figures cannot be broken down by {by!r}.", f"They can be by: {', '.join(BY)}.")
    where, values = wanted.where()
    quantiles = f"quantile_cont(ms, {list(QUANTILES)})"
    once = f'row_number() OVER (PARTITION BY trace_id, "{by}" ORDER BY start_ns, span_id) = 1 AS once'
    if by in ("model", "provider"):
        calls = f"""SELECT "{by}" AS key, trace_id, (end_ns - start_ns) / 1e6 AS ms, status, false AS blocked, false AS flagged, tokens_in, tokens_out,
                   cost, try_cast(regexp_extract(attributes, ?, 1) AS DOUBLE) * 1000 AS first_ms, {once}
                   FROM spans WHERE project = ? AND model IS NOT NULL AND NOT rolled AND {where}"""
        given = [_FIRST, project, *values]
    else:
        calls = f"""WITH heads AS (SELECT "{by}" AS key, trace_id, (end_ns - start_ns) / 1e6 AS ms, status,
                     contains(attributes, '"everloop.blocked":true') AS blocked, contains(attributes, ?) AS flagged, {once}
                   FROM spans WHERE project = ? AND root AND {where}),
                   used AS (SELECT trace_id, sum(tokens_in) FILTER (NOT rolled) AS tokens_in, sum(tokens_out) FILTER (NOT rolled) AS tokens_out,
                     sum(cost) FILTER (NOT rolled) AS cost, min(try_cast(regexp_extract(attributes, ?, 1) AS DOUBLE)) * 1000 AS first_ms
                   FROM spans WHERE project = ? AND trace_id IN (SELECT trace_id FROM heads) GROUP BY trace_id)
                   SELECT heads.*, used.* EXCLUDE (trace_id) FROM heads LEFT JOIN used ON once AND used.trace_id = heads.trace_id"""
        given = [_FLAGS, project, *values, _FIRST, project]
    rows = con.execute(
        f"""WITH calls AS ({calls}),
            thumbs AS (SELECT trace_id, arg_max(value, ROW("at", id)) AS thumb FROM scores WHERE project = ? AND name = 'thumbs' GROUP BY trace_id)
            SELECT key, count(*), count(*) FILTER (status = 'error'), count(*) FILTER (blocked), count(*) FILTER (flagged), {quantiles},
              median(first_ms), sum(tokens_in), sum(tokens_out), sum(cost), count(*) FILTER (thumb > 0), count(*) FILTER (thumb < 0)
            FROM calls LEFT JOIN thumbs ON once AND thumbs.trace_id = calls.trace_id GROUP BY key ORDER BY count(*) DESC, key NULLS LAST LIMIT ?""",
        [*given, project, limit],
    ).fetchall()
    return [_figures(row) for row in rows]


def _figures(row: Sequence[Any]) -> dict[str, Any]:
    key, calls, errors, blocked, flagged, quantiles, first, tokens_in, tokens_out, cost, up, down = row
    names = (f"p{str(q)[2:].ljust(2, '0')}_ms" for q in QUANTILES)
    return {
        "key": key,
        "calls": calls,
        "errors": errors,
        "blocked": blocked,
        "flagged": flagged,
        **dict(zip(names, quantiles, strict=True)),
        "first_ms": first,
        "tokens_in": None if tokens_in is None else int(tokens_in),
        "tokens_out": None if tokens_out is None else int(tokens_out),
        "cost": cost,
        "up": up,
        "down": down,
    }


def guardrails(con: Any, project: str, wanted: Filter) -> list[dict[str, Any]]:
    """What each guardrail did: {"name", "endpoint", "judged", "failed"} by name and endpoint, those that failed most first."""
    where, values = wanted.where()
    rows = con.execute(
        f"""SELECT name, endpoint, count(*), count(*) FILTER (contains(attributes, '"guardrail.verdict":"fail"')) AS failed
            FROM spans WHERE project = ? AND kind = 'GUARDRAIL' AND {where} GROUP BY name, endpoint ORDER BY failed DESC, name, endpoint""",
        [project, *values],
    ).fetchall()
    return [{"name": name, "endpoint": endpoint, "judged": judged, "failed": failed} for name, endpoint, judged, failed in rows]


def sessions(con: Any, project: str, wanted: Filter, limit: int, cursor: str | None = None) -> dict[str, Any]:
    """Sessions, the one that went on last first: {"items", "next"}. An item is {"session", "user", "since", "until" (epoch seconds), "traces",
    "errors", "tokens", "cost", "up", "down", "endpoints", "first" (the inputs of its first trace)}."""
    where, values = wanted.where()
    place = _place(cursor)
    before, more = ("WHERE (last, session) < (?, ?)", list(place)) if place else ("", [])
    rows = con.execute(
        f"""WITH heads AS (SELECT session, trace_id, "user", start_ns, end_ns, status, endpoint, inputs FROM spans
              WHERE project = ? AND entry AND session IS NOT NULL AND session <> '' AND {where}),
            found AS (SELECT session, arg_min("user", start_ns) AS "user", min(start_ns) AS first, max(end_ns) AS last,
              count(DISTINCT trace_id) AS traces, count(DISTINCT trace_id) FILTER (status = 'error') AS errors,
              list_sort(list_distinct(list(endpoint))) AS endpoints, arg_min(inputs, start_ns) AS asked FROM heads GROUP BY session),
            page AS (SELECT * FROM found {before} ORDER BY last DESC, session DESC LIMIT ?),
            ours AS (SELECT DISTINCT session, trace_id FROM heads WHERE session IN (SELECT session FROM page)),
            used AS (SELECT o.session, sum(coalesce(tokens_in, 0) + coalesce(tokens_out, 0)) FILTER (NOT rolled) AS tokens,
              sum(cost) FILTER (NOT rolled) AS cost FROM spans s JOIN ours o USING (trace_id) WHERE project = ? GROUP BY o.session),
            thumbs AS (SELECT o.session, count(*) FILTER (value > 0) AS up, count(*) FILTER (value < 0) AS down
              FROM scores s JOIN ours o USING (trace_id) WHERE project = ? AND name = 'thumbs' GROUP BY o.session)
            SELECT page.*, tokens, cost, coalesce(up, 0), coalesce(down, 0) FROM page LEFT JOIN used USING (session) LEFT JOIN thumbs USING (session)
            ORDER BY last DESC, session DESC""",
        [project, *values, *more, limit + 1, project, project],
    ).fetchall()
    items = [
        {
            "session": session,
            "user": user,
            "since": first / NS,
            "until": last / NS,
            "traces": traces,
            "errors": errors,
            "endpoints": [e for e in endpoints if e],
            "first": loads(asked),
            "tokens": int(tokens or 0),
            "cost": cost,
            "up": up,
            "down": down,
        }
        for session, user, first, last, traces, errors, endpoints, asked, tokens, cost, up, down in rows[:limit]
    ]
    return {"items": items, "next": f"{rows[limit - 1][3]}.{rows[limit - 1][0]}" if len(rows) > limit else None}


def _place(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    last, dot, session = cursor.partition(".")
    if not dot or not last.isdigit():
        raise BadInput(f"The cursor {cursor!r} is none that a list of sessions answered.", "Begin again without a cursor.")
    return int(last), session
