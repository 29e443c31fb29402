"""Metric series of runs: the hot path of tracking. Points go into packed blocks (run_series.py), the latest value of each series into a table of its own.

There a value that is not finite keeps its kind in `special` ("nan", "inf", "-inf"); infinities also keep the largest float as `value`, so that
they sort and compare as such, and nan keeps null.
"""

from __future__ import annotations

import math
import struct
import sys
from typing import Any, NamedTuple

import sqlalchemy as sa

from everloop.assets import run_series
from everloop.assets.run_series import Columns, append, page
from everloop.core.errors import BadInput
from everloop.core.limits import HISTORY_POINTS, METRIC_POINTS, RUN_KEY_CHARS
from everloop.store.prepared import Prepared, upsert
from everloop.store.records import Tx
from everloop.store.schema import run_metrics as latest

SPECIAL_TEXT = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""How a value that is not finite is written in JSON."""
STEP_MAX = 2**63 - 1
_DOUBLE, _BITS = struct.Struct("<d"), struct.Struct("<q")


class Point(NamedTuple):
    """One value of a series: `at` in epoch seconds."""

    key: str
    value: float
    step: int
    at: float


def points_of(metrics: list[dict[str, Any]] | dict[str, Any], now: float) -> list[Point]:
    """Points from [{"key", "value", "step"?, "at"?}] or {key: value}; BadInput names the one that cannot be used."""
    rows = [{"key": k, "value": v} for k, v in metrics.items()] if isinstance(metrics, dict) else metrics
    found = []
    for row in rows:
        try:
            at = row.get("at")
            found.append(Point(row["key"], float(row["value"]), int(row.get("step") or 0), now if at is None else float(at)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise BadInput(f"{row!r} is not a metric.", 'Write it as {"key": "auc", "value": 0.8, "step": 1}.') from None
    return found


def columns_of(points: list[Point]) -> dict[str, Columns]:
    """Points by key. BadInput for a bad key, step or time, or more than METRIC_POINTS points."""
    if len(points) > METRIC_POINTS:
        raise BadInput(f"{len(points)} metric points were sent at once; at most {METRIC_POINTS} are allowed.", "Send them in several requests.")
    found: dict[str, Columns] = {}
    for key, value, step, at in points:
        if not key or len(key) > RUN_KEY_CHARS or not -STEP_MAX <= step <= STEP_MAX or not math.isfinite(at):
            shown = key if len(key) <= 80 else key[:80] + "..."
            raise BadInput(
                f"The metric {shown!r} ({len(key)} characters) at step {step!r} cannot be used.",
                f"Keys have 1 to {RUN_KEY_CHARS} characters; steps are 64-bit; times are finite.",
            )
        columns = found.get(key)
        if columns is None:
            columns = found[key] = Columns([], [], [])
        columns.at.append(at)
        columns.step.append(step)
        columns.value.append(value)
    return found


def series_of(series: Any) -> dict[str, Columns]:
    """Series that came by column, {key: {"value", "step", "at"}}, looked over as `columns_of` does."""
    found: dict[str, Columns] = {}
    total = 0
    for key, given in series.items() if isinstance(series, dict) else [("", None)]:
        try:
            columns = Columns([float(t) for t in given["at"]], [int(s) for s in given["step"]], [float(v) for v in given["value"]])
            ends = min(columns.step, default=0), max(columns.step, default=0)
            usable = 0 < len(key) <= RUN_KEY_CHARS and len({len(c) for c in columns}) == 1 and math.isfinite(sum(columns.at))
        except (KeyError, TypeError, ValueError, OverflowError):
            usable = False
        if not usable or not -STEP_MAX <= ends[0] <= ends[1] <= STEP_MAX:
            raise BadInput(
                f"The series {key[:80]!r} cannot be used.",
                f'Send {{key: {{"value": [...], "step": [...], "at": [...]}}}}, lists of one length; keys have 1 to {RUN_KEY_CHARS} characters, steps 64 bits.',
            )
        total += len(columns.at)
        if columns.at:
            found[key] = columns
    if total > METRIC_POINTS:
        raise BadInput(f"{total} metric points were sent at once; at most {METRIC_POINTS} are allowed.", "Send them in several requests.")
    return found


def joined(one: dict[str, Columns], other: dict[str, Columns]) -> dict[str, Columns]:
    """The points of both."""
    both = dict(one)
    for key, columns in other.items():
        have = both.get(key)
        both[key] = columns if have is None else Columns(have.at + columns.at, have.step + columns.step, have.value + columns.value)
    return both


def add(tx: Tx, run: str, points: list[Point]) -> None:
    """Insert points of a run and move its latest values forward. The caller has checked that the run is there; BadInput as `columns_of`."""
    add_columns(tx, {(run, key): columns for key, columns in columns_of(points).items()})


def add_columns(tx: Tx, series: dict[tuple[str, str], Columns]) -> None:
    """`add` for series by (run, key) that are checked. The latest point of a series is the one of highest (step, time, value)."""
    if not series:
        return
    append(tx, series)
    newest = []
    for (run, key), columns in series.items():
        step, at, value = newest_of(columns)
        number, special = (value, None) if math.isfinite(value) else stored(value)
        newest.append((tx.project, run, key, number, special, step, at))
    _LATEST.many(tx, newest)


def newest_of(columns: Columns) -> tuple[int, float, float]:
    """(step, time, value) of the point that counts as a series' latest: nan stands below all numbers."""
    if len(columns.at) == 1:
        return columns.step[0], columns.at[0], columns.value[0]
    if math.isfinite(sum(columns.value)):
        return max(zip(columns.step, columns.at, columns.value, strict=True))
    return max(zip(columns.step, columns.at, columns.value, strict=True), key=lambda p: (p[0], p[1], not math.isnan(p[2]), p[2]))


