"""Tables as they come: CSV and Parquet read into Arrow, with what had to be guessed said in words. Larger ones: table_stream.

Types are ours: number, integer, string, boolean, datetime. Text that is a date everywhere becomes one; text that is a number almost
everywhere stays text, and the first cell that stands in the way is named. Row numbers count data rows from 1, without the header.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop.assets.table_dates import parse_dates
from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import CSV_BYTES, TABLE_CELL_CHARS, TABLE_COLUMNS

NULLS = ["", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "?"]
"""Cells that mean: missing."""
DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 256 * 1024
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_BLOCK = 1024 * 1024 * 1024
_PLAIN = 100_000


@dataclass
class Loaded:
    """A table as read: Arrow data, how the file was understood, and notes a person should see."""

    table: Any
    source: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read(source: Path | bytes, filename: str = "") -> Loaded:
    """Read a CSV (any usual delimiter and encoding, gzip too), Parquet, Arrow or Feather file.

    Raises BadInput for an empty or broken file, another format, rows of unequal length or duplicate columns; TooLarge over CSV_BYTES.
    """
    name = filename or (source.name if isinstance(source, Path) else "data")
    kind, head = sniff(source, name)
    if kind == "parquet":
        loaded = _read_parquet(source, name)
    elif kind == "arrow":
        loaded = _read_arrow(source, name)
    elif kind == "gzip":
        loaded = read(_gunzip(source, name), name.removesuffix(".gz"))
    else:
        loaded = _read_csv(source, head, name)
    check(loaded.table, name)
    return loaded


def sniff(source: Path | bytes, name: str) -> tuple[str, bytes]:
    """(parquet | arrow | gzip | csv, the first bytes) of a table's file. BadInput for an empty file or a spreadsheet, TooLarge over CSV_BYTES."""
    size = len(source) if isinstance(source, bytes) else _size(source)
    if size > CSV_BYTES:
        raise TooLarge(f"{name} is {size:,} bytes; a table may be {CSV_BYTES:,} at most.", "Split it, or load it in parts: each is a new version.")
    head = source[:_SAMPLE] if isinstance(source, bytes) else _head(source)
    if not head.strip():
        raise BadInput(f"{name} is empty.", "Give a CSV file with a header line and rows, or a Parquet file.")
    if head[:4] == b"PAR1":
        return "parquet", head
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow", head
    if head[:2] == b"\x1f\x8b":
        return "gzip", head
    if head[:4] == b"PK\x03\x04" or head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise BadInput(f"{name} is a spreadsheet or archive, not a table file.", "Save the sheet as CSV (UTF-8) and load that.")
    return "csv", head


def from_arrow(table: Any, name: str = "table") -> Loaded:
    """An Arrow table made elsewhere (a query, a data frame), with types brought to ours. BadInput as `read`."""
    table, notes = normal_types(table, name)
    check(table, name)
    return Loaded(table, {"format": "arrow"}, notes)


def normal_types(table: Any, name: str = "table", dates: bool = True) -> tuple[Any, list[str]]:
    """The table with every column as float64, int64, string, bool or timestamp[us] (UTC), and notes; BadInput for nested columns."""
    import pyarrow as pa

    notes: list[str] = []
    columns = []
    for column, values in zip(table.column_names, table.columns, strict=True):
        kind = values.type
        need_plain(kind, column, name)
        values = normal(values, kind)
        if dates and pa.types.is_string(values.type):
            parsed, note = parse_dates(values)
            if parsed is not None:
                values = parsed
                notes.extend([f"Column {column!r}: {note}"] if note else [])
            else:
                watched = AlmostNumbers(column)
                watched.add(values)
                notes.extend(watched.note())
        columns.append(values)
    return pa.table(dict(zip(table.column_names, columns, strict=True))) if columns else table, notes


