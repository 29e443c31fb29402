"""Adding a table that is larger than memory: read in batches, brought to our types, written as Parquet, never whole in memory.

What a column is must be known before its first row is written, and only its last row tells. So it is taken for what its first batch is; where a later
batch contradicts, all columns are looked at once, batch by batch, and the writing begins anew: three passes at the most, one as a rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop.assets import table_dates, tables
from everloop.assets.table_parts import GroupWriter, Stored, step_rows
from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import CSV_BYTES, TABLE_BLOCK_BYTES, TABLE_CELL_CHARS, TABLE_MEMORY_BYTES

_PIECE = 4 * 1024 * 1024


@dataclass
class Source:
    """A table's file that can be read again from its beginning: `open(types)` answers Arrow tables; a CSV's columns may be given types."""

    name: str
    open: Callable[[dict[str, Any] | None], Iterator[Any]]
    told: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    form: tables.CsvForm | None = None


class _Contradicted(Exception):
    """A later batch holds what a column was not taken for."""


def is_large(source: Path | bytes, filename: str) -> bool:
    """Whether a table's file should go through in batches rather than whole: by its size, of Parquet by its rows too."""
    if isinstance(source, bytes):
        return False
    kind, _ = tables.sniff(source, filename or source.name)
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            told = pq.read_metadata(str(source))
        except (pa.ArrowException, OSError):
            return False  # said by who reads it
        unpacked = sum(told.row_group(i).total_byte_size for i in range(told.num_row_groups))
        return max(unpacked, told.num_rows * told.num_columns * 8) > TABLE_MEMORY_BYTES
    return source.stat().st_size > (TABLE_MEMORY_BYTES // 8 if kind == "gzip" else TABLE_MEMORY_BYTES)


def stage(source: Path, filename: str, target: Path, scratch: Path, time: str | None = None) -> tuple[Stored, dict[str, Any], list[str]]:
    """Write a table's file as Parquet of our types to `target`: (the table, how the file was understood, notes). Blocking.

    `time` is the column that says when: its dates are looked for even where its first values do not look like dates. `scratch` is a file's path
    for what has to be unpacked first. Raises as tables.read.
    """
    name = filename or source.name
    found = _source(source, name, scratch)
    plan = _Plan(found, time)
    while True:
        try:
            plan.write(target)
            break
        except _Contradicted:
            plan.settle()
    stored = Stored(target)
    tables.check(stored, name)
    return stored, found.told, found.notes + plan.notes()


class _Plan:
    """What each column is taken for, and what is seen of it as it goes by."""

    def __init__(self, source: Source, time: str | None) -> None:
        self.source = source
        self.time = time
        self.types: dict[str, Any] | None = None
        """A CSV's columns, once looked at from beginning to end."""
        self.ways: dict[str, str | None] = {}
        """How a text column writes dates; None where it is text."""
        self.settled = False

    def write(self, target: Path) -> None:
        """Write the table as planned, or raise _Contradicted."""
        self._words: dict[str, tables.AlmostNumbers] = {}
        self._either: dict[str, str] = {}
        writer: GroupWriter | None = None
        try:
            for batch in self.source.open(self.types):
                made = self._normal(batch)
                if writer is None:
                    writer = GroupWriter(target, made.schema)
                    writer.__enter__()
                if made.num_rows:
                    writer.add(made)
        except BaseException as error:
            if writer is not None:
                writer.__exit__(type(error), error, None)
            raise
        if writer is None:
            tables.check_columns(self.source.form.names if self.source.form else [], 0, self.source.name)
            return
        writer.__exit__(None, None, None)

    def settle(self) -> None:
        """Look at all columns from beginning to end; what is found stands."""
        if self.settled:
            raise BadInput(f"{self.source.name} changed while it was read.", "Add it again when nobody writes to it.")
        self.settled = True
        if self.source.form is not None:
            self.types = _narrowest(self.source)
        dated: dict[str, list[str]] = {}
        for batch in self.source.open(self.types):
            for column, values in _columns(batch, self.source.name):
                if not _is_text(values):
                    continue
                if column not in dated:
                    some = values.drop_null().slice(0, table_dates.SAMPLE)
                    if not len(some):
                        continue
                    dated[column] = table_dates.ways() if column == self.time or table_dates.looks_like_dates(some) else []
                dated[column] = [way for way in dated[column] if _reads(values, way)]
        self.ways = {column: left[0] if left else None for column, left in dated.items()}

    def notes(self) -> list[str]:
        """What a person should know of how columns were read."""
        said = [f"Column {column!r}: {table_dates.ambiguous(example)}" for column, example in self._either.items() if example]
        return said + [note for watched in self._words.values() for note in watched.note()]

    def _normal(self, batch: Any) -> Any:
        import pyarrow as pa

        made: dict[str, Any] = {}
        for column, values in _columns(batch, self.source.name):
            made[column] = self._text(column, values) if _is_text(values) else values
        return pa.table(made)

    def _text(self, column: str, values: Any) -> Any:
        """A text column's values as what it was taken for."""
        some = values.drop_null().slice(0, table_dates.SAMPLE)
        if column not in self.ways:
            if not len(some):
                self._words.setdefault(column, tables.AlmostNumbers(column))
                return values
            like = column == self.time or table_dates.looks_like_dates(some)
            way = next((w for w in table_dates.ways() if _reads(values, w)), None) if like and not self.settled else None
            if way and column in self._words:
                raise _Contradicted  # rows without a value were written as text already
            self.ways[column] = way
        way = self.ways[column]
        if way is None:
            self._words.setdefault(column, tables.AlmostNumbers(column)).add(values)
            return values
        parsed = table_dates.parse_as(values, way)
        if parsed.null_count != values.null_count:
            raise _Contradicted
        other = table_dates.month_first(way)
        if other and self._either.get(column, "-") and len(some):
            self._either[column] = self._either.get(column, some[0].as_py()) if _reads(values, other) else ""
        return parsed


def _columns(batch: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, values of one of our types) of a batch's columns."""
    for column, values in zip(batch.column_names, batch.columns, strict=True):
        tables.need_plain(values.type, column, name)
        yield column, tables.normal(values, values.type)


def _is_text(values: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(values.type))


def _reads(values: Any, way: str) -> bool:
    return bool(table_dates.parse_as(values, way).null_count == values.null_count)


def _source(file: Path, name: str, scratch: Path) -> Source:
    kind, head = tables.sniff(file, name)
    if kind == "gzip":
        _unpack(file, scratch, name)
        return _source(scratch, name.removesuffix(".gz"), scratch)
    if kind == "parquet":
        return Source(name, lambda types: _parquet(file, name), {"format": "parquet"})
    if kind == "arrow":
        return Source(name, lambda types: _arrow(file, name), {"format": "arrow"})
    form = tables.csv_form(file, head, name)
    return Source(name, lambda types: _csv(file, form, types, name), form.source, form.notes, form)


def _unpack(file: Path, target: Path, name: str) -> None:
    """Inflate to a file, bounded."""
    stream = zlib.decompressobj(wbits=31)
    size = 0
    try:
        with open(file, "rb") as source, open(target, "wb") as out:
            while not stream.eof and (piece := source.read(_PIECE)):
                while piece and not stream.eof:
                    data = stream.decompress(piece, _PIECE)
                    piece = stream.unconsumed_tail
                    size += len(data)
                    if size > CSV_BYTES:
                        raise TooLarge(f"{name} unpacks to over {CSV_BYTES:,} bytes.", "Split it.")
                    out.write(data)
    except zlib.error:
        raise BadInput(f"{name} is not whole: it does not unpack as gzip.", "Make it again, or give it unpacked.") from None
    if not stream.eof:
        raise BadInput(f"{name} is cut short: its gzip stream does not end.", "Copy it again.")


def _parquet(file: Path, name: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(str(file), pre_buffer=False, buffer_size=1024 * 1024)
        tables.check_columns(opened.schema_arrow.names, opened.metadata.num_rows, name)
        for batch in opened.iter_batches(batch_size=step_rows(len(opened.schema_arrow))):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{name} begins like Parquet and cannot be read: {tables.first_line(error)}.", "It may be cut short; write it again."
        ) from None


def _arrow(file: Path, name: str) -> Iterator[Any]:
    """Batches of an Arrow file or stream, cut into steps; the file is mapped, not read whole."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as opened:
            framed = opened.read(6) == b"ARROW1"
            opened.seek(0)
            reader = pa.ipc.open_file(opened) if framed else pa.ipc.open_stream(opened)
            tables.check_columns(reader.schema.names, None, name)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if framed else iter(reader)
            step = step_rows(len(reader.schema))
            for batch in batches:
                for at in range(0, batch.num_rows, step):
                    yield pa.Table.from_batches([batch.slice(at, step)])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name} begins like Arrow and cannot be read: {tables.first_line(error)}.", "It may be cut short; write it again.") from None


def _csv(file: Path, form: tables.CsvForm, types: dict[str, Any] | None, name: str) -> Iterator[Any]:
    """Batches of a CSV file. _Contradicted where a later block is not of the type that the first one is."""
    import pyarrow as pa
    import pyarrow.csv as pc

    block, bad = TABLE_BLOCK_BYTES, list[Any]()
    while True:
        begun = False
        try:
            with pc.open_csv(str(file), **form.options(block, types, True, bad)) as reader:
                names = tables.clean_names(list(reader.schema.names))
                tables.check_columns(names, None, name)
                for batch in reader:
                    begun = True
                    yield pa.Table.from_batches([batch]).rename_columns(names)
            return
        except pa.ArrowInvalid as error:
            if bad:
                raise _uneven(file, form, name, bad[0]) from None
            said = str(error).lower()
            if "conversion error" in said and types is None:
                raise _Contradicted from None
            if "straddl" in said and not begun and block < 64 * TABLE_CELL_CHARS:
                block *= 8
                continue
            if "straddl" in said:
                raise BadInput(f"A row of {name} is over {block:,} bytes long.", "Is a quote missing? Fix it, or choose another file.") from None
            raise BadInput(f"{name} cannot be read as CSV: {tables.first_line(error)}.", "Give a CSV with one header line, or Parquet.") from None


def _uneven(file: Path, form: tables.CsvForm, name: str, row: Any) -> BadInput:
    """Which line has another number of fields; only a single thread counts lines."""
    import pyarrow as pa
    import pyarrow.csv as pc

    again: list[Any] = []
    try:
        texts = {column: pa.string() for column in form.names}
        with pc.open_csv(str(file), **form.options(TABLE_BLOCK_BYTES, texts, False, again)) as reader:
            for _ in reader:
                pass
    except pa.ArrowInvalid:
        pass  # that it ends so is why this is asked
    return tables.uneven(again[0] if again else row, name)


def _narrowest(source: Source) -> dict[str, Any]:
    """For each column of a CSV the narrowest type that every value fits; text where none does, a number where no value is there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    form = source.form
    assert form is not None
    left = {column: [pa.int64(), pa.float64(), pa.bool_()] for column in form.names}
    seen = dict.fromkeys(form.names, False)
    for batch in source.open({column: pa.string() for column in form.names}):
        for column, values in zip(form.names, batch.columns, strict=True):
            if not left[column]:
                continue
            seen[column] = seen[column] or values.null_count < len(values)
            texts = pc.ascii_trim_whitespace(values)
            texts = pc.replace_substring(texts, ",", ".") if form.decimal == "," else texts
            left[column] = [kind for kind in left[column] if _casts(texts, kind)]
    return {column: (kinds[0] if seen[column] else pa.float64()) if kinds else pa.string() for column, kinds in left.items()}


def _casts(texts: Any, kind: Any) -> bool:
    import pyarrow as pa

    try:
        texts.cast(kind)
        return True
    except pa.ArrowInvalid:
        return False