def history(
    tx: Tx, run: str, key: str, limit: int = HISTORY_POINTS, after: tuple[float, int, int] | None = None
) -> tuple[list[tuple[float | str, int, float]], tuple[float, int, int] | None]:
    """One page of a series by (time, step, value): [(value, step, at)], and the place after it, for `after` (None: no more).

    A point that was sent twice (a client's retry) is answered once.
    """
    start = None
    if after is not None:
        value = _DOUBLE.unpack(_BITS.pack(after[2]))[0]
        start = (after[0], after[1], 0.0 if math.isnan(value) else value, math.isnan(value))
    found, more = page(tx, run, key, limit, start)
    values: list[Any] = found["value"].tolist()
    steps, times = found["step"].tolist(), found["at"].tolist()
    following = (times[-1], steps[-1], _BITS.unpack(_DOUBLE.pack(values[-1]))[0]) if more else None
    return list(zip(told(values), steps, times, strict=True)), following


def sampled(tx: Tx, run: str, key: str, most: int, low: int | None = None, high: int | None = None) -> list[tuple[float | str, int, float]]:
    """At most `most` points of a series, evenly, by step: [(value, step, at)]; see `run_series.sampled`."""
    times, steps, values = run_series.sampled(tx, run, key, most, low, high)
    return list(zip(told(values), steps, times, strict=True))


def told(values: list[Any]) -> list[Any]:
    """Values with a text in place of those that are not finite."""
    if math.isfinite(sum(values)):
        return values
    return [v if math.isfinite(v) else SPECIAL_TEXT[stored(v)[1] or "nan"] for v in values]


def finite(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items whose "value" is not finite get its text instead."""
    return [one if math.isfinite(one["value"]) else {**one, "value": SPECIAL_TEXT[stored(one["value"])[1] or "nan"]} for one in items]


def latest_points(tx: Tx, run: str) -> list[tuple[str, float | str, int, float]]:
    """The latest point of each series of a run, by key: [(key, value, step, at)]."""
    c = latest.c
    rows = tx.conn.execute(sa.select(c.key, c.value, c.special, c.step, c.at).where(c.project == tx.project, c.run == run).order_by(c.key))
    return [(key, value if special is None else SPECIAL_TEXT[special], step, at) for key, value, special, step, at in rows]


def stored(value: float) -> tuple[float | None, str | None]:
    """How a value is kept: (`value`, `special`)."""
    if math.isfinite(value):
        return value, None
    if math.isnan(value):
        return None, "nan"
    return (sys.float_info.max, "inf") if value > 0 else (-sys.float_info.max, "-inf")


def _later(new: Any) -> Any:
    """Whether a point comes after the one that is the latest now."""
    return sa.or_(
        new.step > latest.c.step,
        sa.and_(
            new.step == latest.c.step,
            sa.or_(new.at > latest.c.at, sa.and_(new.at == latest.c.at, sa.or_(latest.c.value.is_(None), new.value >= latest.c.value))),
        ),
    )


_LATEST = Prepared(
    lambda dialect: upsert(latest, dialect, where=_later, columns=("value", "special", "step", "at")),
    *(c.name for c in latest.columns),
)
