"""Metric series in packed blocks: whatever way points come, they are read in MLflow's order, once each, page by page."""

from __future__ import annotations

import math
import random

from everloop.assets import run_metrics, run_series, runs
from everloop.assets.run_metrics import Point
from everloop.core.principal import Principal
from everloop.store.records import Records
from everloop.store.schema import metric_blocks


def started(records: Records, who: Principal) -> str:
    return str(records.write_sync(who, lambda tx: runs.create(tx, "r", "training")["id"]))


def log(records: Records, who: Principal, run: str, points: list[Point]) -> None:
    records.write_sync(who, lambda tx: runs.log(tx, run, points=points))


def pages(records: Records, who: Principal, run: str, size: int) -> list[tuple[float | str, int, float]]:
    found, after = [], None
    while True:
        page, after = records.read_sync(who, lambda tx, after=after: run_metrics.history(tx, run, "m", size, after))
        found += page
        if after is None:
            return found
        assert len(page) == size


def test_series_come_back_in_order_and_once_whatever_the_batches(records: Records, who: Principal) -> None:
    rng = random.Random(3)
    values = [1.0, 0.5, math.nan, math.inf, -math.inf, 2.0]
    points = [Point("m", rng.choice(values), rng.randrange(40), 100.0 + rng.randrange(30)) for _ in range(3000)]
    run, at = started(records, who), 0
    while at < len(points):
        size = rng.choice((1, 1, 1, 7, 300))
        log(records, who, run, points[at : at + size])
        at += size

    def place(p: tuple[float, int, float]) -> tuple[float, int, float, bool]:
        return p[2], p[1], 0.0 if math.isnan(p[0]) else p[0], math.isnan(p[0])

    once = {place((p.value, p.step, p.at)): p for p in points}
    wanted = [
        (p.value if math.isfinite(p.value) else run_metrics.SPECIAL_TEXT[run_metrics.stored(p.value)[1] or ""], p.step, p.at)
        for _, p in sorted(once.items())
    ]
    for size in (7, 1000, 50_000):
        assert pages(records, who, run, size) == wanted, size


def test_points_that_come_one_by_one_share_blocks(records: Records, who: Principal) -> None:
    run = started(records, who)
    for i in range(600):
        log(records, who, run, [Point("m", float(i), i, 50.0 + i)])
    log(records, who, run, [Point("m", float(i), i, 50.0 + i) for i in range(600, 20_600)])
    rows = records.read_sync(who, lambda tx: tx.rows(metric_blocks.select()))
    assert len(rows) == 3 + 3 and sum(row["points"] for row in rows) == 20_600
    assert records.read_sync(who, lambda tx: run_series.count(tx, run, "m")) == 20_600
    assert [p[1] for p in pages(records, who, run, 5000)] == list(range(20_600))


def test_a_thinned_series_keeps_every_peak_and_the_last_point(records: Records, who: Principal) -> None:
    run = started(records, who)
    points = [Point("m", math.sin(i / 50), i, float(i)) for i in range(10_000)]
    points[5003] = Point("m", 9.0, 5003, 5003.0)
    points[7001] = Point("m", math.nan, 7001, 7001.0)
    log(records, who, run, points)
    thin = records.read_sync(who, lambda tx: run_series.thin(tx, run, "m", 100))
    assert len(thin) == 100 and sum(p["n"] for p in thin) == 10_000
    assert [p["step"] for p in thin if p["max"] == 9.0] == [5099] and thin[-1]["step"] == 9999 and thin[-1]["value"] == points[-1].value
    assert all(p["min"] <= p["value"] <= p["max"] for p in thin)
    part = records.read_sync(who, lambda tx: run_series.thin(tx, run, "m", 100, 10, 29))
    assert [(p["step"], p["n"], p["min"] == p["max"] == p["value"]) for p in part] == [(i, 1, True) for i in range(10, 30)]
    assert records.read_sync(who, lambda tx: run_series.thin(tx, run, "none", 100)) == []
