"""Dates written as text, and columns that say when."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput

FORMATS = (
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m",
    "%Y%m%d",
    "%d/%m/%Y",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d-%m-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
"""Ways to write a date beside ISO 8601 (strptime's letters), tried in this order."""
_LIKE = (
    r"^\s*(\d{4}[-/]\d{1,2}([-/]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{4}|[A-Za-z]{3,9} \d{1,2}, \d{4})([T ].*)?\s*$"
)
_SAMPLE = 100


def parse_dates(values: Any) -> tuple[Any, str]:
    """A text column as timestamps where every value is a date in one way of writing, else None; and a note where that was a choice."""
    import pyarrow.compute as pc

    some = values.drop_null().slice(0, _SAMPLE)
    if not len(some) or not pc.all(pc.match_substring_regex(some, _LIKE)).as_py():
        return None, ""
    parsed, _, form = _best(values)
    if parsed.null_count != values.null_count:
        return None, ""
    other = {"%d/%m": "%m/%d", "%m/%d": "%d/%m"}.get(form[:5])
    if other and form.startswith("%d") and _strptime(values, other + form[5:]).null_count == values.null_count:
        return parsed, f"dates were read as day/month/year ({some[0].as_py()!r}); they could be month/day. Write them as 2026-11-24 to be sure."
    return parsed, ""


def time_column(table: Any, column: str) -> tuple[Any, str | None]:
    """The table with `column` fit to order rows by, and None; or why it cannot (a time of day that runs in cycles), to be said.

    Raises BadInput, naming row and value, where a date does not parse or is missing.
    """
    import pyarrow as pa

    values = table.column(column)
    if pa.types.is_boolean(values.type):
        raise BadInput(f"The time column {column!r} holds true and false.", "Name a column with dates, or a number that rises with time.")
    if pa.types.is_string(values.type):
        values = _parsed_or_said(values, column)
        table = table.set_column(table.column_names.index(column), column, values)
    if values.null_count:
        import pyarrow.compute as pc

        first = pc.index(pc.is_null(values), True).as_py()
        raise BadInput(
            f"The time column {column!r} has no value in {values.null_count} rows, first in row {first + 1}.", "Fill it in, or drop the rows."
        )
    return table, (None if pa.types.is_timestamp(values.type) else _cycles(values, column))


def _parsed_or_said(values: Any, column: str) -> Any:
    import pyarrow.compute as pc

    parsed, _, _ = _best(values)
    wrong = pc.and_(pc.is_null(parsed), pc.is_valid(values))
    n = pc.sum(wrong).as_py() or 0
    if n:
        first = pc.index(wrong, True).as_py()
        good = len(values) - values.null_count - n
        like = values[pc.index(pc.is_valid(parsed), True).as_py()].as_py() if good else ""
        others = f"; {good:,} other values are dates like {like}" if good else ""
        raise BadInput(
            f"The time column {column!r} does not parse as a date in row {first + 1}: {values[first].as_py()!r}{others} ({n:,} rows are wrong).",
            "Fix the value, or write all dates as 2026-11-24 or 2026-11-24T08:00:00Z.",
        )
    return parsed


def _best(values: Any) -> tuple[Any, int, str]:
    """(parsed, how many parsed, format) under the way of writing that reads most of the column."""
    import pyarrow.compute as pc

    best: tuple[Any, int, str] | None = None
    trimmed = pc.utf8_trim_whitespace(values)
    for form in ("ISO", *FORMATS):
        parsed = _iso(trimmed) if form == "ISO" else _strptime(trimmed, form)
        good = len(parsed) - parsed.null_count
        if best is None or good > best[1]:
            best = (parsed, good, "2026-11-24T08:00:00Z" if form == "ISO" else form)
        if good == len(values) - values.null_count:
            break
    assert best is not None
    return best


def _strptime(values: Any, form: str) -> Any:
    import pyarrow.compute as pc

    return pc.strptime(values, format=form, unit="us", error_is_null=True)


def _iso(values: Any) -> Any:
    """ISO 8601, with or without zone (then UTC); null where a value is something else."""
    import pandas as pd
    import pyarrow as pa

    parsed = pd.to_datetime(values.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return pa.chunked_array([pa.array(parsed.dt.tz_localize(None), type=pa.timestamp("us"), from_pandas=True, safe=False)])


def _cycles(values: Any, column: str) -> str | None:
    """Why a number is a time of day (or week, or year) rather than a point in time: it falls back from near its top, again and again."""
    import numpy as np

    numbers = values.to_numpy().astype(float)
    span = numbers.max() - numbers.min()
    drops = -np.diff(numbers)
    drops = drops[drops > 0]
    if len(drops) < 3 or span == 0 or drops.mean() < 0.7 * span:
        return None
    return (
        f"Column {column!r} runs in cycles (it falls back from {numbers.max():g} to {numbers.min():g}, {len(drops):,} times): it is a time of day "
        "or the like, not a point in time, so it is a feature and the rows are taken in the order they stand in."
    )
