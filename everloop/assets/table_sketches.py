"""What of a table on disk is estimated or looked up with DuckDB in bounded memory: numbers of different values, frequent ones, repeated keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.assets.table_parts import Stored
from everloop.core.limits import TABLE_TOP, TABLE_WORK_MEMORY


def estimate(table: Stored, columns: Mapping[str, bool], scratch: Path | None) -> dict[str, dict[str, Any]]:
    """{column: {"distinct", "top"}} of columns with many different values, "top" where it is asked for.

    `distinct` is a HyperLogLog estimate, within some percent. Candidates for `top` come of a space-saving sketch and are then counted exactly.
    """
    from everloop.assets.table_stats import top

    found: dict[str, dict[str, Any]] = {}
    with database(table, scratch) as con:
        for name, frequent in columns.items():
            column = _name(table, name)
            sketched = f", approx_top_k({column}, {2 * TABLE_TOP})" if frequent else ""
            number = f"case when isfinite({column}) then {column} end" if str(table.schema.field(name).type) == "double" else column
            row = con.execute(f"select approx_count_distinct({number}){sketched} from t").fetchone()
            found[name] = {"distinct": int(row[0])}
            if frequent:
                counted = con.execute(f"select {column}, count(*) from t where {column} in (select unnest(?)) group by 1", [row[1]]).fetchall()
                found[name]["top"] = top(counted)
    return found


def repeated(table: Stored, names: Sequence[str], scratch: Path | None) -> Iterator[int]:
    """Rows (from 0), in order, whose values of some columns occur more than once, together and none missing."""
    columns = [_name(table, name) for name in names]
    there = " and ".join(f"{c} is not null" for c in columns)
    key = ", ".join(columns)
    with database(table, scratch) as con:
        con.execute(f"create temp table twice as select {key} from t where {there} group by {key} having count(*) > 1")
        rows = con.execute(f"select file_row_number from t semi join twice using ({key}) order by 1")
        while some := rows.fetchmany(100_000):
            yield from (row for (row,) in some)


def database(table: Stored, scratch: Path | None) -> Any:
    """A DuckDB in memory with the view `t` of the table: columns c0, c1 ... and file_row_number. What does not fit into memory goes to `scratch`."""
    import duckdb

    settings = {"memory_limit": TABLE_WORK_MEMORY, "threads": 2}
    con = duckdb.connect(":memory:", config={**settings, "temp_directory": str(scratch or table.file.parent)})
    con.execute("set enable_progress_bar = false")  # it would be drawn on the server's own output
    names = ", ".join([*(f"c{i}" for i in range(table.num_columns)), "file_row_number"])
    file = str(table.file).replace("'", "''")
    con.execute(f"create view t({names}) as select * from read_parquet('{file}', file_row_number = true)")
    return con


def _name(table: Stored, name: str) -> str:
    return f"c{table.column_names.index(name)}"
