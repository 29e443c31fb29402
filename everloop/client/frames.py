"""Data frames and streams of batches as Parquet files to send: pandas, Polars (lazy too), Arrow tables, readers, data sets, DuckDB results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput

_ROWS = 262_144


def write(data: Any, file: Path) -> None:
    """Write data as Parquet, batch by batch where it comes so (a frame's index is left out). BadInput for what is no table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, batches = _batches(data)
    writer = None
    try:
        writer = pq.ParquetWriter(str(file), schema, compression="zstd")
        for batch in batches:
            writer.write_batch(batch)
    except pa.ArrowException as error:
        raise BadInput(f"The data cannot be stored: {error.args[0]}.", "Give each column values of one type.") from None
    finally:
        if writer is not None:
            writer.close()


def _batches(data: Any) -> tuple[Any, Iterator[Any]]:
    """(schema, record batches) of whatever holds a table."""
    import pyarrow as pa

    if hasattr(data, "collect_schema") and hasattr(data, "collect") and not hasattr(data, "__arrow_c_stream__"):  # a lazy Polars frame
        data = data.collect()
    if hasattr(data, "to_arrow"):  # Polars
        data = data.to_arrow()
    if hasattr(data, "scanner"):  # an Arrow data set
        data = data.scanner(batch_size=_ROWS, batch_readahead=1, fragment_readahead=1)
    if hasattr(data, "to_reader"):  # a scanner, a table
        reader = data.to_reader()
    elif hasattr(data, "columns") and hasattr(data, "set_axis"):
        reader = _pandas(data).to_reader(max_chunksize=_ROWS)
    elif hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
    else:
        raise BadInput(
            f"A dataset cannot be made of {type(data).__name__}.", "Give a path, a pandas or Polars DataFrame, an Arrow table, data set or reader."
        )
    return reader.schema, iter(reader)


def _pandas(data: Any) -> Any:
    import pyarrow as pa

    names = [str(c) for c in data.columns]
    if len(set(names)) < len(names):
        raise BadInput(
            f"The data frame has columns with the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}.", "Rename them."
        )
    try:
        return pa.Table.from_pandas(data.set_axis(names, axis=1), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadInput(f"The data frame cannot be stored: {error.args[0]}.", "Give each column values of one type.") from None