def normal(values: Any, kind: Any) -> Any:
    """Values of an Arrow type as one of ours. BadInput for bytes that are no text and for what a table cannot hold."""
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(kind):
        return normal(values.cast(kind.value_type), kind.value_type)
    if t.is_boolean(kind) or kind in (pa.float64(), pa.int64(), pa.string()):
        return values
    if t.is_null(kind) or t.is_floating(kind) or t.is_decimal(kind) or kind == pa.uint64():
        return values.cast(pa.float64(), safe=False)
    if t.is_integer(kind):
        return values.cast(pa.int64())
    if t.is_timestamp(kind) or t.is_date(kind):
        return values.cast(pa.timestamp("us", tz="UTC" if t.is_timestamp(kind) and kind.tz else None), safe=False).cast(pa.timestamp("us"))
    if t.is_duration(kind):
        return values.cast(pa.duration("us"), safe=False).cast(pa.int64())
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        raise BadInput(f"A column holds {kind} that is not text.", "Leave it out, or decode it first.") from None
    except pa.ArrowNotImplementedError:
        raise BadInput(f"A column holds {kind}, which a table cannot hold.", "Leave it out, or turn it into text or numbers.") from None


def check(table: Any, name: str) -> None:
    """BadInput for a table without rows or with two columns of one name; TooLarge over TABLE_COLUMNS."""
    check_columns(table.column_names, table.num_rows, name)


def check_columns(columns: list[str], rows: int | None, name: str) -> None:
    """`check`, from columns' names and the number of rows (None: not known yet)."""
    seen: dict[str, int] = {}
    for column in columns:
        seen[column] = seen.get(column, 0) + 1
    twice = [f"{c!r} ({k} times)" for c, k in seen.items() if k > 1]
    if twice:
        raise BadInput(f"{name} has columns with the same name: {', '.join(twice)}.", "Rename them, so that each name stands once.")
    if not columns or rows == 0:
        raise BadInput(f"{name} has no rows{' (only a header)' if columns else ''}.", "Give a table with at least one row.")
    if len(columns) > TABLE_COLUMNS:
        raise TooLarge(f"{name} has {len(columns)} columns; at most {TABLE_COLUMNS} are allowed.", "Leave out those that no model needs.")


def need_plain(kind: Any, column: str, name: str) -> None:
    """BadInput for a column of lists, structs or maps."""
    import pyarrow as pa

    if pa.types.is_nested(kind):
        raise BadInput(f"Column {column!r} of {name} holds {kind}.", "Flatten it into plain columns, or leave it out.")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", "Check the name and that you may read it.") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_SAMPLE)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", "Check the name and that you may read it.") from error


def _gunzip(source: Path | bytes, name: str) -> bytes:
    """Inflate, bounded: a small file must not become an endless one."""
    stream = zlib.decompressobj(wbits=31)
    try:
        data = stream.decompress(source if isinstance(source, bytes) else source.read_bytes(), CSV_BYTES + 1)
    except zlib.error:
        raise BadInput(f"{name} is not whole: it does not unpack as gzip.", "Make it again, or give it unpacked.") from None
    if len(data) > CSV_BYTES:
        raise TooLarge(f"{name} unpacks to over {CSV_BYTES:,} bytes.", "Split it.")
    if not stream.eof:
        raise BadInput(f"{name} is cut short: its gzip stream does not end.", "Copy it again.")
    return data


def _read_parquet(source: Path | bytes, name: str) -> Loaded:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else str(source))
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name} begins like Parquet and cannot be read: {first_line(error)}.", "It may be cut short; write it again.") from None
    check(table, name)
    table, notes = normal_types(table, name)
    return Loaded(table, {"format": "parquet"}, notes)


def _read_arrow(source: Path | bytes, name: str) -> Loaded:
    """An Arrow IPC file (Feather is the same) or stream."""
    import pyarrow as pa

    try:
        with pa.BufferReader(source) if isinstance(source, bytes) else pa.memory_map(str(source)) as file:
            framed = file.read(6) == b"ARROW1"
            file.seek(0)
            table = (pa.ipc.open_file(file) if framed else pa.ipc.open_stream(file)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name} begins like Arrow and cannot be read: {first_line(error)}.", "It may be cut short; write it again.") from None
    check(table, name)
    table, notes = normal_types(table, name)
    return Loaded(table, {"format": "arrow"}, notes)


