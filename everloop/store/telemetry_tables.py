"""The telemetry tables in DuckDB, and how a drained batch enters them: rows and the log's offset in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.store import telemetry_archive, telemetry_infos, telemetry_summaries
from everloop.store.frames import PREDICTION_COLUMNS, SCORE_COLUMNS, SPAN_COLUMNS, Row
from everloop.store.log import Position
from everloop.store.telemetry_signals import LOG_COLUMNS, METRIC_COLUMNS, TYPES

_TYPES = {
    "start_ns": "BIGINT",
    "end_ns": "BIGINT",
    "entry": "BOOLEAN",
    "root": "BOOLEAN",
    "rolled": "BOOLEAN",
    "tokens_in": "INTEGER",
    "tokens_out": "INTEGER",
    "tokens_cached": "INTEGER",
    "cost": "DOUBLE",
    "received_at": "DOUBLE",
    "at": "DOUBLE",
    "value": "DOUBLE",
    **TYPES,
}
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "spans": (SPAN_COLUMNS, ("project", "trace_id", "span_id")),
    "predictions": (PREDICTION_COLUMNS, ("project", "prediction_id")),
    "scores": (SCORE_COLUMNS, ("project", "id")),
    "metrics": (METRIC_COLUMNS, ("project", "id")),
    "logs": (LOG_COLUMNS, ("project", "id")),
}
"""Each table's columns and the columns that make a row unique."""


def connect(file: Path) -> Any:
    """Open the database, its tables made; the caller owns the connection. DuckDB allows one process."""
    import duckdb

    con = duckdb.connect(
        str(file), config={"threads": 2, "memory_limit": "1GB", "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    con.execute("SET checkpoint_threshold = '256MB'")
    con.execute("SET preserve_insertion_order = false")
    for table, (columns, _) in TABLES.items():
        declared = ", ".join(f'"{name}" {_TYPES.get(name, "VARCHAR")}' for name in columns)
        con.execute(f"CREATE TABLE IF NOT EXISTS {table} ({declared})")
    con.execute("ALTER TABLE scores ADD COLUMN IF NOT EXISTS details VARCHAR")
    telemetry_infos.create(con)
    telemetry_archive.create(con)
    con.execute("CREATE TABLE IF NOT EXISTS drained (segment BIGINT, byte BIGINT)")
    telemetry_summaries.create(con)
    return con


def drained(con: Any) -> Position:
    """The position in the log up to which everything is in the tables."""
    row = con.execute("SELECT segment, byte FROM drained").fetchone()
    return Position(*row) if row else Position(0, 0)


def insert(con: Any, batch: Mapping[str, Sequence[Any]], position: Position, split: Iterable[str] = ()) -> None:
    """Add rows that are not there yet, replace scores, fold what is told of traces, keep the traces' own rows true, and note the position, all or
    nothing. `split` are ids of traces whose spans came in several frames."""
    con.execute("BEGIN")
    try:
        for table in ("predictions", "metrics", "logs"):
            if batch[table]:
                _insert(con, table, batch[table])
        if batch["scores"]:
            _insert_scores(con, batch["scores"])
        fresh: Any = _insert(con, "spans", batch["spans"]) if batch["spans"] else ()
        gone, told = telemetry_infos.apply(con, batch["infos"]) if batch["infos"] else (set(), set())
        if len(fresh):
            telemetry_summaries.add(con, fresh, split)
            told -= set(zip(*(fresh[name].to_pylist() for name in ("project", "trace_id")), strict=True)) if told else set()
        telemetry_summaries.refresh(con, gone | told)
        con.execute("DELETE FROM drained")
        con.execute("INSERT INTO drained VALUES (?, ?)", list(position))
        telemetry_summaries.mark(con, position)
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise


def _insert(con: Any, table: str, rows: Sequence[Row]) -> Any:
    """Insert the rows that are not there yet; answers them as an Arrow table."""
    import pyarrow as pa

    columns, unique = TABLES[table]
    places = [columns.index(name) for name in unique]
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        kept.setdefault(tuple(row[i] for i in places), row)
    arrow = pa.table({name: pa.array(values, _arrow(pa, name)) for name, values in zip(columns, zip(*kept.values(), strict=True), strict=True)})
    there = _there(con, table, arrow)
    if there:
        arrow = arrow.filter(pa.array([i not in there for i in range(len(arrow))]))
    con.register("batch", arrow)
    try:
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")
    finally:
        con.unregister("batch")
    return arrow


def _there(con: Any, table: str, arrow: Any) -> set[int]:
    """Which rows of a batch the table has already. Only the keys are joined (whole rows in a join cost five times the insert), and of spans only
    those that began in the batch's range of time, which the table finds without reading the rest: a span sent again begins when it began. The same
    holds for points and records."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns, unique = TABLES[table]
    keys = arrow.select(unique).append_column("place", pa.array(range(len(arrow)), pa.int64()))
    within, values = "", []
    time = next((name for name in ("start_ns", "at_ns") if name in columns), None)
    if time is not None:
        ends = pc.min_max(arrow[time])
        within, values = f"WHERE t.{time} BETWEEN ? AND ?", [ends["min"].as_py(), ends["max"].as_py()]
    same = " AND ".join(f't."{name}" = k."{name}"' for name in unique)
    con.register("keys", keys)
    try:
        return {row[0] for row in con.execute(f"SELECT k.place FROM {table} t JOIN keys k ON {same} {within}", values).fetchall()}
    finally:
        con.unregister("keys")


def _insert_scores(con: Any, rows: Sequence[Row]) -> None:
    """Add scores; of several with one id the last stays, and one whose last has no name is taken away."""
    columns, _ = TABLES["scores"]
    project, id, name = (columns.index(column) for column in ("project", "id", "name"))
    last = {(row[project], row[id]): row for row in rows}
    con.execute(
        "DELETE FROM scores WHERE (project, id) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[])))",
        [[key[0] for key in last], [key[1] for key in last]],
    )
    kept = [row for row in last.values() if row[name] is not None]
    if kept:
        _insert(con, "scores", kept)


def _arrow(pa: Any, column: str) -> Any:
    return {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}.get(_TYPES.get(column, ""), pa.string())
