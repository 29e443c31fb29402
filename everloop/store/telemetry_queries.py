"""Questions to the telemetry tables. Each is one function of a cursor and a project; all values are parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.store import genai_events
from everloop.store.frames import SPAN_COLUMNS
from everloop.store.telemetry_otel import logs_of
from everloop.store.telemetry_summaries import key_of

NS = 1_000_000_000
OUTCOMES = ("blocked", "refused")
"""Calls that were answered, but not with what was asked."""


@dataclass(frozen=True)
class Filter:
    """Which traces: all given parts must hold. Times are epoch seconds of the start; `traces` are ids, from a text search. `status` is ok, error or
    unset, or an outcome: blocked (by a guardrail) or refused (by the engine). `lines` are conditions on `trace_id` (see telemetry_lines)."""

    endpoint: str | None = None
    release: str | None = None
    status: str | None = None
    user: str | None = None
    session: str | None = None
    since: float | None = None
    until: float | None = None
    traces: Sequence[str] | None = None
    lines: Sequence[tuple[str, list[Any]]] = ()

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL on columns of the table `traces`, and its parameters. On `spans` it holds too, but for outcomes."""
        parts: list[str] = []
        values: list[Any] = []
        for name in ("endpoint", "release", "status", "user", "session"):
            if (value := getattr(self, name)) is not None and name == "status" and value in OUTCOMES:
                parts.append(value)
            elif value is not None:
                parts.append(f'"{name}" = ?')
                values.append(value)
        for sign, moment in ((">=", self.since), ("<", self.until)):
            if moment is not None:
                parts.append(f"start_ns {sign} ?")
                values.append(int(moment * NS))
        if self.traces is not None:
            parts.append("trace_id IN (SELECT unnest(?::VARCHAR[]))")
            values.append(list(self.traces))
        for condition, more in self.lines:
            parts.append(condition)
            values += more
        return " AND ".join(["true", *parts]), values


_ITEM: tuple[str, ...] = (
    *("trace_id", "name", "kind", "endpoint", "release", "alias", "status", "blocked", "refused", "error", "tokens_in", "tokens_out", "cost"),
    *("model", "models", "spans", "errors", "session", "user", "start_ns", "end_ns", "span_id"),
)


def list_traces(con: Any, project: str, wanted: Filter, limit: int, cursor: str | None = None) -> dict[str, Any]:
    """Traces, newest first: {"items": [...], "next": cursor or None}. What a trace read and answered is its head span's."""
    place = _cursor(cursor)
    where, values = wanted.where()
    before, more = ("AND (start_ns < ? OR start_ns = ? AND trace_id < ?)", [place[0], *place]) if place else ("", [])
    columns = ", ".join(f't."{name}"' for name in _ITEM)
    rows = _dicts(
        con.execute(
            f"SELECT {columns} FROM traces t WHERE project = ? AND {where} {before} ORDER BY start_ns DESC, trace_id DESC LIMIT ?",
            [project, *values, *more, limit + 1],
        )
    )
    page = rows[:limit]
    following = f"{page[-1]['start_ns']}.{page[-1]['trace_id']}" if len(rows) > limit else None
    said = heads(con, project, page)
    scores = scores_of(con, project, [item["trace_id"] for item in page])
    for item in page:
        start, end = item.pop("start_ns"), item.pop("end_ns")
        inputs, outputs = said.get((item["trace_id"], item.pop("span_id")), (None, None))
        item |= {"at": start / NS, "ms": (end - start) / 1e6, "inputs": loads(inputs), "outputs": loads(outputs)}
        item["scores"] = scores.get(item["trace_id"], [])
    return {"items": page, "next": following}