@dataclass
class CsvForm:
    """How a CSV file is written, found from its beginning (its encoding from all of it)."""

    encoding: str
    delimiter: str
    decimal: str
    header: bool
    first: list[str]
    """The cells of its first line, as they stand there."""
    notes: list[str]

    @property
    def source(self) -> dict[str, Any]:
        """What a manifest tells of it."""
        return {"format": "csv", "encoding": self.encoding, "delimiter": self.delimiter, "header": self.header}

    @property
    def names(self) -> list[str]:
        """The columns' names as the parser answers them: the first line's cells, or numbers where it is no header."""
        return list(self.first) if self.header else [f"column_{i + 1}" for i in range(len(self.first))]

    def options(self, block: int, types: dict[str, Any] | None, threads: bool, bad: list[Any]) -> dict[str, Any]:
        """Arrow's options to read it in blocks of so many bytes; rows of another length are collected in `bad` and end the reading."""
        import pyarrow.csv as pc

        def on_bad(row: Any) -> str:
            bad.append(row)
            return "error"

        encoding = "utf8" if self.encoding.startswith("utf-8") else self.encoding
        return {
            "read_options": pc.ReadOptions(
                column_names=None if self.header else self.names, block_size=block, encoding=encoding, use_threads=threads
            ),
            "parse_options": pc.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=on_bad),
            "convert_options": pc.ConvertOptions(
                null_values=NULLS, strings_can_be_null=True, quoted_strings_can_be_null=True, decimal_point=self.decimal, column_types=types
            ),
        }


def csv_form(source: Path | bytes, head: bytes, name: str) -> CsvForm:
    """How a CSV file is written. BadInput for zero bytes, a column without a name, a field over TABLE_CELL_CHARS."""
    encoding, text = _encoding(source, head, name)
    delimiter = _delimiter(text)
    first = _records(text, delimiter, 1)[0]
    notes = []
    headless = all(_NUMBER.fullmatch(cell.strip()) for cell in first)
    if headless:
        notes.append(f"{name} has no header line (its first line is numbers), so the columns are called column_1 to column_{len(first)}.")
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"{name} is not UTF-8; it was read as {encoding}.")
    decimal = "," if delimiter != "," and _decimal_comma(text, delimiter) else "."
    blank = [] if headless else [i for i, cell in enumerate(first) if not cell.strip()]
    if blank:
        raise BadInput(f"Column {blank[0] + 1} of {name} has no name in the header.", "Name every column in the first line.")
    return CsvForm(encoding, delimiter, decimal, not headless, first, notes)


def clean_names(names: list[str]) -> list[str]:
    """Columns' names without white space around them."""
    return [name.strip().lstrip("\ufeff") for name in names]


def _read_csv(source: Path | bytes, head: bytes, name: str) -> Loaded:
    import pyarrow as pa
    import pyarrow.csv as pc

    form = csv_form(source, head, name)

    def parse(types: dict[str, Any] | None, threads: bool, bad: list[Any]) -> Any:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        opened = pa.BufferReader(source) if isinstance(source, bytes) else str(source)
        return pc.read_csv(opened, **form.options(min(max(size, 1024) + 1024, _BLOCK), types, threads, bad))

    table = _parsed(parse, form.names, name)
    table = table.rename_columns(clean_names(table.column_names))
    check(table, name)
    table, more = normal_types(table, name)
    return Loaded(table, form.source, form.notes + more)


def _parsed(parse: Any, names: list[str], name: str) -> Any:
    """Parse; where a column's type was guessed wrong, again as text; where rows are uneven, say which."""
    import pyarrow as pa

    bad: list[Any] = []
    try:
        return parse(None, True, bad)
    except pa.ArrowInvalid as error:
        if not bad and "conversion error" in str(error).lower():
            return _retyped(parse({c: pa.string() for c in names}, True, bad))
        again: list[Any] = []
        try:
            parse(None, False, again)
        except pa.ArrowInvalid as second:
            error = second
        for row in again or bad:
            raise uneven(row, name) from None
        raise BadInput(f"{name} cannot be read as CSV: {first_line(error)}.", "Give a CSV with one header line, or Parquet.") from None


def uneven(row: Any, name: str) -> BadInput:
    """What is wrong with a row of another length than the header, as Arrow tells it."""
    where = f"Line {row.number}" if row.number is not None else "A line"
    text = str(row.text)[:80]
    return BadInput(
        f"{where} of {name} has {row.actual_columns} fields where {row.expected_columns} are expected: {text!r}.",
        "Quote fields that hold the delimiter, or fix the line.",
    )


