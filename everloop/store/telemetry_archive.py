"""Traces that were moved out of the database: Parquet files in the place of objects, one set a part of a day, read beside the tables by the same SQL.

    <project>/archive/<day>/<part>.<table>.parquet

A part holds whole traces: all rows of theirs in every table that has a project and a trace id, with the table's own types, zstd compressed. The
database lists the parts and which trace lies in which; that list and the rows' deletion are one transaction, made after the files were read back
and proved whole. So a crash leaves files that nothing lists (they are removed), or both; never a trace that is nowhere.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from everloop.core.errors import Corrupt
from everloop.core.limits import ARCHIVE_ROW_GROUP, ARCHIVE_ZSTD
from everloop.store.files import temp_name
from everloop.store.objects import digest_of
from everloop.store.places import Place

NS = 1_000_000_000
_LAST = {
    "infos": " QUALIFY row_number() OVER (PARTITION BY project, trace_id ORDER BY received_at DESC) = 1",
    "traces": " QUALIFY row_number() OVER (PARTITION BY project, trace_id ORDER BY spans DESC) = 1",
    "scores": " QUALIFY row_number() OVER (PARTITION BY project, id ORDER BY received_at DESC) = 1",
}
"""Of tables whose rows are replaced: what is told after a trace was archived counts, the archived row beside it no more."""
OWN = ("archive_parts", "archive_traces")
_TIMES = {"start_ns": 1, "at_ns": 1, "at_ms": 1_000_000, "at": NS}
"""Columns that say when, and how many nanoseconds one of their units has."""
_KEYS = {"spans": ("trace_id", "span_id"), "traces": ("trace_id",), "predictions": ("prediction_id",), "logs": ("id",)}
"""What makes a row of a table the same as one that is archived already."""


@dataclass(frozen=True)
class Part:
    """One part: `tables` are {table: {"key", "digest", "rows", "bytes"}}; times are epoch nanoseconds of its first and last row."""

    project: str
    part: str
    day: str
    since_ns: int
    until_ns: int
    traces: int
    tables: Mapping[str, Mapping[str, Any]]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(int(one["rows"]) for one in self.tables.values())

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(one["bytes"]) for one in self.tables.values())


def create(con: Any) -> None:
    """Make the lists where they are missing."""
    con.execute(
        "CREATE TABLE IF NOT EXISTS archive_parts "
        "(project VARCHAR, part VARCHAR, day VARCHAR, since_ns BIGINT, until_ns BIGINT, traces BIGINT, tables VARCHAR)"
    )
    con.execute("CREATE TABLE IF NOT EXISTS archive_traces (project VARCHAR, trace_id VARCHAR, part VARCHAR)")


def tables_of(con: Any) -> list[str]:
    """The tables that hold rows of traces: all with a project and a trace id."""
    rows = con.execute(
        "SELECT table_name FROM duckdb_columns() WHERE NOT internal AND database_name = current_database() AND schema_name = 'main' "
        "AND column_name IN ('project', 'trace_id') GROUP BY table_name HAVING count(*) = 2 ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in rows if name not in OWN]


def rows_of(con: Any, project: str, traces: Sequence[str]) -> dict[str, Any]:
    """All rows of these traces, as an Arrow table each; tables with none are left out."""
    found = {}
    for table in tables_of(con):
        question = f'SELECT * FROM "{table}" WHERE project = ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))'
        rows = con.sql(question, params=[project, list(traces)]).to_arrow_table()
        if len(rows):
            found[table] = rows
    return found


def delete_rows(con: Any, project: str, traces: Sequence[str]) -> dict[str, int]:
    """Delete all rows of these traces; answers how many by table. Inside the caller's transaction."""
    counts = {}
    for table in tables_of(con):
        [count] = con.execute(
            f'DELETE FROM "{table}" WHERE project = ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))', [project, list(traces)]
        ).fetchone()
        if count:
            counts[table] = int(count)
    return counts


