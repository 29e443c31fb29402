"""Rows of metric points and of log records: which columns they have, and how one is made from what a client sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

METRIC_COLUMNS = (
    "project",
    "id",
    "name",
    "type",
    "unit",
    "description",
    "temporality",
    "monotonic",
    "series",
    "at_ns",
    "since_ns",
    "value",
    "count",
    "sum",
    "min",
    "max",
    "buckets",
    "attributes",
    "resource",
    "scope",
    "received_at",
)
LOG_COLUMNS = (
    "project",
    "id",
    "trace_id",
    "span_id",
    "at_ns",
    "severity",
    "level",
    "event",
    "body",
    "attributes",
    "resource",
    "scope",
    "received_at",
)
TYPES = {
    "at_ns": "BIGINT",
    "since_ns": "BIGINT",
    "monotonic": "BOOLEAN",
    "count": "BIGINT",
    "sum": "DOUBLE",
    "min": "DOUBLE",
    "max": "DOUBLE",
    "severity": "INTEGER",
}
_OBJECTS = ("buckets", "attributes", "resource", "body")


def metric_row(project: str, received: float, point: Mapping[str, Any]) -> tuple[Any, ...]:
    """A point as a row of METRIC_COLUMNS."""
    return _row(METRIC_COLUMNS, project, received, point)


def log_row(project: str, received: float, record: Mapping[str, Any]) -> tuple[Any, ...]:
    """A record as a row of LOG_COLUMNS; a body that is plain text is kept as JSON text, too."""
    return _row(LOG_COLUMNS, project, received, record)


def text_of_log(row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What text search finds of a record that belongs to a trace: (project, trace_id, name, error, inputs, outputs); None where it has none."""
    project, trace, event, body, attributes = (row[LOG_COLUMNS.index(name)] for name in ("project", "trace_id", "event", "body", "attributes"))
    if trace is None:
        return None
    said = attributes if attributes and "gen_ai." in attributes else None
    return (project, trace, event or "", None, body, said)


def _row(columns: tuple[str, ...], project: str, received: float, one: Mapping[str, Any]) -> tuple[Any, ...]:
    made = {**one, "project": project, "received_at": received}
    return tuple(_json(made.get(name)) if name in _OBJECTS else made.get(name) for name in columns)


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS).decode()
