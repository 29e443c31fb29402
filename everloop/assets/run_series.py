"""A run's metric series as they are kept: blocks of packed points, read back in order, page by page, or thinned for a chart.

A point is 24 bytes: time (f64), step (i64), value (f64; nan and infinities too), little-endian, in the order in which it came. A series grows at its
last block while that holds fewer than TAIL points; a large batch becomes a block of its own. So a series of a million points that came one by one is some
thousand rows, and one that came in thousands is a thousand.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from everloop.store.prepared import Prepared
from everloop.store.records import Tx
from everloop.store.schema import metric_blocks as table

TAIL = 256
"""A block of fewer points takes more."""
BLOCK = 8_192
"""Points of one block at most."""
POINT = struct.Struct("<dqd")
SIZE = POINT.size


class Columns(NamedTuple):
    """Points of one series, by column: times (epoch seconds), steps, values."""

    at: list[float]
    step: list[int]
    value: list[float]


def _of(*more: Any) -> list[Any]:
    c = table.c
    return [c.project == sa.bindparam("project"), c.run == sa.bindparam("run"), c.key == sa.bindparam("key"), *more]


_TAIL = Prepared(
    sa.select(table.c.id, table.c.points, table.c.first, table.c.last, sa.case((table.c.points < sa.literal_column(str(TAIL)), table.c.data)))
    .where(*_of())
    .order_by(table.c.id.desc())
    .limit(sa.literal_column("1"))
    .with_for_update(),  # where others write too (PostgreSQL), nobody else grows it meanwhile
    *("project", "run", "key"),
)
_GROW = Prepared(
    table.update()
    .where(*_of(table.c.id == sa.bindparam("of_id")))
    .values({name: sa.bindparam(f"new_{name}") for name in ("points", "first", "last", "data")}),
    *("new_points", "new_first", "new_last", "new_data", "project", "run", "key", "of_id"),
)
_INSERT = Prepared(table.insert(), *(c.name for c in table.columns))
_id_lock = threading.Lock()
_last_id = 0


def append(tx: Tx, series: dict[tuple[str, str], Columns]) -> None:
    """Add points to series, by (run, key). Steps are of 64 bits and times finite: the caller has checked."""
    new = []
    for (run, key), columns in series.items():
        data = b"".join(map(POINT.pack, *columns))
        low, high = min(columns.at), max(columns.at)
        if len(data) < TAIL * SIZE:
            tail = _TAIL.row(tx, tx.project, run, key)
            if tail is not None and tail[1] < TAIL:
                id, count, first, last, old = tail
                _GROW.run(tx, count + len(columns.at), min(first, low), max(last, high), bytes(old) + data, tx.project, run, key, id)
                continue
        if len(data) <= BLOCK * SIZE:
            new.append((tx.project, run, key, _new_id(), len(columns.at), low, high, data))
            continue
        for start in range(0, len(columns.at), BLOCK):
            times = columns.at[start : start + BLOCK]
            part = data[start * SIZE : (start + BLOCK) * SIZE]
            new.append((tx.project, run, key, _new_id(), len(times), min(times), max(times), part))
    if new:
        _INSERT.many(tx, new)


def page(tx: Tx, run: str, key: str, limit: int, after: tuple[float, int, float, bool] | None) -> tuple[Any, bool]:
    """(points in order from `after` on, at most `limit`, as an array with fields at, step, value; whether there are more).

    In order of time, step and value, nan last; a point that came twice (a client's retry) is answered once, as MLflow does. No more blocks are in
    memory than overlap the page.
    """
    import numpy as np

    held: Any = np.empty(0, dtype=_dtype())
    blocks = _blocks(tx, run, key, None if after is None else after[0])
    for block, next_first in _with_next(blocks):
        held = np.concatenate((held, block)) if len(held) else block
        whole = len(held) if next_first is None else int((held["at"] < next_first).sum())  # what no later block can come before
        if whole <= limit and next_first is not None:
            continue
        found = _ordered(held, after)
        settled = len(found) if next_first is None else int((found["at"] < next_first).sum())
        if settled > limit:
            return found[:limit], True
        held = found  # fewer than they seemed to be: some came twice, or lie before `after`
    found = _ordered(held, after)
    return found[:limit], len(found) > limit


def sampled(tx: Tx, run: str, key: str, most: int, low: int | None = None, high: int | None = None) -> tuple[list[float], list[int], list[float]]:
    """(times, steps, values) of at most `most` of a series' points, in order of step and time: the first of each of as many pieces of as equal a length
    as can be, and the last point of all in the last one's place. `low` and `high` bound the steps; a point that came twice counts once.
    """
    import numpy as np

    points = _ordered(_between(tx, run, key, low, high), None)
    points = points[np.lexsort((points["at"], points["step"]))]
    if len(points) > most:
        size, longer = divmod(len(points), most)
        piece = np.arange(most)
        chosen = piece * size + np.minimum(piece, longer)
        chosen[-1] = len(points) - 1
        points = points[chosen]
    return points["at"].tolist(), points["step"].tolist(), points["value"].tolist()


def thin(tx: Tx, run: str, key: str, buckets: int, low: int | None = None, high: int | None = None) -> list[dict[str, Any]]:
    """A series for a chart: at most `buckets` pieces of as many points each, in order of step: {"step", "at", "value" (of the piece's last point), "min", "max",
    "n"}. `min` and `max` are over finite values, None where there is none. `low` and `high` bound the steps.
    """
    import numpy as np

    points = _between(tx, run, key, low, high)
    if not len(points):
        return []
    if np.any(np.diff(points["step"]) < 0):
        points = points[np.lexsort((points["at"], points["step"]))]
    edges = np.linspace(0, len(points), min(buckets, len(points)) + 1).astype(np.int64)
    starts, ends = edges[:-1], edges[1:]
    value = points["value"]
    finite = np.isfinite(value)
    lows = np.minimum.reduceat(np.where(finite, value, np.inf), starts)
    highs = np.maximum.reduceat(np.where(finite, value, -np.inf), starts)
    last = points[ends - 1]
    columns = (last["step"], last["at"], last["value"], lows, highs, ends - starts)
    return [
        {"step": s, "at": at, "value": v, "min": lo if lo <= hi else None, "max": hi if lo <= hi else None, "n": n}
        for s, at, v, lo, hi, n in zip(*(column.tolist() for column in columns), strict=True)
    ]


def count(tx: Tx, run: str, key: str) -> int:
    """How many points a series has (one that came twice counts twice)."""
    return int(tx.value(sa.select(sa.func.sum(table.c.points)).where(table.c.project == tx.project, table.c.run == run, table.c.key == key)) or 0)


def counts(tx: Tx, runs: Sequence[str], key: str | None = None) -> dict[str, int]:
    """How many points each series (or the one of a `key`) of some runs has, together: {key: points}, by key."""
    statement = sa.select(table.c.key, sa.func.sum(table.c.points)).where(table.c.project == tx.project, table.c.run.in_(list(runs)))
    if key is not None:
        statement = statement.where(table.c.key == key)
    return {key: int(points) for key, points in tx.conn.execute(statement.group_by(table.c.key).order_by(table.c.key))}


def _new_id() -> int:
    """Rising in this process, and above what an earlier one gave out, as far as clocks can be trusted."""
    global _last_id
    with _id_lock:
        _last_id = max(_last_id + 1, time.time_ns())
        return _last_id


def _dtype() -> list[tuple[str, str]]:
    return [("at", "<f8"), ("step", "<i8"), ("value", "<f8")]


def _blocks(tx: Tx, run: str, key: str, since: float | None) -> Iterator[Any]:
    """The blocks of a series that reach `since`, by their least time, as arrays."""
    import numpy as np

    where = [table.c.project == tx.project, table.c.run == run, table.c.key == key]
    if since is not None:
        where.append(table.c.last >= since)
    rows = tx.conn.execute(
        sa.select(table.c.data).where(*where).order_by(table.c.first, table.c.id).execution_options(yield_per=16)  # a page seldom needs them all
    )
    for (data,) in rows:
        yield np.frombuffer(data, dtype=_dtype())


def _between(tx: Tx, run: str, key: str, low: int | None, high: int | None) -> Any:
    """All points of a series with steps between two bounds, as they came."""
    import numpy as np

    parts = list(_blocks(tx, run, key, None))
    points = np.concatenate(parts) if parts else np.empty(0, dtype=_dtype())
    del parts
    if len(points) and (low is not None or high is not None):
        step = points["step"]
        points = points[(step >= (step.min() if low is None else low)) & (step <= (step.max() if high is None else high))]
    return points


def _with_next(blocks: Iterable[Any]) -> Iterator[tuple[Any, float | None]]:
    """Each block, and the least time of the next one."""
    held = None
    for block in blocks:
        if held is not None:
            yield held, float(block["at"].min())
        held = block
    if held is not None:
        yield held, None


def _ordered(points: Any, after: tuple[float, int, float, bool] | None) -> Any:
    """Points in order, each once, those up to `after` left out."""
    import numpy as np

    if not len(points):
        return points
    nan = np.isnan(points["value"])
    value = np.where(nan, 0.0, points["value"])
    order = np.lexsort((nan, value, points["step"], points["at"]))
    points, nan, value = points[order], nan[order], value[order]
    at, step = points["at"], points["step"]
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = (np.diff(at) != 0) | (np.diff(step) != 0) | (value[1:] != value[:-1]) | (nan[1:] != nan[:-1])
    if after is not None:
        t, s, v, n = after
        more = (value > v) | ((value == v) & (nan > n))
        keep &= (at > t) | ((at == t) & ((step > s) | ((step == s) & more)))
    return points[keep]
