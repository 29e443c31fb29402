"""Row groups that two Parquet files have in common, told by their stored bytes: what need not be read to compare them; and the rest cut into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READ = 4 * 1024 * 1024
_ROWS = 65_536


@dataclass
class Shared:
    """Row groups of each file that the other has not, and rows of those that both have."""

    old: list[int]
    new: list[int]
    rows: int


def shared(old: Path, new: Path) -> Shared:
    """Pair row groups with the same bytes, each at most once. Only groups of the same rows and size are looked into. None are shared where
    the schemas differ."""
    import pyarrow.parquet as pq

    one, two = pq.ParquetFile(str(old)), pq.ParquetFile(str(new))
    left = list(range(one.num_row_groups)), list(range(two.num_row_groups))
    if not one.schema_arrow.equals(two.schema_arrow):
        return Shared(*left, 0)
    shapes = [[_shape(file.metadata.row_group(i)) for i in range(file.num_row_groups)] for file in (one, two)]
    waiting: dict[str, list[int]] = {}
    rows = 0
    for i, shape in enumerate(shapes[0]):
        if shape in shapes[1]:
            waiting.setdefault(_digest(old, one.metadata.row_group(i)), []).append(i)
    for i, shape in enumerate(shapes[1]):
        found = waiting.get(_digest(new, two.metadata.row_group(i))) if shape in shapes[0] else None
        if found:
            left[0].remove(found.pop())
            left[1].remove(i)
            rows += two.metadata.row_group(i).num_rows
    return Shared(*left, rows)


def only(file: Path, groups: Sequence[int]) -> Any:
    """An Arrow data set of some row groups of a file, read as it is scanned."""
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    whole = ds.dataset(str(file), format="parquet")
    if not groups:
        return pq.read_schema(str(file)).empty_table()
    (fragment,) = whole.get_fragments()
    return ds.FileSystemDataset([fragment.subset(row_group_ids=list(groups))], whole.schema, fragment.format, fragment.filesystem)


def weight(file: Path, groups: Sequence[int]) -> int:
    """Bytes of some row groups in memory, about."""
    import pyarrow.parquet as pq

    told = pq.read_metadata(str(file))
    found = [told.row_group(i) for i in groups]
    return sum(max(group.total_byte_size, 16 * group.num_rows * group.num_columns) for group in found)


def spill(con: Any, file: Path, groups: Sequence[int], names: Sequence[str], cells: Sequence[str], n: int, folder: Path) -> list[Path]:
    """Cut row groups into `n` Parquet files by a hash of `cells` (SQL over the columns' new `names`): equal cells are in files of one number.

    Batches go by one at a time; the files are as large as what they hold, so `folder` is one on disk.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.parquet" for i in range(n)]
    opened = pq.ParquetFile(str(file), pre_buffer=False)
    schema = pa.schema([field.with_name(name) for field, name in zip(opened.schema_arrow.remove_metadata(), names, strict=True)])
    writers = [pq.ParquetWriter(str(path), schema, compression="lz4") for path in paths]
    try:
        for batch in opened.iter_batches(batch_size=_ROWS, row_groups=list(groups)) if groups else ():
            con.register("piece", pa.Table.from_batches([batch]).rename_columns(list(names)))
            made = con.sql(f"select *, (hash({', '.join(cells)}) % {n})::integer as __part from piece").to_arrow_table()
            number = made.column("__part").to_numpy()
            order = np.argsort(number, kind="stable")  # sorted here: the database may hand sorted rows over in another order
            ends = np.searchsorted(number[order], np.arange(n + 1))
            rows = made.drop_columns("__part").take(order).cast(schema)
            for writer, begin, end in zip(writers, ends, ends[1:], strict=False):
                if end > begin:
                    writer.write_table(rows.slice(begin, end - begin))
    finally:
        for writer in writers:
            writer.close()
        con.unregister("piece") if groups else None
        pa.default_memory_pool().release_unused()
    return paths


def _shape(group: Any) -> tuple[int, ...]:
    return (group.num_rows, *(group.column(i).total_compressed_size for i in range(group.num_columns)))


def _digest(file: Path, group: Any) -> str:
    """The digest of a row group's stored bytes, column after column, and of how they are packed."""
    from blake3 import blake3

    seen = blake3()
    with open(file, "rb") as source:
        for i in range(group.num_columns):
            column = group.column(i)
            begin = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                begin = min(begin, column.dictionary_page_offset)
            seen.update(f"{column.path_in_schema} {column.physical_type} {column.compression} {column.total_compressed_size};".encode())
            source.seek(begin)
            size = column.total_compressed_size
            while size > 0 and (piece := source.read(min(size, _READ))):
                seen.update(piece)
                size -= len(piece)
    return seen.hexdigest()