def heads(con: Any, project: str, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    """Inputs and outputs, as JSON text, of the head spans of these rows of `traces`, by (trace id, span id)."""
    if not rows:
        return {}
    starts = sorted({row["start_ns"] for row in rows})
    found = con.execute(
        """SELECT trace_id, span_id, inputs, outputs FROM spans WHERE start_ns BETWEEN ? AND ? AND start_ns IN (SELECT unnest(?::BIGINT[]))
           AND project = ? AND span_id IN (SELECT unnest(?::VARCHAR[]))""",
        [starts[0], starts[-1], starts, project, [row["span_id"] for row in rows]],
    ).fetchall()
    return {(trace, span): (inputs, outputs) for trace, span, inputs, outputs in found}


def get_trace(con: Any, project: str, trace_id: str) -> dict[str, Any] | None:
    """A whole trace: {"trace_id", "spans", "predictions", "scores", "logs", "about"}; None if the project has no span or prediction of it. Messages that a
    GenAI instrumentation sent as log records are in their span's inputs and outputs. `about` is what a
    client told of the trace: {"experiment", "tags", "metadata", "runs", "prompts"}; None where none did."""
    spans = [_span(row) for row in spans_of(con, project, trace_id)]
    predictions = _dicts(
        con.execute(
            "SELECT * EXCLUDE (project, received_at) FROM predictions WHERE project = ? AND trace_id = ? ORDER BY prediction_id", [project, trace_id]
        )
    )
    if not spans and not predictions:
        return None
    scores = scores_of(con, project, [trace_id]).get(trace_id, [])
    labels = {s["subject"]: s["value"] for s in scores if s["name"] == "label"}
    for p in predictions:
        p.update(features=loads(p["features"]), outputs=loads(p["outputs"]), label=labels.get(p["prediction_id"]))
    about = _dicts(con.execute("SELECT experiment, tags, metadata, runs, prompts FROM infos WHERE project = ? AND trace_id = ?", [project, trace_id]))
    logs = logs_of(con, project, trace_id)
    genai_events.join(spans, logs)
    return {"trace_id": trace_id, "spans": spans, "predictions": predictions, "scores": scores, "logs": logs, "about": about[0] if about else None}


def spans_of(con: Any, project: str, trace_id: str) -> list[dict[str, Any]]:
    """All columns of a trace's spans, by start. The trace's own row tells when they were, so that the table reads only that."""
    known = con.execute(
        f"SELECT min(first_ns), max(last_ns) FROM traces WHERE key = {key_of('?', '?')} AND trace_id = ?", [project, trace_id, trace_id]
    ).fetchone()
    if known[0] is None:
        return []
    return _dicts(
        con.execute(
            "SELECT * FROM spans WHERE start_ns BETWEEN ? AND ? AND project = ? AND trace_id = ? ORDER BY start_ns, span_id",
            [*known, project, trace_id],
        )
    )


def scores_of(con: Any, project: str, traces: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Scores of traces and of the spans and predictions in them, by trace id, oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in _dicts(
        con.execute(
            'SELECT trace_id, id, subject, name, raw, source, why, "at", "by", details FROM scores WHERE project = ? '
            'AND trace_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY "at", id',
            [project, list(traces)],
        )
    ):
        found.setdefault(row.pop("trace_id"), []).append(_score(row))
    return found


def scores(con: Any, project: str, subject: str) -> list[dict[str, Any]]:
    """All scores of exactly one subject, oldest first."""
    return [
        _score(row)
        for row in _dicts(
            con.execute(
                'SELECT id, subject, name, raw, source, why, "at", "by", details FROM scores WHERE project = ? AND subject = ? ORDER BY "at", id',
                [project, subject],
            )
        )
    ]


def stats(con: Any, project: str, since: float, until: float, bucket_s: float, endpoint: str | None = None) -> list[dict[str, Any]]:
    """Per bucket of `bucket_s` seconds that has traces: count, errors, latency quantiles (ms; with an endpoint, of its call),
    cost (USD) and tokens."""
    if bucket_s <= 0 or until < since:
        raise BadInput("A bucket must be longer than 0 s and the time range must not end before it begins.")
    where, values = Filter(endpoint=endpoint, since=since, until=until).where()
    took = "(end_ns - start_ns) / 1e6" if endpoint is None else "call_ns / 1e6"
    rows = con.execute(
        f"""SELECT CAST(floor((start_ns / 1e9 - ?) / ?) AS BIGINT) AS bucket, count(*), count(*) FILTER (status = 'error'),
                   quantile_cont({took}, 0.5), quantile_cont({took}, 0.95), sum(cost), sum(coalesce(tokens_in, 0) + coalesce(tokens_out, 0))
            FROM traces WHERE project = ? AND {where} GROUP BY bucket ORDER BY bucket""",
        [since, bucket_s, project, *values],
    ).fetchall()
    return [
        {"at": since + bucket * bucket_s, "count": count, "errors": errors, "p50_ms": p50, "p95_ms": p95, "cost": cost, "tokens": _int(tokens) or 0}
        for bucket, count, errors, p50, p95, cost, tokens in rows
    ]


BUCKETS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
"""Round lengths of a bucket, in seconds."""


def round_bucket(seconds: float, wanted: int) -> float:
    """The shortest round length with which `seconds` are at most `wanted` buckets."""
    return float(next((b for b in BUCKETS_S if seconds / b <= wanted), max(BUCKETS_S[-1], seconds / wanted)))


def extent(con: Any, project: str, endpoint: str | None = None) -> tuple[float, float] | None:
    """When the first and the last trace began (epoch seconds); None where there is none."""
    where, values = Filter(endpoint=endpoint).where()
    row = con.execute(f"SELECT min(start_ns), max(start_ns) FROM traces WHERE project = ? AND {where}", [project, *values]).fetchone()
    return None if row is None or row[0] is None else (row[0] / NS, row[1] / NS)


def histogram(con: Any, project: str, wanted: Filter, edges_ms: Sequence[float]) -> list[int]:
    """How many traces (with an endpoint, its calls) took how long: counts between the edges, with one bucket below the first and one above the last."""
    where, values = wanted.where()
    edges = sorted(edges_ms)
    took = "(end_ns - start_ns)" if wanted.endpoint is None else "call_ns"
    cases = " ".join(f"WHEN ms < ? THEN {i}" for i in range(len(edges)))
    rows = con.execute(
        f"SELECT CASE {cases} ELSE {len(edges)} END AS bin, count(*) FROM (SELECT {took} / 1e6 AS ms FROM traces "
        f"WHERE project = ? AND {where}) GROUP BY bin",
        [*edges, project, *values],
    ).fetchall()
    counts = [0] * (len(edges) + 1)
    for bin, count in rows:
        counts[bin] = count
    return counts


def predictions(con: Any, project: str, endpoint: str, since: float, until: float, release: str | None, limit: int) -> list[dict[str, Any]]:
    """Predictions of an endpoint by time, oldest first, each with its last label (None: not yet come)."""
    more, values = (" AND p.release = ?", [release]) if release else ("", [])
    rows = con.execute(
        f"""SELECT p.prediction_id, p."at", p.release, p.features, p.outputs, l.raw FROM predictions p
            LEFT JOIN (SELECT subject, arg_max(raw, ROW("at", id)) AS raw FROM scores WHERE project = ? AND name = 'label' GROUP BY subject) l
            ON l.subject = p.prediction_id
            WHERE p.project = ? AND p.endpoint = ? AND p."at" >= ? AND p."at" < ?{more} ORDER BY p."at", p.prediction_id LIMIT ?""",
        [project, project, endpoint, since, until, *values, limit],
    ).fetchall()
    return [
        {"prediction_id": id, "at": at, "release": ref, "features": loads(features), "outputs": loads(outputs), "label": loads(label)}
        for id, at, ref, features, outputs, label in rows
    ]


def calls(con: Any, project: str, endpoint: str, since: float, until: float, limit: int, texts: bool = False) -> list[dict[str, Any]]:
    """Calls of an endpoint by time, newest first: {"at", "seconds", "failed", "blocked", "refused", "thumbs_down" (None: no thumb), "cost",
    "tokens_in", "tokens_out"}, with `texts` also "answer". What is not known is None."""
    more = ", outputs" if texts else ""
    rows = con.execute(
        f"""WITH roots AS (
              SELECT trace_id, start_ns, end_ns, status, attributes{more} FROM spans
              WHERE project = ? AND root AND endpoint = ? AND start_ns >= ? AND start_ns < ? ORDER BY start_ns DESC LIMIT ?),
            used AS (
              SELECT trace_id, cost, tokens_in, tokens_out FROM traces WHERE project = ? AND trace_id IN (SELECT trace_id FROM roots)),
            thumbs AS (
              SELECT subject, arg_max(value, ROW("at", id)) AS thumb FROM scores WHERE project = ? AND name = 'thumbs' GROUP BY subject)
            SELECT r.start_ns, r.end_ns, r.status, contains(r.attributes, '"everloop.blocked":true'), contains(r.attributes, '"everloop.refused":true'),
                   t.thumb, u.cost, u.tokens_in, u.tokens_out{more}
            FROM roots r LEFT JOIN used u USING (trace_id) LEFT JOIN thumbs t ON t.subject = r.trace_id ORDER BY r.start_ns DESC""",
        [project, endpoint, int(since * NS), int(until * NS), limit, project, project],
    ).fetchall()
    return [
        {
            "at": start / NS,
            "seconds": (end - start) / NS,
            "failed": status == "error",
            "blocked": bool(blocked),
            "refused": bool(refused) and not blocked,
            "thumbs_down": None if thumb is None else thumb < 0,
            "cost": cost,
            "tokens_in": _int(tokens_in),
            "tokens_out": _int(tokens_out),
            **({"answer": _said(rest[0])} if texts else {}),
        }
        for start, end, status, blocked, refused, thumb, cost, tokens_in, tokens_out, *rest in rows
    ]


def _said(outputs: str | None) -> str:
    """The text of an answer as the recorder keeps it."""
    found = loads(outputs)
    return str(found.get("text") or found.get("content") or "") if isinstance(found, dict) else str(found or "")


def count_by_release(con: Any, project: str, releases: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many traces each of these releases answered, and how many rows it predicted: ({release: traces}, {release: predictions})."""
    counted = []
    for what in ("count(DISTINCT trace_id) FROM spans WHERE root AND", "count(*) FROM predictions WHERE"):
        found = con.execute(
            f"SELECT release, {what} project = ? AND release IN (SELECT unnest(?::VARCHAR[])) GROUP BY release", [project, list(releases)]
        )
        counts = dict(found.fetchall())
        counted.append({release: int(counts.get(release, 0)) for release in releases})
    return counted[0], counted[1]


def _cursor(text: str | None) -> tuple[int, str] | None:
    if not text:
        return None
    start, _, trace = text.partition(".")
    if not start.lstrip("-").isdigit():
        raise BadInput(f"{text!r} is not a cursor.", "Pass on the `next` of the page before.")
    return int(start), trace


def _dicts(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _span(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("inputs", "outputs", "attributes", "events"):
        row[name] = loads(row[name])
    assert set(row) == set(SPAN_COLUMNS)
    for name in ("project", "entry", "root", "rolled", "received_at"):
        del row[name]
    return {**row, "events": row["events"] or [], "at": row["start_ns"] / NS, "ms": (row["end_ns"] - row["start_ns"]) / 1e6}


def _score(row: dict[str, Any]) -> dict[str, Any]:
    row["value"], details = loads(row.pop("raw")), loads(row.pop("details"))
    return {**row, "details": details} if details else row


def loads(text: str | None) -> Any:
    """A stored value (JSON text) again; None where there is none."""
    return None if text is None else orjson.loads(text)


def _int(value: Any) -> int | None:
    return None if value is None else int(value)
