"""Tables larger than memory: a Parquet file written group by group, and read back part by part.

`parts` reads such a file and an Arrow table alike, so what describes or checks a table (table_stats, contracts, table_roles) is written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from everloop.core.limits import TABLE_GROUP_BYTES, TABLE_GROUP_ROWS, TABLE_STEP_ROWS


class Stored:
    """A table in a Parquet file of ours, never whole in memory. Its row groups are small enough to be (TABLE_GROUP_BYTES)."""

    def __init__(self, file: Path) -> None:
        import pyarrow.parquet as pq

        self.file = Path(file)
        self._open: Any = pq.ParquetFile(str(file), pre_buffer=False)
        self.schema: Any = self._open.schema_arrow
        self.num_rows: int = self._open.metadata.num_rows
        self.column_names: list[str] = list(self.schema.names)
        self.num_columns = len(self.column_names)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """The rows in order, one row group at a time, as Arrow tables of these columns."""
        for group in range(self._open.num_row_groups):
            yield self._open.read_row_group(group, columns=None if columns is None else list(columns))

    def column(self, name: str) -> Any:
        """One whole column, in memory."""
        return self._open.read(columns=[name]).column(name)

    def null_count(self, name: str) -> int:
        """How many values of a column are missing, from the file's own statistics."""
        at = self.column_names.index(name)
        metadata = self._open.metadata
        return sum(metadata.row_group(g).column(at).statistics.null_count for g in range(metadata.num_row_groups))

    def slice(self, offset: int, length: int) -> Any:
        """Some rows, of which only the row groups that hold them are read."""
        import pyarrow as pa

        found, begin = [self.schema.empty_table()], 0
        for group in range(self._open.num_row_groups):
            rows = self._open.metadata.row_group(group).num_rows
            if begin + rows > offset and begin < offset + length:
                first = max(0, offset - begin)
                found.append(self._open.read_row_group(group).slice(first, offset + length - begin - first))
            begin += rows
        return pa.concat_tables(found)


def parts(table: Any, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A table's rows in order as Arrow tables: of a `Stored` one by one, of an Arrow table all at once."""
    if isinstance(table, Stored):
        yield from table.parts(columns)
    else:
        yield table if columns is None else table.select(list(columns))


def null_count(table: Any, name: str) -> int:
    """How many values of a column are missing."""
    return table.null_count(name) if isinstance(table, Stored) else int(table.column(name).null_count)


def step_rows(columns: int) -> int:
    """Rows that are handled at a time in a table of so many columns: fewer where it is wide."""
    return max(256, min(TABLE_STEP_ROWS, 64 * TABLE_STEP_ROWS // max(1, columns)))


class GroupWriter:
    """Writes a table as Parquet, batch by batch: zstd, content-defined chunking (two versions then share most bytes), groups of bounded size.

    The same rows give the same bytes, however they are cut into batches. A group is compressed beside the caller's work.
    """

    def __init__(self, target: Any, schema: Any) -> None:
        import pyarrow.parquet as pq

        self.schema = schema.remove_metadata()
        where: Any = str(target) if isinstance(target, Path) else target
        self._writer: Any = pq.ParquetWriter(where, self.schema, compression="zstd", use_content_defined_chunking=True)
        self._pool = ThreadPoolExecutor(1, "parquet")
        self._under_way: Future[None] | None = None
        self._held: list[Any] = []
        self._rest: Any = None
        self._rows = self._bytes = 0
        self._step = step_rows(len(self.schema))
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._rest is not None:
                    self._held.append(self._rest)
                self._flush()
                self._wait()
        finally:
            self._pool.shutdown(wait=True)
            self._writer.close()

    def add(self, table: Any) -> None:
        """Append the rows of an Arrow table of the schema."""
        import pyarrow as pa

        self.rows += table.num_rows
        if self._rest is not None:
            table = pa.concat_tables([self._rest, table])
            self._rest = None
        whole = table.num_rows // self._step * self._step
        for at in range(0, whole, self._step):  # groups end at multiples of a step: batches of another size make no other file
            step = table.slice(at, self._step)
            self._held.append(step)
            self._rows += self._step
            self._bytes += step.nbytes
            if self._rows + self._step > TABLE_GROUP_ROWS or self._bytes >= TABLE_GROUP_BYTES:
                self._flush()
        if whole < table.num_rows:
            self._rest = table.slice(whole)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held:
            return
        group = pa.concat_tables(self._held).combine_chunks()
        self._held, self._rows, self._bytes = [], 0, 0
        self._wait()
        self._under_way = self._pool.submit(self._writer.write_table, group, group.num_rows)

    def _wait(self) -> None:
        if self._under_way is not None:
            done, self._under_way = self._under_way, None
            done.result()


def write(table: Any, target: Any) -> None:
    """Write an Arrow table to a path or an open file, as GroupWriter does."""
    with GroupWriter(target, table.schema) as writer:
        writer.add(table)
