"""Which rows of a table a signature takes: those are scored, the others are listed with why. For batch scoring, where one bad row must not stop a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.engines.signature import Signature, coerce, compiled


def fitting(columns: Mapping[str, Sequence[Any]], n: int, signature: Mapping[str, Any] | Signature) -> tuple[list[int], list[dict[str, Any]]]:
    """(places of the rows that fit, [{"row": place from 0, "column", "why"}] of the others); the first misfit of a row is told.

    BadInput where a column that is needed is not there at all, since then no row fits.
    """
    known = compiled(signature)
    refused: dict[int, dict[str, Any]] = {}
    for column in known.inputs:
        if column.name not in columns:
            coerce({**{name: list(values[:1]) for name, values in columns.items()}}, known, extra="ignore")
            continue
        values = columns[column.name]
        one = Signature((column,), names=frozenset([column.name]))
        try:
            coerce({column.name: list(values)}, one)
        except BadInput:
            for i, value in enumerate(values):
                if i not in refused:
                    _one(column.name, value, one, i, refused)
    return [i for i in range(n) if i not in refused], [refused[i] for i in sorted(refused)]


def _one(name: str, value: Any, signature: Signature, i: int, refused: dict[int, dict[str, Any]]) -> None:
    try:
        coerce({name: [value]}, signature)
    except BadInput as error:
        refused[i] = {"row": i, "column": name, "why": error.what.removeprefix("Row 0, ")}


def as_wanted(values: Sequence[Any], kind: str) -> list[Any]:
    """A file's values as a signature's type has them, where that is only another spelling: "12" for 12, 7 for the category "7", "true" for True.

    What cannot be read so stays as it is, to be refused by its row.
    """
    if kind == "string":
        return [label(v) for v in values]
    if kind in ("number", "integer"):
        return [_number(v) if isinstance(v, str) else v for v in values]
    if kind == "boolean":
        words = {"true": True, "false": False, "1": True, "0": False}
        return [words.get(v.strip().lower(), v) if isinstance(v, str) else v for v in values]
    return list(values)


def _number(text: str) -> Any:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value
