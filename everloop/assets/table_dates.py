"""Dates written as text, and columns that say when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from everloop.assets.table_parts import Stored
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
SAMPLE = 100
"""Values of a column that must have the shape of dates, so that the others are tried."""


def parse_dates(values: Any) -> tuple[Any, str]:
    """A text column as timestamps where every value is a date in one way of writing, else None; and a note where that was a choice."""
    some = values.drop_null().slice(0, SAMPLE)
    if not looks_like_dates(some):
        return None, ""
    parsed, _, form = _best(values)
    if parsed.null_count != values.null_count:
        return None, ""
    other = month_first(form)
    if other and parse_as(values, other).null_count == values.null_count:
        return parsed, ambiguous(some[0].as_py())
    return parsed, ""


def looks_like_dates(some: Any) -> bool:
    """Whether each of a few texts (none missing) has the shape of a date."""
    import pyarrow.compute as pc

    return bool(len(some) and pc.all(pc.match_substring_regex(some, _LIKE)).as_py())


def ways() -> list[str]:
    """The ways of writing a date that are tried, in order."""
    return ["ISO", *FORMATS]


def month_first(form: str) -> str | None:
    """The way that puts the month first, of one that could be taken for it."""
    return "%m/%d" + form[5:] if form.startswith("%d/%m") else None


def ambiguous(example: str) -> str:
    """What is said where both ways of writing read every value."""
    return f"dates were read as day/month/year ({example!r}); they could be month/day. Write them as 2026-11-24 to be sure."


def parse_as(values: Any, form: str) -> Any:
    """Texts as timestamps under one way of writing; null where a value is written otherwise."""
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(values)
    return _iso(trimmed) if form == "ISO" else _strptime(trimmed, form)


def time_column(table: Any, column: str) -> tuple[Any, str | None]:
    """The table with `column` fit to order rows by, and None; or why it cannot (a time of day that runs in cycles), to be said.

    Raises BadInput, naming row and value, where a date does not parse or is missing.
    """
    import pyarrow as pa

    if isinstance(table, Stored):
        return table, _stored_time(table, column)
    values = table.column(column)
    if pa.types.is_boolean(values.type):
        raise _no_time(column)
    if pa.types.is_string(values.type):
        values = _parsed_or_said(values, column)
        table = table.set_column(table.column_names.index(column), column, values)
    if values.null_count:
        import pyarrow.compute as pc

        raise _gaps(column, values.null_count, pc.index(pc.is_null(values), True).as_py())
    return table, (None if pa.types.is_timestamp(values.type) else _cycles([values], column))


def _stored_time(table: Stored, column: str) -> str | None:
    """`time_column` of a table that is not in memory; its texts were parsed, where they could be, when it was written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = table.schema.field(column).type
    if pa.types.is_boolean(kind):
        raise _no_time(column)
    if pa.types.is_string(kind):
        good = {form: sum(_parsed_count(part.column(column), form) for part in table.parts([column])) for form in ways()}
        form = max(good, key=lambda one: good[one])
        wrong = -1
        for start, values in _starts(table, column):
            parsed = parse_as(values, form)
            wrong = pc.index(pc.and_(pc.is_null(parsed), pc.is_valid(values)), True).as_py()
            if wrong >= 0:
                raise _not_a_date(
                    column, start + wrong, values[wrong].as_py(), good[form], form, table.num_rows - table.null_count(column) - good[form]
                )
    if table.null_count(column):
        first = next(start + pc.index(pc.is_null(values), True).as_py() for start, values in _starts(table, column) if values.null_count)
        raise _gaps(column, table.null_count(column), first)
    return None if pa.types.is_timestamp(kind) else _cycles((values for _, values in _starts(table, column)), column)


def _starts(table: Stored, column: str) -> Iterator[tuple[int, Any]]:
    """(number of its first row, values) of each part of a column."""
    start = 0
    for part in table.parts([column]):
        yield start, part.column(column)
        start += part.num_rows


def _parsed_count(values: Any, form: str) -> int:
    parsed = parse_as(values, form)
    return len(parsed) - int(parsed.null_count)


def _no_time(column: str) -> BadInput:
    return BadInput(f"The time column {column!r} holds true and false.", "Name a column with dates, or a number that rises with time.")


def _gaps(column: str, n: int, first: int) -> BadInput:
    return BadInput(f"The time column {column!r} has no value in {n} rows, first in row {first + 1}.", "Fill it in, or drop the rows.")


def _not_a_date(column: str, row: int, value: str, good: int, like: str, n: int) -> BadInput:
    others = f"; {good:,} other values are dates like {'2026-11-24T08:00:00Z' if like == 'ISO' else like}" if good else ""
    return BadInput(
        f"The time column {column!r} does not parse as a date in row {row + 1}: {value!r}{others} ({n:,} rows are wrong).",
        "Fix the value, or write all dates as 2026-11-24 or 2026-11-24T08:00:00Z.",
    )


def _parsed_or_said(values: Any, column: str) -> Any:
    import pyarrow.compute as pc

    parsed, _, _ = _best(values)
    wrong = pc.and_(pc.is_null(parsed), pc.is_valid(values))
    n = pc.sum(wrong).as_py() or 0
    if n:
        first = pc.index(wrong, True).as_py()
        good = len(values) - values.null_count - n
        like = values[pc.index(pc.is_valid(parsed), True).as_py()].as_py() if good else ""
        raise _not_a_date(column, first, values[first].as_py(), good, like, n)
    return parsed


def _best(values: Any) -> tuple[Any, int, str]:
    """(parsed, how many parsed, format) under the way of writing that reads most of the column."""
    best: tuple[Any, int, str] | None = None
    for form in ways():
        parsed = parse_as(values, form)
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


def _cycles(pieces: Iterable[Any], column: str) -> str | None:
    """Why a number is a time of day (or week, or year) rather than a point in time: it falls back from near its top, again and again."""
    import numpy as np

    low, high, falls, fallen, last = np.inf, -np.inf, 0, 0.0, None
    for values in pieces:
        numbers = values.to_numpy().astype(float)
        if not len(numbers):
            continue
        low, high = min(low, numbers.min()), max(high, numbers.max())
        drops = -np.diff(numbers if last is None else np.concatenate([[last], numbers]))
        drops = drops[drops > 0]
        falls, fallen, last = falls + len(drops), fallen + drops.sum(), numbers[-1]
    span = high - low
    if falls < 3 or span == 0 or fallen / falls < 0.7 * span:
        return None
    return (
        f"Column {column!r} runs in cycles (it falls back from {high:g} to {low:g}, {falls:,} times): it is a time of day "
        "or the like, not a point in time, so it is a feature and the rows are taken in the order they stand in."
    )
