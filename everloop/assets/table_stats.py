"""What a table is: schema and statistics by column, as a dataset's manifest keeps them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from everloop.assets.table_parts import Stored, null_count, parts
from everloop.core.clock import iso
from everloop.core.limits import TABLE_BINS, TABLE_DISTINCT, TABLE_TOP

TOP_KINDS = ("string", "boolean")
"""Types of columns whose most frequent values are told, however many there are."""

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
        {"name": name, "type": kind_of(table.schema.field(i).type), "nullable": null_count(table, name) > 0}
        for i, name in enumerate(table.column_names)
    ]


def statistics(table: Any, scratch: Path | None = None) -> dict[str, dict[str, Any]]:
    """Statistics of each column: missing, min, max, mean, std, distinct, top ([[value, count]...]), histogram ({"edges", "counts"}).

    The table goes by in parts (table_parts.Stored), and a second time for the histograms. Of one that is not in memory, a column with over
    TABLE_DISTINCT different values has their number estimated (HyperLogLog), and the most frequent ones found among candidates and then counted
    (space-saving sketch); "estimated" names what is. `scratch` is a folder for that.
    """
    exact = None if not isinstance(table, Stored) else max(1_000, min(TABLE_DISTINCT, 20 * TABLE_DISTINCT // max(1, table.num_columns)))
    seen = {name: Column(kind_of(table.schema.field(i).type), exact) for i, name in enumerate(table.column_names)}
    for part in parts(table):
        for name, column in seen.items():
            column.add(part.column(name))
    if table.num_columns <= _WIDE:
        binned = [name for name, column in seen.items() if column.bins()]
        for part in parts(table, binned) if binned else ():
            for name in binned:
                seen[name].bin(part.column(name))
    found = {name: column.found() for name, column in seen.items()}
    many = [name for name, column in seen.items() if column.many]
    if many:
        from everloop.assets.table_sketches import estimate

        for name, told in estimate(table, {n: seen[n].kind in TOP_KINDS for n in many}, scratch).items():
            found[name] |= {**told, "estimated": sorted(told)}
    return found


class Column:
    """Statistics of one column that goes by in pieces: counts and moments are merged (Chan, Golub and LeVeque 1979), different values counted."""

    def __init__(self, kind: str, exact: int | None) -> None:
        self.kind = kind
        self.many = False
        """Whether it has more different values than are counted one by one."""
        self._exact = exact
        self._values: Any = None
        self._n = self._missing = 0
        self._mean = self._square = 0.0
        self._low: Any = None
        self._high: Any = None
        self._edges: Any = None
        self._counts: Any = None

    def add(self, values: Any) -> None:
        """Take in the next values."""
        import pyarrow.compute as pc

        values = self._finite(values)
        self._missing += values.null_count
        n = len(values) - values.null_count
        if not n:
            return
        if self.kind in ("number", "integer", "datetime"):
            span = pc.min_max(values).as_py()
            self._low = span["min"] if self._low is None else min(self._low, span["min"])
            self._high = span["max"] if self._high is None else max(self._high, span["max"])
        if self.kind in ("number", "integer"):
            numbers = _floats(values)
            mean = float(numbers.mean())
            square = float(((numbers - mean) ** 2).sum())
            off, total = mean - self._mean, self._n + n
            self._square += square + off * off * self._n * n / total
            self._mean += off * n / total
        self._n += n
        self._count(values)

    def bins(self) -> bool:
        """Whether it has a histogram, whose bins are known once all values were seen."""
        import numpy as np

        if self.kind not in ("number", "integer") or not self._n:
            return False
        low, high = float(self._low), float(self._high)
        self._edges = np.histogram_bin_edges([], bins=TABLE_BINS if high > low else 1, range=(low, high if high > low else low + 1.0))
        self._counts = np.zeros(len(self._edges) - 1, dtype=np.int64)
        return True

    def bin(self, values: Any) -> None:
        """Count values into the bins."""
        import numpy as np

        counts, _ = np.histogram(_floats(self._finite(values)), bins=len(self._counts), range=(self._edges[0], self._edges[-1]))
        self._counts += counts

    def found(self) -> dict[str, Any]:
        """The statistics; numbers that do not apply are None, not-a-number counts as missing."""
        told: dict[str, Any] = {"missing": self._missing, "min": None, "max": None, "mean": None, "std": None}
        told["distinct"] = None if self.many else 0 if self._values is None else self._values.num_rows
        told["top"] = []
        if self.kind in ("number", "integer") and self._n:
            std = (self._square / (self._n - 1)) ** 0.5 if self._n > 1 else 0.0
            told |= {"min": float(self._low), "max": float(self._high), "mean": self._mean, "std": std}
        elif self.kind == "datetime" and self._n:
            told |= {"min": _moment(self._low), "max": _moment(self._high)}
        if self._counts is not None:
            told["histogram"] = {"edges": [float(e) for e in self._edges], "counts": [int(c) for c in self._counts]}
        if not self.many and self._values is not None and (self.kind in TOP_KINDS or (self.kind == "integer" and told["distinct"] <= TABLE_TOP)):
            told["top"] = top(zip(self._values.column("v").to_pylist(), self._values.column("n").to_pylist(), strict=True))
        return told

    def _finite(self, values: Any) -> Any:
        import pyarrow.compute as pc

        return pc.if_else(pc.is_finite(values), values, None) if self.kind == "number" else values

    def _count(self, values: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.many:
            return
        counted = pc.value_counts(values.drop_null())
        table = pa.table({"v": counted.field("values"), "n": counted.field("counts")})
        if self._values is not None:
            table = pa.concat_tables([self._values, table]).group_by("v").aggregate([("n", "sum")]).rename_columns(["v", "n"])
        self._values = table
        if self._exact is not None and (table.num_rows > self._exact or table.nbytes > 40 * self._exact):
            self.many, self._values = True, None


def top(counted: Iterable[tuple[Any, int]]) -> list[list[Any]]:
    """The most frequent of (value, count) pairs, long texts cut."""
    pairs = sorted(counted, key=lambda p: (-p[1], str(p[0])))
    return [[v[:_TEXT] if isinstance(v, str) else v, c] for v, c in pairs[:TABLE_TOP]]


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


def _floats(values: Any) -> Any:
    return values.drop_null().to_numpy().astype(float)


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    from datetime import timezone

    return iso(value.replace(tzinfo=timezone.utc).timestamp())
