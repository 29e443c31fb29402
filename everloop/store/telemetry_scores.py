"""Scores in sum, by what answered; and which traces have come since a moment. SQL of DuckDB, each one function of a cursor."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput
from everloop.store.telemetry_queries import Filter

HEAD = "CASE WHEN parent_id IS NULL THEN 0 ELSE 4611686018427387904 END + start_ns // 2"
"""Orders the entry spans of a trace: the true root first, else the earliest."""
BY = ("release", "endpoint", "alias", "model", "user", "session", "name")
"""What scores can be told by."""
JUDGES = "judge:"
"""How the endpoint of a judge's own traces begins."""


def summed(con: Any, project: str, by: str, wanted: Filter, name: str | None, source: str | None) -> list[dict[str, Any]]:
    """Numeric scores of traces (and what lies in them) by one of BY and their names: {"key", "name", "n", "mean", "deviation", "two" (all are 0 or 1),
    "signs" (all are 1 or -1), "up" (those above 0)}. `source` may be the beginning of one."""
    if by not in BY:
        raise BadInput(f"Scores cannot be told by {by!r}.", f"They can be by: {', '.join(BY)}.")
    where, values = wanted.where()
    narrowed, more = "", list[Any]()
    for text, value in (("AND s.name = ?", name), ("AND starts_with(s.source, ?)", source)):
        if value:
            narrowed, more = f"{narrowed} {text}", [*more, value]
    rows = con.execute(
        f"""WITH heads AS (SELECT trace_id, arg_min("{by}", {HEAD}) AS key FROM spans WHERE project = ? AND entry AND {where} GROUP BY trace_id)
            SELECT key, s.name, count(*), avg(value), coalesce(stddev_samp(value), 0), bool_and(value IN (0, 1)), bool_and(value IN (-1, 1)),
              count(*) FILTER (value > 0)
            FROM scores s JOIN heads USING (trace_id) WHERE s.project = ? AND value IS NOT NULL {narrowed} GROUP BY key, s.name ORDER BY s.name, key""",
        [project, *values, project, *more],
    ).fetchall()
    names = ("key", "name", "n", "mean", "deviation", "two", "signs", "up")
    return [dict(zip(names, row, strict=True)) for row in rows]


def arrived(con: Any, project: str, wanted: Filter, after: float, until: float, limit: int) -> list[tuple[str, float]]:
    """(trace, when its first entry came) of traces that came after `after` and until `until` (epoch seconds), oldest first, a judge's own left out."""
    where, values = wanted.where()
    rows: list[tuple[str, float]] = con.execute(
        f"""SELECT trace_id, min(received_at) AS came FROM spans WHERE project = ? AND entry AND received_at > ? AND received_at <= ?
            AND NOT starts_with(coalesce(endpoint, ''), '{JUDGES}') AND {where} GROUP BY trace_id ORDER BY came, trace_id LIMIT ?""",
        [project, after, until, *values, limit],
    ).fetchall()
    return rows


def there(con: Any, project: str, ids: list[str]) -> set[str]:
    """Which of these ids of scores there are."""
    found = con.execute("SELECT id FROM scores WHERE project = ? AND id IN (SELECT unnest(?::VARCHAR[]))", [project, ids]).fetchall()
    return {row[0] for row in found}
