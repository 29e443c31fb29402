"""`kill -9` at random moments, again and again in one home: of what was acknowledged nothing is lost, and nothing is there twice.

Three ways in at once: telemetry (durable, and the hot path's `add_soon`), records, and objects. EVERLOOP_KILLS says how often (default 30). A kill
shows what reached the operating system; that an fsync comes before each acknowledgement is tested in test_log.py, test_objects.py and below.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from everloop.core.principal import SYSTEM
from everloop.store.objects import Objects
from everloop.store.records import Records
from everloop.store.telemetry import Telemetry

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["everloop.store.telemetry", "everloop.store.records", "everloop.store.objects", "duckdb", "pyarrow"])


def write(home: str, acknowledge: Any) -> None:
    """The victim: writes on every path, and says what was acknowledged, until it is killed."""
    from everloop.core.clock import new_span_id, new_trace_id
    from everloop.core.types import Span
    from everloop.store import telemetry
    from everloop.store.schema import projects

    telemetry.DRAIN_SECONDS = 0.01
    store = Telemetry(Path(home))
    store.log.segment_bytes = 50_000
    store.open()
    records, objects = Records.at(Path(home)).open(), Objects(Path(home) / "objects")
    lock = threading.Lock()

    def spans(n: int) -> list[Span]:
        trace = new_trace_id()
        return [Span(trace, new_span_id(), None, "x", "CHAIN", 1, 2, "ok", {"pad": "p" * 200}, inputs="some text") for _ in range(n)]

    def told(what: str, *ids: str) -> None:
        with lock:
            acknowledge.send((what, ids))

    def durable() -> None:
        while True:
            made = spans(20)
            scores = [{"id": s.span_id, "subject": s.trace_id, "name": "n", "value": 1, "at": 1.0} for s in made]
            told_too = [{"id": s.span_id, "name": "m", "type": "gauge", "series": "s", "at_ns": 1, "value": 1.0} for s in made]
            [f.result() for f in store.add("default", made, scores=scores, metrics=told_too, logs=[{"id": s.span_id, "at_ns": 1} for s in made])]
            told("spans", *(s.span_id for s in made))
            for what in ("scores", "metrics", "logs"):
                told(what, *(s.span_id for s in made))

    def soon() -> None:
        while True:
            made = spans(1)
            store.add_soon("default", made, [{"prediction_id": made[0].span_id, "at": 1.0, "endpoint": "e"}])
            told("spans", made[0].span_id)
            told("predictions", made[0].span_id)

    def recorded() -> None:
        while True:
            name = new_span_id()
            row = {"name": name, "created_at": 0.0, "created_by": "t", "settings": {}}
            records.write_sync(SYSTEM, lambda tx, row=row: tx.run(projects.insert().values(**row)))
            told("records", name)

    def kept() -> None:
        while True:
            told("objects", objects.put("default", os.urandom(random.choice((100, 3_000_000))))[0])

    for work in (durable, durable, soon, recorded, kept):
        threading.Thread(target=work, daemon=True).start()
    threading.Event().wait()


def crash(home: Path, seconds: float, seen: dict[str, set[str]]) -> None:
    """Run the writer, kill it `seconds` after its first acknowledgement, and take down what it had acknowledged."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=write, args=(str(home), theirs))
    child.start()
    theirs.close()
    assert ours.poll(60), "the writer did not start"
    until = time.monotonic() + seconds
    killed = False
    while True:
        if not killed and time.monotonic() >= until:
            os.kill(child.pid or 0, signal.SIGKILL)
            killed = True
        try:
            if ours.poll(0.01):
                what, ids = ours.recv()
                seen.setdefault(what, set()).update(ids)
        except (EOFError, OSError):
            break
    child.join(20)
    assert child.exitcode == -signal.SIGKILL


def run(home: Path, kills: int) -> dict[str, int]:
    """Kill `kills` times, then compare; answers how much was acknowledged."""
    dice = random.Random(7)
    seen: dict[str, set[str]] = {what: set() for what in ("spans", "scores", "predictions", "metrics", "logs", "records", "objects")}
    for _ in range(kills):
        crash(home, dice.uniform(0.0, 0.4), seen)
    store, records, objects = Telemetry(home, fsync=False).open(), Records.at(home).open(), Objects(home / "objects")
    try:
        store.flush_sync(120)
        for table, column in (("spans", "span_id"), ("scores", "id"), ("predictions", "prediction_id"), ("metrics", "id"), ("logs", "id")):
            rows = [r[0] for r in store.query_sync(lambda con, t=table, c=column: con.execute(f"SELECT {c} FROM {t}").fetchall())]
            assert len(rows) == len(set(rows)), f"{table}: something is there twice"
            assert not seen[table] - set(rows), f"{table}: {len(seen[table] - set(rows))} of {len(seen[table])} lost"
        assert store.rejected == 0 and store.log.damaged_bytes == 0
        assert store.text is not None and store.text.count() == len(store.query_sync(lambda con: con.execute("SELECT 1 FROM spans").fetchall()))
        names = records.read_sync(SYSTEM, lambda tx: set(tx.conn.execute(sa.text("select name from projects")).scalars()))
        assert not seen["records"] - names, f"{len(seen['records'] - names)} of {len(seen['records'])} records lost"
        for digest in seen["objects"]:
            objects.get("default", digest)
    finally:
        store.close()
        records.close()
    return {what: len(ids) for what, ids in seen.items()}


def test_three_kills(tmp_path: Path) -> None:
    assert sum(run(tmp_path, 3).values()) >= 3  # at least what each life began by acknowledging


@pytest.mark.check
@pytest.mark.timeout(900)
def test_many_kills(tmp_path: Path) -> None:
    kills = int(os.environ.get("EVERLOOP_KILLS", "30"))
    print(f"{kills} kills, acknowledged and there: {run(tmp_path, kills)}")


def test_records_are_synced_at_each_commit(tmp_path: Path) -> None:
    """SQLite fsyncs its write-ahead log at every commit only with synchronous=FULL (2)."""
    records = Records.at(tmp_path).open()
    found = records.write_sync(SYSTEM, lambda tx: [tx.conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")])
    records.close()
    assert found == ["wal", 2]
