"""Figures over many traces: what each model, user, endpoint or release took and cost, and sessions. SQL of DuckDB, each one function of a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.store.telemetry_queries import NS, Filter, heads, loads
from everloop.store.telemetry_summaries import FIRST_TOKEN

BY = ("endpoint", "release", "alias", "model", "provider", "user", "session", "principal", "name")
"""What figures can be broken down by."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_CALL = ("endpoint", "release", "alias", "principal")
"""By these, a trace takes as long as the endpoint's call in it, whatever the client did around it."""


def breakdown(con: Any, project: str, by: str, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """Figures by one of BY, the busiest first: {"key" (None: not told), "calls", "errors", "blocked", "flagged", "p50_ms" ... "p999_ms",
    "first_ms", "tokens_in", "tokens_out", "cost", "up", "down"}.

    A call is a trace, with what all of its spans used, so that the keys' figures add up to the whole; by model and provider it is a span that names
    one, and a trace with several calls of a model has its thumb counted once for it. `first_ms` is the median time to the
    first token of calls that streamed. Costs are US dollars. BadInput for another `by`.
    """
    if by not in BY:
        raise BadInput(f"Figures cannot be broken down by {by!r}.", f"They can be by: {', '.join(BY)}.")
    where, values = wanted.where()
    quantiles = f"quantile_cont(ms, {list(QUANTILES)})"
    if by in ("model", "provider"):
        streams = con.execute("SELECT 1 FROM traces WHERE project = ? AND first_token_ms IS NOT NULL LIMIT 1", [project]).fetchone()
        first = (
            f"try_cast(regexp_extract(attributes, '{FIRST_TOKEN}', 1) AS DOUBLE) * 1000" if streams else "NULL::DOUBLE"
        )  # attributes are much to read
        calls = f"""SELECT "{by}" AS key, trace_id, (end_ns - start_ns) / 1e6 AS ms, status, false AS blocked, false AS flagged, tokens_in, tokens_out,
                   cost, {first} AS first_ms FROM spans WHERE project = ? AND model IS NOT NULL AND NOT rolled AND {where}"""
    else:
        took = "call_ns" if by in _CALL or wanted.endpoint or wanted.release else "end_ns - start_ns"
        calls = f"""SELECT "{by}" AS key, trace_id, ({took}) / 1e6 AS ms, status, blocked, flagged, tokens_in, tokens_out, cost,
                   first_token_ms AS first_ms FROM traces WHERE project = ? AND {where}"""
    rows = con.execute(
        f"""WITH calls AS ({calls}),
            thumbs AS (SELECT trace_id, arg_max(value, ROW("at", id)) AS thumb FROM scores WHERE project = ? AND name = 'thumbs' GROUP BY trace_id)
            SELECT key, count(*), count(*) FILTER (status = 'error'), count(*) FILTER (blocked), count(*) FILTER (flagged), {quantiles},
              median(first_ms), sum(tokens_in), sum(tokens_out), sum(cost), count(DISTINCT calls.trace_id) FILTER (thumb > 0),
              count(DISTINCT calls.trace_id) FILTER (thumb < 0)
            FROM calls LEFT JOIN thumbs ON thumbs.trace_id = calls.trace_id GROUP BY key ORDER BY count(*) DESC, key NULLS LAST LIMIT ?""",
        [project, *values, project, limit],
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
        f"""WITH ours AS (SELECT session, trace_id, span_id, "user", start_ns, end_ns, status, endpoint, tokens_in, tokens_out, cost FROM traces
              WHERE project = ? AND session IS NOT NULL AND session <> '' AND {where}),
            found AS (SELECT session, arg_min("user", (start_ns, trace_id)) AS "user", min(start_ns) AS first, max(end_ns) AS last,
              count(*) AS traces, count(*) FILTER (status = 'error') AS errors, list_sort(list_distinct(list(endpoint))) AS endpoints,
              arg_min({{'trace_id': trace_id, 'span_id': span_id, 'start_ns': start_ns}}, (start_ns, trace_id)) AS asked,
              sum(coalesce(tokens_in, 0) + coalesce(tokens_out, 0)) AS tokens, sum(cost) AS cost FROM ours GROUP BY session),
            page AS (SELECT * FROM found {before} ORDER BY last DESC, session DESC LIMIT ?),
            thumbs AS (SELECT o.session, count(*) FILTER (value > 0) AS up, count(*) FILTER (value < 0) AS down
              FROM scores s JOIN ours o USING (trace_id) WHERE project = ? AND name = 'thumbs' AND o.session IN (SELECT session FROM page)
              GROUP BY o.session)
            SELECT page.*, coalesce(up, 0), coalesce(down, 0) FROM page LEFT JOIN thumbs USING (session) ORDER BY last DESC, session DESC""",
        [project, *values, *more, limit + 1, project],
    ).fetchall()
    said = heads(con, project, [row[7] for row in rows[:limit]])
    items = [
        {
            "session": session,
            "user": user,
            "since": first / NS,
            "until": last / NS,
            "traces": traces,
            "errors": errors,
            "endpoints": [e for e in endpoints if e],
            "first": loads(said.get((asked["trace_id"], asked["span_id"]), (None,))[0]),
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
