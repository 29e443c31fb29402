"""Data frames and streams of batches become tables, each as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from everloop.client import frames
from everloop.core.errors import BadInput

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})


def reader() -> Any:
    return pa.RecordBatchReader.from_batches(TABLE.schema, iter(TABLE.to_batches(max_chunksize=1)))


def data_set(folder: Path) -> Any:
    pq.write_table(TABLE, folder / "part.parquet")
    return ds.dataset(str(folder / "part.parquet"))


def polars() -> Any:
    return pytest.importorskip("polars").DataFrame(TABLE.to_pydict())


def duck() -> Any:
    import duckdb

    return duckdb.connect().sql("select * from (values (1, 'x'), (2, null), (3, 'z')) t(a, b)")


MADE = {
    "table": lambda folder: TABLE,
    "reader": lambda folder: reader(),
    "data set": data_set,
    "pandas": lambda folder: TABLE.to_pandas(),
    "polars": lambda folder: polars(),
    "lazy polars": lambda folder: polars().lazy(),
    "duckdb": lambda folder: duck(),
}


@pytest.mark.parametrize("kind", list(MADE))
def test_whatever_holds_a_table_is_written(tmp_path: Path, kind: str) -> None:
    frames.write(MADE[kind](tmp_path), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == TABLE.to_pydict()


def test_what_holds_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be made of list"):
        frames.write([1, 2], tmp_path / "out.parquet")