def day_of(ns: int) -> str:
    """The day (UTC) of a moment: 2026-11-24."""
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=max(-700_000, min(2_900_000, ns // (86_400 * NS)))))


class Archive:
    """The archive of one home. `place` gives where objects lie, `key(project)` a project's folder there; `cache` holds copies of files in a bucket."""

    def __init__(self, place: Callable[[], Place], key: Callable[[str], str], cache: Path) -> None:
        self._place, self._key, self.cache = place, key, cache
        self._parts: dict[str, dict[str, Part]] = {}
        self._lock = threading.Lock()

    def load(self, con: Any) -> None:
        """Read the list of parts; what changes it later keeps it in step."""
        rows = con.execute("SELECT project, part, day, since_ns, until_ns, traces, tables FROM archive_parts").fetchall()
        with self._lock:
            self._parts = {}
            for project, part, day, since, until, traces, tables in rows:
                self._parts.setdefault(project, {})[part] = Part(project, part, day, since, until, traces, orjson.loads(tables))

    def parts(self, project: str, since: float | None = None, until: float | None = None) -> list[Part]:
        """The parts that a range of time (epoch seconds) touches, oldest first."""
        low = None if since is None else int(since * NS)
        high = None if until is None else int(until * NS)
        with self._lock:
            own = list(self._parts.get(project, {}).values())
        touched = [one for one in own if (low is None or one.until_ns >= low) and (high is None or one.since_ns < high)]
        return sorted(touched, key=lambda one: (one.since_ns, one.part))

    def everything(self) -> list[Part]:
        """All parts of all projects."""
        with self._lock:
            return [part for own in self._parts.values() for part in own.values()]

    def holding(self, con: Any, project: str, traces: Sequence[str]) -> list[Part]:
        """The parts in which any of these traces lie."""
        if not self._parts.get(project):
            return []
        rows = con.execute(
            "SELECT DISTINCT part FROM archive_traces WHERE project = ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))", [project, list(traces)]
        ).fetchall()
        with self._lock:
            own = self._parts.get(project, {})
            return [own[part] for (part,) in rows if part in own]

    # -- writing ------------------------------------------------------------------------------------------------------------------------

    def write(self, project: str, day: str, tables: Mapping[str, Any]) -> Part:
        """Write Arrow tables as a part and read it back. Raises Corrupt where what is read is not what was written, NoSpace where it does not fit.

        The same rows give the same files, so that a second try after a crash writes over the first.
        """
        traces = sorted({trace for rows in tables.values() for trace in rows["trace_id"].to_pylist()})
        files = {name: _parquet(rows) for name, rows in sorted(tables.items())}
        part = digest_of(b"\0".join([*(t.encode() for t in traces), *files.values()]))[:24]
        listed = {}
        for name, data in files.items():
            key = f"{self._key(project)}/archive/{day}/{part}.{name}.parquet"
            self._place().write(key, [data])
            listed[name] = {"key": key, "digest": digest_of(data), "rows": len(tables[name]), "bytes": len(data)}
        times = [moment for rows in tables.values() for moment in _extent(rows)]
        made = Part(project, part, day, min(times, default=0), max(times, default=0), len(traces), listed)
        self.verify(made)
        return made

    def verify(self, part: Part) -> None:
        """Read a part's files and check digest and rows. Raises Corrupt."""
        import pyarrow.parquet as pq

        for name, told in part.tables.items():
            try:
                data = self._place().read(told["key"])
            except FileNotFoundError:
                raise Corrupt(f"The archive file {told['key']} is missing.", "Restore it from a backup.") from None
            if digest_of(data) != told["digest"] or pq.ParquetFile(io.BytesIO(data)).metadata.num_rows != told["rows"]:
                raise Corrupt(f"The archive file {told['key']} of {name} does not match its digest.", "Restore it from a backup.")

    def fresh(self, con: Any, project: str, tables: dict[str, Any]) -> dict[str, Any]:
        """Rows to archive without those that are archived already: a span that was sent once more after its trace was."""
        import pyarrow as pa

        traces = sorted({trace for rows in tables.values() for trace in rows["trace_id"].to_pylist()})
        known = self.holding(con, project, traces)
        for name, keys in _KEYS.items():
            if not known or name not in tables:
                continue
            old = {row for part in known if name in part.tables for row in _key_rows(self.read(part, name), keys)}
            kept = [row not in old for row in _key_rows(tables[name], keys)]
            tables[name] = tables[name].filter(pa.array(kept))
        return {name: rows for name, rows in tables.items() if len(rows)}

    def list_part(self, con: Any, part: Part, traces: Iterable[str]) -> None:
        """Put a part on the list; inside the caller's transaction, `added` after its commit."""
        row = [part.project, part.part, part.day, part.since_ns, part.until_ns, part.traces, orjson.dumps(dict(part.tables)).decode()]
        con.execute("DELETE FROM archive_parts WHERE project = ? AND part = ?", [part.project, part.part])
        con.execute("DELETE FROM archive_traces WHERE project = ? AND part = ?", [part.project, part.part])
        con.execute("INSERT INTO archive_parts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        con.execute("INSERT INTO archive_traces SELECT ?, unnest(?::VARCHAR[]), ?", [part.project, list(traces), part.part])

    def unlist_part(self, con: Any, part: Part) -> None:
        """Take a part off the list; inside the caller's transaction, `removed` after its commit."""
        for table in OWN:
            con.execute(f"DELETE FROM {table} WHERE project = ? AND part = ?", [part.project, part.part])

    def added(self, part: Part) -> None:
        """A part is on the list from now on."""
        with self._lock:
            self._parts.setdefault(part.project, {})[part.part] = part

    def removed(self, part: Part) -> None:
        """A part is off the list: its files go."""
        with self._lock:
            self._parts.get(part.project, {}).pop(part.part, None)
        self.discard(part)

    def discard(self, part: Part) -> None:
        """Delete the files of a part that is not on the list, and copies of them."""
        with self._lock:
            if part.part in self._parts.get(part.project, {}):
                return
        for told in part.tables.values():
            self._place().remove(told["key"])
            (self.cache / told["digest"]).unlink(missing_ok=True)

    def orphans(self, project: str, before: float) -> int:
        """Delete files that no part lists, last written before that time: what a crash left. Answers how many."""
        with self._lock:
            listed = {told["key"] for part in self._parts.get(project, {}).values() for told in part.tables.values()}
        gone = 0
        for found in list(self._place().list(f"{self._key(project)}/archive")):
            if found.key not in listed and found.at < before:
                gone += self._place().remove(found.key)
        return gone

    # -- reading ------------------------------------------------------------------------------------------------------------------------

    def read(self, part: Part, table: str) -> Any:
        """One table of a part, in Arrow."""
        import pyarrow.parquet as pq

        return pq.read_table(io.BytesIO(self._place().read(part.tables[table]["key"])))

    def file(self, told: Mapping[str, Any]) -> str:
        """The path of a part's file; one that lies in a bucket is fetched once."""
        here = self._place().file(told["key"])
        if here is not None:
            return str(here)
        copy = self.cache / told["digest"]
        if not copy.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            fresh = temp_name(self.cache)
            fresh.write_bytes(self._place().read(told["key"]))
            os.replace(fresh, copy)
        return str(copy)

    def widen(self, cursor: Any, parts: Sequence[Part]) -> None:
        """Let the tables' names mean tables and parts together, for this cursor alone."""
        [base] = cursor.execute("SELECT current_database()").fetchone()
        for table in sorted({name for part in parts for name in part.tables}):
            files = [self.file(part.tables[table]) for part in parts if table in part.tables]
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            both = f'SELECT * FROM "{base}".main."{table}" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true)'
            cursor.execute(f'CREATE TEMP VIEW "{table}" AS SELECT * FROM ({both}){_LAST.get(table, "")}')

    @contextlib.contextmanager
    def told(self) -> Any:
        """What the database says of a file that cannot be read, as Corrupt."""
        import duckdb

        try:
            yield
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            if ".parquet" not in str(error) and str(self.cache) not in str(error):
                raise
            raise Corrupt(f"A file of the archive cannot be read: {str(error).splitlines()[0]}", "Restore it from a backup.") from error


def _parquet(rows: Any) -> bytes:
    import pyarrow.parquet as pq

    order = [(name, "ascending") for name in ("start_ns", "at_ns", "at_ms", "at", "trace_id") if name in rows.column_names]
    out = io.BytesIO()
    pq.write_table(rows.sort_by(order), out, compression="zstd", compression_level=ARCHIVE_ZSTD, row_group_size=ARCHIVE_ROW_GROUP)
    return out.getvalue()


def _extent(rows: Any) -> list[int]:
    """First and last moment of a table's rows, in nanoseconds."""
    import pyarrow.compute as pc

    for name, unit in _TIMES.items():
        if name in rows.column_names:
            ends = pc.min_max(rows[name])
            return [int(ends[side].as_py() * unit) for side in ("min", "max") if ends[side].as_py() is not None]
    return []


def _key_rows(rows: Any, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[key].to_pylist() for key in keys), strict=True))
