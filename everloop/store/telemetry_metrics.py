"""Figures over many traces, spans or judgements: counts, sums and quantiles, by dimension and by time."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everloop.core.errors import BadInput
from everloop.store.telemetry_search import TYPE, Clause, condition, source

TRACES, SPANS, JUDGEMENTS = "TRACES", "SPANS", "ASSESSMENTS"
_USAGE = "TRY_CAST(json_extract_string(t.metadata['mlflow.trace.tokenUsage'], '$.{}') AS DOUBLE)"
_COST = "TRY_CAST(json_extract_string(s.attributes, '$.\"mlflow.llm.cost\".{}') AS DOUBLE)"
_TOKENS = {
    "input_tokens": f"coalesce({_USAGE.format('input_tokens')}, u.tokens_in)",
    "output_tokens": f"coalesce({_USAGE.format('output_tokens')}, u.tokens_out)",
    "total_tokens": f"coalesce({_USAGE.format('total_tokens')}, u.tokens_in + u.tokens_out)",
    "cache_read_input_tokens": f"coalesce({_USAGE.format('cache_read_input_tokens')}, u.tokens_cached)",
    "cache_creation_input_tokens": _USAGE.format("cache_creation_input_tokens"),
}
METRICS: dict[str, dict[str, str]] = {
    TRACES: {"trace_count": "t.trace_id", "session_count": "DISTINCT t.session", "latency": "t.ms", **_TOKENS},
    SPANS: {
        "span_count": "s.span_id",
        "latency": "(s.end_ns - s.start_ns) / 1e6",
        "input_cost": _COST.format("input_cost"),
        "output_cost": _COST.format("output_cost"),
        "total_cost": "s.cost",
    },
    JUDGEMENTS: {
        "assessment_count": "a.id",
        "assessment_value": "CASE a.raw WHEN 'true' THEN 1 WHEN 'false' THEN 0 WHEN '\"yes\"' THEN 1 WHEN '\"no\"' THEN 0 ELSE a.value END",
    },
}
DIMENSIONS: dict[str, dict[str, str]] = {
    TRACES: {"trace_name": "t.name", "trace_status": "t.state"},
    SPANS: {
        "span_name": "s.name",
        "span_type": TYPE,
        "span_status": "upper(s.status)",
        "span_model_name": "s.model",
        "span_model_provider": "s.provider",
    },
    JUDGEMENTS: {"assessment_name": "a.name", "assessment_value": "a.raw"},
}
_TIMES = {TRACES: "t.at_ms", SPANS: "(s.start_ns // 1000000)", JUDGEMENTS: "t.at_ms"}
_FROM = {
    TRACES: "t LEFT JOIN (SELECT trace_id, tokens_in, tokens_out, tokens_cached FROM traces WHERE project = ?) u USING (trace_id)",
    SPANS: "spans s JOIN t ON t.trace_id = s.trace_id AND s.project = ?",
    JUDGEMENTS: "scores a JOIN t ON t.trace_id = a.trace_id AND a.project = ?",
}
_FIGURES = {"COUNT": "count({})", "SUM": "sum({})", "AVG": "avg({})", "MIN": "min({})", "MAX": "max({})"}


@dataclass(frozen=True)
class Question:
    """What is asked. `figures` are (COUNT | SUM | AVG | MIN | MAX | PERCENTILE, percentile or None); `traces`, `spans` and `judgements` are equalities
    that must hold; times are epoch milliseconds, both ends included."""

    view: str
    metric: str
    figures: Sequence[tuple[str, float | None]]
    experiments: Sequence[str]
    dimensions: Sequence[str] = ()
    traces: Sequence[Clause] = ()
    spans: Sequence[tuple[str, str]] = ()
    judgements: Sequence[tuple[str, str]] = ()
    interval_s: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 1000
    offset: int = 0


def answer(con: Any, project: str, asked: Question) -> list[dict[str, Any]]:
    """One row per combination of dimensions (and time) that occurs: {"dimensions": {...}, "values": {...}}. BadInput for what is not measured."""
    value = _known(METRICS.get(asked.view, {}), asked.metric, f"metric of {asked.view}")
    columns = {name: _known(DIMENSIONS[asked.view], name, f"dimension of {asked.view}") for name in asked.dimensions}
    time = _TIMES[asked.view]
    if asked.interval_s:
        length = int(asked.interval_s) * 1000
        columns = {"time_bucket": f"({time} // {length}) * {length}", **columns}
    figures = {_name(*one): _figure(value, *one) for one in asked.figures}
    given, values = source(project, asked.experiments)
    where, more = condition(project, asked.traces)
    values += [project, *more]
    parts = [where]
    for column, (key, wanted) in [("s", one) for one in asked.spans] + [("a", one) for one in asked.judgements]:
        parts.append(f"{_PLAIN[column][key]} = ?")
        values.append(wanted)
    if asked.view == JUDGEMENTS:
        parts.append("coalesce(json_extract_string(a.details, '$.valid'), 'true') = 'true'")
    for sign, moment in ((">=", asked.since_ms), ("<=", asked.until_ms)):
        if moment is not None:
            parts.append(f"{time} {sign} ?")
            values.append(int(moment))
    places = ", ".join(str(i + 1) for i in range(len(columns)))
    grouped = f"GROUP BY {places} ORDER BY {places}" if columns else ""
    rows = con.execute(
        f"WITH t AS ({given}) SELECT {', '.join([*columns.values(), *figures.values()])} FROM {_FROM[asked.view]} WHERE {' AND '.join(parts)} "
        f"{grouped} LIMIT ? OFFSET ?",
        [*values, asked.limit + 1, asked.offset],
    ).fetchall()
    return [one for one in (_row(row, list(columns), list(figures)) for row in rows) if one["values"]]


_PLAIN = {
    "s": {"name": "s.name", "type": TYPE, "status": "upper(s.status)"},
    "a": {"name": "a.name", "type": "coalesce(json_extract_string(a.details, '$.type'), 'feedback')"},
}


def _row(row: Sequence[Any], dimensions: list[str], figures: list[str]) -> dict[str, Any]:
    found = dict(zip(dimensions, row, strict=False))
    if "time_bucket" in found:
        found["time_bucket"] = datetime.datetime.fromtimestamp(found["time_bucket"] / 1000, datetime.timezone.utc).isoformat()
    values = dict(zip(figures, row[len(dimensions) :], strict=True))
    return {
        "dimensions": {name: str(value) for name, value in found.items() if value is not None},
        "values": {name: float(value) for name, value in values.items() if value is not None},
    }


def _figure(value: str, kind: str, percentile: float | None) -> str:
    if kind == "PERCENTILE":
        if percentile is None or not 0 <= percentile <= 100:
            raise BadInput(f"Percentile value must be between 0 and 100, got {percentile}")
        return f"quantile_cont({value}, {percentile / 100!r})"
    return _known(_FIGURES, kind, "aggregation").format(value)


def _name(kind: str, percentile: float | None) -> str:
    return f"P{percentile}" if kind == "PERCENTILE" else kind


def _known(table: dict[str, str], name: str, what: str) -> str:
    if name not in table:
        raise BadInput(f"There is no {what} called {name!r}.", f"There are: {', '.join(table) or ', '.join(METRICS)}.")
    return table[name]
