"""Metric series of runs: the hot path of tracking. A batch is one executemany into the points and one upsert of the latest values.

A value that is not finite keeps its kind in `special` ("nan", "inf", "-inf"); infinities also keep the largest float as `value`, so that
they sort and compare as such, and nan keeps null.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import sqlalchemy as sa

from everloop.core.errors import BadInput
from everloop.core.limits import HISTORY_POINTS, METRIC_POINTS, RUN_KEY_CHARS
from everloop.store.records import Tx
from everloop.store.schema import metric_points
from everloop.store.schema import run_metrics as latest

SPECIAL_TEXT = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""How a value that is not finite is written in JSON."""
STEP_MAX = 2**63 - 1


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


def add(tx: Tx, run: str, points: list[Point]) -> None:
    """Insert points of a run and move its latest values forward: the latest of a key is the one of highest (step, time, value).

    The caller has checked that the run is there. BadInput for a bad key, step or time, or more than METRIC_POINTS points.
    """
    if len(points) > METRIC_POINTS:
        raise BadInput(f"{len(points)} metric points were sent at once; at most {METRIC_POINTS} are allowed.", "Send them in several requests.")
    project = tx.project
    rows: list[dict[str, Any]] = []
    newest: dict[str, tuple[tuple[int, float, float], dict[str, Any]]] = {}
    for key, value, step, at in points:
        if not key or len(key) > RUN_KEY_CHARS or not -STEP_MAX <= step <= STEP_MAX or not math.isfinite(at):
            raise BadInput(f"The metric {key!r} at step {step!r} cannot be used.", f"Keys have 1 to {RUN_KEY_CHARS} characters; steps are 64-bit.")
        number, special = (value, None) if math.isfinite(value) else stored(value)
        row = {"project": project, "run": run, "key": key, "value": number, "special": special, "step": step, "at": at}
        rows.append(row)
        order = (step, at, -math.inf if number is None else number)
        if key not in newest or order >= newest[key][0]:
            newest[key] = (order, row)
    if rows:
        tx.run(_INSERT, rows)
        tx.run(_latest(tx.conn.dialect.name), [row for _, row in newest.values()])


def history(
    tx: Tx, run: str, key: str, limit: int = HISTORY_POINTS, after: tuple[float, int, int] | None = None
) -> tuple[list[tuple[float | str, int, float]], tuple[float, int, int] | None]:
    """One page of a series by (time, step): [(value, step, at)], and where the next page starts (None: no more).

    A point that was sent twice (a client's retry) is answered once.
    """
    p = metric_points.c
    statement = sa.select(p.value, p.special, p.step, p.at, p.id).where(p.project == tx.project, p.run == run, p.key == key)
    if after is not None:
        statement = statement.where(sa.tuple_(p.at, p.step, p.id) > after)
    rows = tx.conn.execute(statement.order_by(p.at, p.step, p.id).limit(limit + 1)).all()
    more = len(rows) > limit
    found: list[tuple[float | str, int, float]] = []
    seen: set[Any] = set()
    moment: Any = None
    for value, special, step, at, _id in rows[:limit]:
        if (at, step) != moment:
            moment = (at, step)
            seen.clear()
        if (value, special) in seen:
            continue
        seen.add((value, special))
        found.append((value if special is None else SPECIAL_TEXT[special], step, at))
    last = rows[limit - 1] if more else None
    return found, (last[3], last[2], last[4]) if last is not None else None


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


def _upsert(insert: Any) -> Any:
    statement = insert(latest)
    new = statement.excluded
    later = sa.or_(
        new.step > latest.c.step,
        sa.and_(
            new.step == latest.c.step,
            sa.or_(new.at > latest.c.at, sa.and_(new.at == latest.c.at, sa.or_(latest.c.value.is_(None), new.value >= latest.c.value))),
        ),
    )
    return statement.on_conflict_do_update(
        index_elements=["project", "run", "key"],
        set_={"value": new.value, "special": new.special, "step": new.step, "at": new.at},
        where=later,
    )


def _latest(dialect: str) -> Any:
    if dialect not in _STATEMENTS:
        if dialect == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        _STATEMENTS[dialect] = _upsert(insert)
    return _STATEMENTS[dialect]


_INSERT = metric_points.insert()
_STATEMENTS: dict[str, Any] = {}