def _retyped(table: Any) -> Any:
    """All-text columns, each cast to the narrowest type that every value fits."""
    import pyarrow as pa

    columns = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        for kind in (pa.int64(), pa.float64(), pa.bool_()):
            try:
                values = values.cast(kind)
                break
            except pa.ArrowInvalid:
                continue
        columns[name] = values
    return pa.table(columns)


def _encoding(source: Path | bytes, head: bytes, name: str) -> tuple[str, str]:
    """(encoding, first part as text): UTF-8 where all bytes are, UTF-16 by its mark, else Windows-1252."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", "replace")
    if b"\x00" in head:
        raise BadInput(f"{name} holds zero bytes; it is no text.", "Give a CSV file (text) or a Parquet file.")
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        if isinstance(source, bytes):
            decoder.decode(source, True)
        else:
            with source.open("rb") as file:
                while piece := file.read(8 * 1024 * 1024):
                    decoder.decode(piece)
                decoder.decode(b"", True)
    except UnicodeDecodeError:
        return "cp1252", head.decode("cp1252", "replace")
    return ("utf-8-sig" if head[:3] == b"\xef\xbb\xbf" else "utf-8"), head.decode("utf-8-sig", "ignore")


def _records(text: str, delimiter: str, n: int) -> list[list[str]]:
    old = csv.field_size_limit(TABLE_CELL_CHARS)
    try:
        found = []
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                found.append(row)
            if len(found) >= n:
                break
        return found or [[]]
    except csv.Error:
        raise BadInput(f"A field is over {TABLE_CELL_CHARS:,} characters long.", "Is a quote missing? Fix it, or choose another file.") from None
    finally:
        csv.field_size_limit(old)


def _delimiter(text: str) -> str:
    """The delimiter under which the first rows have the same number of fields, the more fields the better."""
    best, score = ",", (False, 0)
    for delimiter in DELIMITERS:
        rows = _records(text, delimiter, 20)
        widths = [len(row) for row in (rows[:-1] if len(rows) > 2 else rows)]
        found = (len(set(widths)) == 1, min(widths, default=0))
        if found[1] > 1 and found > score:
            best, score = delimiter, found
    return best


def _decimal_comma(text: str, delimiter: str) -> bool:
    cells = [cell.strip() for row in _records(text, delimiter, 50)[1:] for cell in row]
    commas = sum(bool(re.fullmatch(r"-?\d+,\d+", c)) for c in cells)
    return commas > 0 and not any(re.fullmatch(r"-?\d+\.\d+", c) for c in cells)


class AlmostNumbers:
    """Watches a text column go by: where nearly all of it is numbers, a note names the first cell that is not."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._rows = self._there = self._good = 0
        self._bad: tuple[int, Any] | None = None

    def add(self, values: Any) -> None:
        """Look at the next values; given up where it is plainly text."""
        import pyarrow.compute as pc

        if self._there > _PLAIN and self._good < 0.5 * self._there:
            return
        there = pc.is_valid(values)
        numeric = pc.and_(there, pc.match_substring_regex(values, r"^\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*$"))
        n, good = pc.sum(there).as_py() or 0, pc.sum(pc.fill_null(numeric, False)).as_py() or 0
        if self._bad is None and good < n:
            first = pc.index(pc.fill_null(pc.and_(there, pc.invert(numeric)), False), True).as_py()
            self._bad = (self._rows + first + 1, values[first].as_py())
        self._rows, self._there, self._good = self._rows + len(values), self._there + n, self._good + good

    def note(self) -> list[str]:
        """The note, if there is something to say."""
        if self._bad is None or self._there < 20 or self._good < 0.95 * self._there:
            return []
        row, value = self._bad
        return [f"Column {self.column!r} is text because of row {row}: {value!r}; {self._good:,} of its {self._there:,} values are numbers."]


def first_line(error: Exception) -> str:
    """What an error of Arrow's says, without the lines below."""
    return (str(error).splitlines() or ["unknown"])[0].rstrip(".")[:200]
