"""What a table is: schema and statistics by column, as a dataset's manifest keeps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from everloop.core.clock import iso
from everloop.core.limits import TABLE_BINS, TABLE_TOP

_WIDE = 300
"""Above this many columns, statistics leave out histograms, so that the manifest stays small."""
_TEXT = 80


def kind_of(arrow_type: Any) -> str:
    """Our name for an Arrow type: number, integer, string, boolean or datetime."""
    import pyarrow as pa

    t = pa.types
    if t.is_boolean(arrow_type):
        return "boolean"
    if t.is_integer(arrow_type):
        return "integer"
    if t.is_floating(arrow_type):
        return "number"
    return "datetime" if t.is_timestamp(arrow_type) else "string"


def schema(table: Any) -> list[dict[str, Any]]:
    """[{"name", "type", "nullable"}] in the table's order; nullable says whether a value is missing in it."""
    return [
        {"name": name, "type": kind_of(column.type), "nullable": column.null_count > 0}
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]


def statistics(table: Any) -> dict[str, dict[str, Any]]:
    """Statistics of each column: missing, min, max, mean, std, distinct, top ([[value, count]...]), histogram ({"edges", "counts"})."""
    wide = table.num_columns > _WIDE
    return {name: column_statistics(column, histogram=not wide) for name, column in zip(table.column_names, table.columns, strict=True)}


def column_statistics(values: Any, histogram: bool = True) -> dict[str, Any]:
    """Statistics of one Arrow column (see `statistics`); numbers that do not apply are None, not-a-number counts as missing."""
    import pyarrow.compute as pc

    kind = kind_of(values.type)
    if kind == "number":
        values = pc.if_else(pc.is_finite(values), values, None)
    found: dict[str, Any] = {"missing": values.null_count, "min": None, "max": None, "mean": None, "std": None}
    found["distinct"] = pc.count_distinct(values).as_py()
    if len(values) == values.null_count:
        return {**found, "top": []}
    if kind in ("number", "integer"):
        found.update(_numbers(values, histogram))
    if kind == "datetime":
        span = pc.min_max(values).as_py()
        found.update(min=_moment(span["min"]), max=_moment(span["max"]))
    if kind in ("string", "boolean") or (kind == "integer" and found["distinct"] <= TABLE_TOP):
        found["top"] = _top(values)
    else:
        found["top"] = []
    return found


def native(column: Any) -> list[Any]:
    """An Arrow column as Python values: None for missing, datetimes as ISO text (UTC)."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return [_moment(v) for v in column.to_pylist()]
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if v is None or math.isnan(v) else v for v in values]
    return list(values)


def columns(table: Any, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """A table's columns as Python lists (see `native`), all or those named that exist."""
    return {name: native(table.column(name)) for name in (table.column_names if names is None else names) if name in table.column_names}


def _numbers(values: Any, histogram: bool) -> dict[str, Any]:
    import numpy as np

    numbers = values.drop_null().to_numpy().astype(float)
    low, high = float(numbers.min()), float(numbers.max())
    found: dict[str, Any] = {"min": low, "max": high, "mean": float(numbers.mean()), "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0}
    if histogram:
        counts, edges = np.histogram(numbers, bins=TABLE_BINS if high > low else 1, range=(low, high if high > low else low + 1.0))
        found["histogram"] = {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]}
    return found


def _top(values: Any) -> list[list[Any]]:
    import pyarrow.compute as pc

    counted = pc.value_counts(values.drop_null())
    pairs = sorted(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True), key=lambda p: (-p[1], str(p[0])))
    return [[v[:_TEXT] if isinstance(v, str) else v, c] for v, c in pairs[:TABLE_TOP]]


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    from datetime import timezone

    return iso(value.replace(tzinfo=timezone.utc).timestamp())
