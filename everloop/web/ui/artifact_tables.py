"""Tables, matrices and curves in the files of a run, read a page at a time. Blocking; heavy libraries are imported where they are used."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.core.limits import ARTIFACT_CELL_CHARS, ARTIFACT_COLUMNS

AXES = (
    ("fpr", "tpr", "False positive rate", "True positive rate"),
    ("recall", "precision", "Recall", "Precision"),
    ("prob_pred", "prob_true", "Stated probability", "What happened"),
    ("x", "y", "x", "y"),
)
"""Names of two columns that make a curve, and what they are called."""
CLASSES = 60
"""Classes of a matrix that is drawn at most."""


def read(path: Path, kind: str, offset: int, limit: int) -> dict[str, Any]:
    """Rows of a file from `offset` on: {"columns", "rows", "total" (None: not known), "next"}; BadInput for a file that is no such table."""
    try:
        if kind in (".csv", ".tsv"):
            return _csv(path, "\t" if kind == ".tsv" else ",", offset, limit)
        if kind in (".jsonl", ".ndjson"):
            return _lines(path, offset, limit)
        return _arrow(path, kind, offset, limit)
    except (ValueError, OSError, csv.Error) as error:  # Arrow's errors are ValueErrors and OSErrors
        raise BadInput(f"It cannot be read as {kind[1:]}: {str(error)[:300]}") from None


def _csv(path: Path, mark: str, offset: int, limit: int) -> dict[str, Any]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=mark)
        head = next(rows, [])
        held: list[list[Any]] = []
        total = 0
        for row in rows:
            if offset <= total < offset + limit:
                held.append([_value(cell) for cell in row])
            total += 1
    return _page(head, held, total, offset, limit)


def _lines(path: Path, offset: int, limit: int) -> dict[str, Any]:
    found: list[Any] = []
    total = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            if offset <= total < offset + limit:
                found.append(orjson.loads(line))
            total += 1
    columns = _keys(found)
    rows = [[one.get(key) if isinstance(one, dict) else one for key in columns] if columns else [one] for one in found]
    return _page(columns or ["value"], rows, total, offset, limit)


def _arrow(path: Path, kind: str, offset: int, limit: int) -> dict[str, Any]:
    import pyarrow as pa

    if kind == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        total = file.metadata.num_rows
        names = file.schema_arrow.names[:ARTIFACT_COLUMNS]
        start, groups, before = 0, [], 0
        for i in range(file.num_row_groups):
            size = file.metadata.row_group(i).num_rows
            if start + size > offset and start < offset + limit:
                before = start if not groups else before
                groups.append(i)
            start += size
        table = file.read_row_groups(groups, columns=names).slice(offset - before, limit) if groups else file.schema_arrow.empty_table().select(names)
    else:
        with pa.memory_map(str(path)) as source:
            whole = pa.ipc.open_file(source).read_all()
        total, table = whole.num_rows, whole.slice(offset, limit).select(whole.schema.names[:ARTIFACT_COLUMNS])
    rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    return _page(table.schema.names, rows, total, offset, limit)


def of_json(body: Any, offset: int, limit: int) -> dict[str, Any] | None:
    """A JSON value as a table: a list of objects, or {"columns", "data"} as MLflow logs tables; None for anything else."""
    if isinstance(body, dict) and isinstance(body.get("columns"), list) and isinstance(body.get("data"), list):
        rows = [row for row in body["data"] if isinstance(row, list)]
        return _page([str(c) for c in body["columns"]], rows[offset : offset + limit], len(rows), offset, limit) if rows else None
    if isinstance(body, list) and body and all(isinstance(one, dict) for one in body):
        columns = _keys(body)
        rows = [[one.get(key) for key in columns] for one in body[offset : offset + limit]]
        return _page(columns, rows, len(body), offset, limit)
    return None


def matrix(body: Any) -> dict[str, Any] | None:
    """A confusion matrix in a JSON value: {"labels", "rows": [{"label", "cells": [{"n", "share"}]}]}; share is of the row."""
    if not isinstance(body, dict):
        return None
    held = next((body[key] for key in ("matrix", "confusion_matrix", "counts", "confusion") if isinstance(body.get(key), list)), None)
    labels = next((body[key] for key in ("labels", "classes", "names") if isinstance(body.get(key), list)), None)
    if not held or not all(isinstance(row, list) and len(row) == len(held) for row in held) or len(held) > CLASSES:
        return None
    if not all(_finite(v) and v >= 0 for row in held for v in row):
        return None
    if labels is None or len(labels) != len(held):
        labels = list(range(len(held)))
    return _matrix([str(one) for one in labels], held)


def matrix_of_table(found: dict[str, Any]) -> dict[str, Any] | None:
    """A confusion matrix in a small table: square, perhaps with the labels in its first column."""
    rows, columns = found["rows"], found["columns"]
    skip = 1 if rows and len(columns) == len(rows) + 1 else 0
    cells = [row[skip:] for row in rows]
    if not cells or len(cells) != len(columns) - skip or not all(len(row) == len(cells) and all(_finite(v) for v in row) for row in cells):
        return None
    return _matrix([str(name) for name in columns[skip:]], cells)


def _matrix(labels: list[str], cells: Sequence[Sequence[Any]]) -> dict[str, Any]:
    rows = []
    for label, row in zip(labels, cells, strict=True):
        total = sum(row) or 1
        rows.append({"label": label, "cells": [{"n": v, "share": v / total} for v in row]})
    return {"labels": labels, "rows": rows}


def curve(body: Any) -> tuple[str, str, list[float], list[float]] | None:
    """(x's name, y's name, x, y) of a curve in a value with two lists of numbers that are called as in AXES."""
    if not isinstance(body, dict):
        return None
    named = {str(key).lower(): value for key, value in body.items()}
    for a, b, across, up in AXES:
        x, y = named.get(a), named.get(b)
        if isinstance(x, list) and isinstance(y, list):
            pairs = [(float(p), float(q)) for p, q in zip(x, y, strict=False) if _finite(p) and _finite(q)]
            if len(pairs) > 1:
                return across, up, [p for p, _ in pairs], [q for _, q in pairs]
    return None


def _keys(found: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(one for one in found if isinstance(one, dict))))


def _page(columns: Sequence[Any], rows: Sequence[Sequence[Any]], total: int, offset: int, limit: int) -> dict[str, Any]:
    names = [str(name)[:ARTIFACT_CELL_CHARS] for name in columns[:ARTIFACT_COLUMNS]]
    cut = [[_cell(v) for v in list(row)[: len(names)]] + [None] * (len(names) - len(row)) for row in rows]
    more = offset + limit < total
    return {"columns": names, "rows": cut, "total": total, "next": offset + limit if more else None, "left": max(0, len(columns) - ARTIFACT_COLUMNS)}


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode() if isinstance(value, dict | list) else str(value)
    return text if len(text) <= ARTIFACT_CELL_CHARS else text[:ARTIFACT_CELL_CHARS] + "\u2026"


def _value(cell: str) -> Any:
    """A CSV cell as a number where it is one."""
    try:
        return float(cell) if not cell.lstrip("-").isdigit() or len(cell) > 15 else int(cell)
    except ValueError:
        return cell


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
